//! Target about what tenants have us send: URLs of endpoints and their headers.

use std::net::IpAddr;

use bellwire_core::egress::{EgressError, EgressPolicy, Host, Target};
use bellwire_core::header;
use bellwire_engine::transport::RequestHead;

use crate::feature;

pub fn requests() -> Vec<Vec<u8>> {
    [
        "https://example.com/hooks?a=b%20c",
        "https://example.com:8443/\nx-team: payments\nx-b:  c \nauthorization: Bearer x",
        "http://b\u{fc}cher.example/\u{e9}?\u{e9}\nX-A: 1\nx-a: 2",
        "https://192.0.2.1/",
        "https://8.8.8.8/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://[::ffff:169.254.169.254]/",
        "https://[2606:4700::1111]:444/a/../b",
        "https://localhost./",
        "https://a.example.com./%0d%0ahost:%20evil",
        "https://u:p@example.com/#x",
        "https://example.com\\@10.0.0.1/",
        "https://example.com/\nx: a\\r\\nhost: evil\nhost: evil\nx-\u{e9}: \u{e9}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Nothing that a tenant writes leads inside, and one request stays one request, with the headers that were allowed.
pub fn outgoing(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let policy = EgressPolicy::default();
    let target = match policy.judge_url(lines.next().unwrap_or_default()) {
        Ok(target) => target,
        Err(EgressError::Malformed(why)) => return feature(&why),
        Err(EgressError::Refused(refusal)) => {
            let reason: String = refusal.reason().chars().rev().take(24).collect();
            return feature(&reason);
        }
    };
    check_target(&policy, &target);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        // Line breaks can be written with a backslash: the input itself is split at them.
        .map(|(name, value)| (name.to_owned(), value.trim().replace("\\n", "\n").replace("\\r", "\r")))
        .collect();
    let allowed: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, value)| header::check(name, value).is_ok())
        .take(64)
        .collect();
    check_head(&target, &allowed);
    let is_all = header::check_all(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let refused = is_all.err().map(|error| error.to_string().chars().take(16).collect::<String>());
    feature(&(matches!(target.host, Host::Ip(_)), target.tls, target.port, allowed.len(), refused, target.url.query().is_some()))
}

fn check_target(policy: &EgressPolicy, target: &Target) {
    assert_eq!(policy.judge_url(target.url.as_str()).as_ref(), Ok(target), "a URL reads otherwise the second time");
    let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(is_visible(&target.authority) && is_visible(&target.path_and_query), "{target:?}");
    assert!(target.path_and_query.starts_with('/') && !target.authority.contains(['/', '@', '?', '#', '\\']), "{target:?}");
    match &target.host {
        Host::Ip(ip) => assert!(!is_inside(*ip), "{ip} is inside"),
        // What the system's resolver would take for an address never gets there as a name.
        Host::Name(name) => {
            assert!(name.parse::<IpAddr>().is_err() && name.contains('.'), "{name:?} is no name");
            let last = name.rsplit('.').next().unwrap_or_default();
            assert!(!last.bytes().all(|byte| byte.is_ascii_digit()), "{name:?} reads as an address");
            assert!(name != "localhost" && !name.ends_with(".localhost") && !name.ends_with(".internal"), "{name:?}");
        }
    }
}

/// By the standard library's lights, which knows less than the policy but was written by others.
fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            let embedded = ip.to_ipv4().is_some_and(|ip| is_inside(ip.into()));
            embedded
                || ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}

/// What is written is read back by another parser: one head, ending where it should, with nothing that was not put in.
fn check_head(target: &Target, headers: &[(&str, &str)]) {
    let mut head = RequestHead::new("POST", target, "Bellwire/0").expect("a method and a name that are in order");
    for (name, value) in headers {
        assert_eq!(head.header(name, value), Ok(()), "{name:?}: {value:?} can be set but not sent");
    }
    let mut bytes = Vec::new();
    assert_eq!(head.write(&mut bytes, &[("webhook-id", "msg_1")], 3), Ok(()));
    let mut slots = [httparse::EMPTY_HEADER; 80];
    let mut parsed = httparse::Request::new(&mut slots);
    assert_eq!(parsed.parse(&bytes), Ok(httparse::Status::Complete(bytes.len())), "{:?}", String::from_utf8_lossy(&bytes));
    assert_eq!((parsed.method, parsed.path), (Some("POST"), Some(target.path_and_query.as_str())));
    let own =
        [("host", target.authority.as_str()), ("user-agent", "Bellwire/0"), ("accept", "*/*"), ("accept-encoding", "identity")];
    let end = [("webhook-id", "msg_1"), ("content-length", "3")];
    let wanted: Vec<(&str, &str)> = own.iter().chain(headers).chain(&end).copied().collect();
    let read = parsed.headers.iter().map(|header| (header.name, std::str::from_utf8(header.value).unwrap_or("?").trim()));
    assert_eq!(read.collect::<Vec<_>>(), wanted.iter().map(|(name, value)| (*name, value.trim())).collect::<Vec<_>>());
}
