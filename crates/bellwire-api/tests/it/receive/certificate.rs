//! Providers that sign with a certificate to be fetched: nothing is taken while it cannot be had, and nothing else is fetched.

use bellwire_core::limits;
use serde_json::json;

use crate::harness::{Harness, text};

/// Broken: events are taken or lost for good while the provider's certificate cannot be fetched, or a stranger has something fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_certificate_the_provider_is_told_to_come_again() {
    // No name is looked up here: everything goes by a proxy that is not there.
    let h = Harness::with(|config| config.proxy = Some("http://127.0.0.1:9".to_owned())).await;
    let config = json!({ "topicArn": "arn:aws:sns:us-east-1:123456789012:MyTopic" });
    let source = h.source(json!({ "name": "topic", "type": "aws-sns", "config": config })).await;
    assert_eq!(source["config"]["topicArn"], config["topicArn"], "what is no secret is not shown");
    let url = text(&source["ingestUrl"]);
    let notification = |certificate: &str| {
        let now = h.engine.now().to_string();
        json!({
            "Type": "Notification", "MessageId": "1", "TopicArn": config["topicArn"], "Message": "Hello", "Timestamp": now,
            "SignatureVersion": "2", "Signature": "AAAA", "SigningCertURL": certificate,
        })
        .to_string()
    };
    let genuine = notification("https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem");
    for _ in 0..2 {
        let answer = h.receive("POST", &url, &[], genuine.clone()).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["retry-after"], limits::CERTIFICATE_RETRY_SECONDS.to_string());
    }
    let stranger = h.receive("POST", &url, &[], notification("https://sns.us-east-1.amazonaws.com.evil.test/1.pem")).await;
    assert_eq!((stranger.status.as_u16(), stranger.body.len()), (401, 0));
    let reasons: Vec<String> = h.log(&source, 3).await.into_iter().map(|(reason, _, _)| reason).collect();
    assert_eq!(reasons, ["verification_failed.certificate_refused", "certificate_unavailable", "certificate_unavailable"]);
    assert!(h.received(&source).await.is_empty());
}
