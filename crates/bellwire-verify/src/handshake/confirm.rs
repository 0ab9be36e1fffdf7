//! The URL that Amazon SNS wants fetched: built by whoever sent the request, so it is fetched only if it can be nobody's but Amazon's.

use super::{Answer, Handshake, HandshakeReason, Knowledge, Refused};
use crate::algorithm::is_equal;
use crate::request::{View, parse_form};

const PLACE: &str = "/SubscribeURL";

/// `SubscriptionConfirmation`, after its signature was verified: the URL is covered by it.
pub(super) fn sns(view: &View<'_>, knowledge: &Knowledge<'_>, url: &str) -> Result<Handshake, Refused> {
    if let Some(expected) = knowledge.optional("topic_arn") {
        let topic =
            view.json().and_then(|json| json.pointer("/TopicArn")).and_then(serde_json::Value::as_str).unwrap_or_default();
        if !is_equal(topic.as_bytes(), expected.as_bytes()) {
            return Err(Refused::new(403, HandshakeReason::NotRequested, "/TopicArn"));
        }
    }
    if !is_sns_confirmation(url) {
        return Err(Refused::new(403, HandshakeReason::AddressRefused, PLACE));
    }
    Ok(Handshake::Confirm { url: url.to_owned(), then: Answer::empty(200) })
}

/// `https://sns.<region>.amazonaws.com/?Action=ConfirmSubscription&…`, also in China. No user, no port, no path, no other spelling.
fn is_sns_confirmation(url: &str) -> bool {
    let Some((host, query)) = url.strip_prefix("https://").and_then(|rest| rest.split_once("/?")) else { return false };
    let region =
        host.strip_prefix("sns.").and_then(|host| host.strip_suffix(".amazonaws.com").or(host.strip_suffix(".amazonaws.com.cn")));
    let is_region = |region: &str| {
        // No bucket: `sns.s3-us-west-2.amazonaws.com` may be anybody's.
        !region.is_empty()
            && !region.starts_with("s3")
            && region.len() <= 32
            && region.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    let is_plain = query.bytes().all(|c| c.is_ascii_graphic() && c != b'#' && c != b'\\');
    let is_confirmation = parse_form(query).is_some_and(|fields| {
        fields.iter().filter(|(name, _)| name == "Action").map(|(_, value)| value.as_str()).eq(["ConfirmSubscription"])
    });
    region.is_some_and(is_region) && is_plain && is_confirmation
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: whoever can sign a message of any topic has us fetch a URL of their choice.
    #[test]
    fn only_urls_of_sns_are_confirmed() {
        for good in [
            "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:123456789012:MyTopic&Token=2336",
            "https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription&Token=1",
        ] {
            assert!(is_sns_confirmation(good), "{good}");
        }
        for bad in [
            "http://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.us-west-2.amazonaws.com.evil.test/?Action=ConfirmSubscription",
            "https://evil.test/?Action=ConfirmSubscription&x=sns.us-west-2.amazonaws.com",
            "https://sns.us-west-2.amazonaws.com@evil.test/?Action=ConfirmSubscription",
            "https://user@sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.us-west-2.amazonaws.com:8443/?Action=ConfirmSubscription",
            "https://sns.s3-us-west-2.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.evil.test/x.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.evil.test#.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.evil.test\\.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.a.b.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns..amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.amazonaws.com/?Action=ConfirmSubscription",
            "https://s3.us-west-2.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.us-west-2.amazonaws.com/bucket?Action=ConfirmSubscription",
            "https://sns.us-west-2.amazonaws.com/?Action=DeleteTopic",
            "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Action=DeleteTopic",
            "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription\r\nHost: evil.test",
            "",
        ] {
            assert!(!is_sns_confirmation(bad), "{bad}");
        }
    }
}
