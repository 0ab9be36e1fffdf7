//! Who is let in: genuine requests become messages byte for byte, others become an entry of a log and nothing else.

use serde_json::json;

use super::{SECRET, generic, github, push, send};
use crate::harness::{Harness, text};

/// Broken: a provider's event is not stored, changed on its way, or reaches nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genuine_event_is_stored_and_delivered_byte_for_byte() {
    let h = Harness::start().await;
    let (source, url) = github(&h).await;
    assert!(url.starts_with("https://hooks.example.com/in/"), "{url}");
    let endpoints = format!("/ingest/api/v1/source/{}/endpoint", text(&source["id"]));
    h.post(&endpoints, json!({ "url": h.receiver.url("/code") })).await.expect(201);
    let signed = push(SECRET, "d-1");
    let answer = send(&h, &format!("{url}/extra?x=1"), &signed).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]));
    let received = h.receiver.wait("/code", 1).await;
    assert_eq!(received[0].body, signed.body, "what is delivered is not what was sent");
    let stored = h.received(&source).await;
    assert_eq!(stored.len(), 1);
    assert_eq!((stored[0].event_type.as_str(), stored[0].content_type.as_str()), ("push", "application/json"));
    let origin = stored[0].origin.as_deref().unwrap();
    assert_eq!((origin.source.clone(), origin.verified_by.as_str()), (text(&source["id"]), "hmac"));
    assert_eq!((origin.method.as_str(), origin.path.as_str()), ("POST", "/extra?x=1"));
    assert!(origin.headers.iter().any(|(name, value)| name == "x-github-event" && value == "push"));
    let shown = h.get(&format!("/api/v1/app/{}/msg/{}", text(&source["appId"]), stored[0].id)).await.expect(200);
    assert_eq!((&shown["origin"]["source"], &shown["origin"]["verifiedBy"]), (&source["id"], &json!("hmac")), "{shown}");
}

/// Broken: a forged event is taken, or the answer tells the forger why it was not (T1 to T5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_events_are_refused_alike_and_the_log_says_why() {
    let h = Harness::start().await;
    let (source, url) = github(&h).await;
    let genuine = push(SECRET, "d-1");
    let mut mutated = genuine.clone();
    *mutated.body.last_mut().unwrap() ^= 1;
    let mut unsigned = genuine.clone();
    unsigned.headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("x-hub-signature"));
    let mut prefix = genuine.clone();
    for (name, value) in &mut prefix.headers {
        if name.eq_ignore_ascii_case("x-hub-signature-256") {
            *value = value[7..].to_vec();
        }
    }
    let mut twice = genuine.clone();
    let signature = twice.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-hub-signature-256")).unwrap().clone();
    twice.headers.push(signature);
    for forged in [&mutated, &unsigned, &prefix, &twice, &push("another secret", "d-2"), &push("a third", "d-3")] {
        let answer = send(&h, &url, forged).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (401, 0), "the answer tells more than that");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    let mut reasons: Vec<String> = h.log(&source, 6).await.into_iter().map(|(reason, _, _)| reason).collect();
    reasons.sort();
    let wanted = ["header_repeated", "no_match", "no_match", "no_match", "signature_malformed", "signature_missing"];
    assert_eq!(reasons, wanted.map(|code| format!("verification_failed.{code}")));
    assert!(h.received(&source).await.is_empty(), "a forged event was stored");
    assert_eq!(send(&h, &url, &genuine).await.status, 200);
}

/// Broken: a source that was set up without its secret takes anything (T22).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_secret_a_source_takes_nothing_unless_it_says_so_itself() {
    let h = Harness::start().await;
    let source = h.source(json!({ "name": "code", "type": "github" })).await;
    let (path, url) = (format!("/ingest/api/v1/source/{}", text(&source["id"])), text(&source["ingestUrl"]));
    assert_eq!(source["warnings"][0]["code"], "no_secret");
    let signed = push(SECRET, "d-1");
    assert_eq!(send(&h, &url, &signed).await.status, 401);
    assert_eq!(h.log(&source, 1).await[0].0, "no_secret");
    let changed = h.patch(&path, json!({ "config": { "secret": ["old", SECRET] } })).await.expect(200);
    assert!(!changed.to_string().contains(SECRET), "a secret is shown: {changed}");
    assert_eq!(changed["configNames"], json!(["secret", "secret.1"]));
    assert_eq!(send(&h, &url, &signed).await.status, 200, "during a rotation one of the secrets does not fit");
    h.patch(&path, json!({ "config": { "secret": null } })).await.expect(200);
    assert_eq!(send(&h, &url, &push(SECRET, "d-2")).await.status, 401, "a removed secret still opens");
    let settings = format!("/api/v1/source/{}/settings", text(&source["id"]));
    h.patch(&settings, json!({ "isUnverifiedAllowed": true })).await.expect(200);
    assert_eq!(send(&h, &url, &push("whatever", "d-3")).await.status, 200);
    assert_eq!(h.get(&path).await.expect(200)["warnings"][0]["code"], "unverified");
    assert_eq!(
        h.received(&source).await[0].origin.as_deref().unwrap().verified_by,
        "none",
        "it does not show that nobody verified it"
    );
}

/// Broken: a URL that was replaced or never was is told from one that is, or goes on working.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_replaced_urls_are_answered_alike() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({})).await;
    assert_eq!(h.receive("POST", &url, &[], "x").await.status, 200);
    let path = format!("/ingest/api/v1/source/{}", text(&source["id"]));
    let rotated = h.post(&format!("{path}/token/rotate"), json!({})).await.expect(200);
    let new = text(&rotated["ingestUrl"]);
    assert_ne!(new, url);
    for gone in [url.as_str(), "/in/", "/in/x", "/in/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "/in/%00"] {
        let answer = h.receive("POST", gone, &[], "x").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (404, 0), "{gone}");
    }
    assert_eq!(h.receive("POST", &new, &[], "y").await.status, 200);
    let answer = h.receive("DELETE", &new, &[], "").await;
    assert_eq!(answer.status, 405);
    h.delete(&path).await.expect(204);
    assert_eq!(h.receive("POST", &new, &[], "z").await.status, 404, "a deleted source takes events");
}

/// Broken: credentials of providers that sign nothing are not asked for, or are kept with the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_token_and_certificate_are_asked_for_and_not_kept() {
    let h = Harness::start().await;
    let config = json!({ "basicPassword": "pass word", "headerToken": "a token" });
    let settings = json!({ "basicUser": "user", "tokenHeader": "X-Token" });
    let source = h.source(json!({ "name": "any", "type": "generic-webhook", "config": config, "settings": settings })).await;
    let url = text(&source["ingestUrl"]);
    let basic = ("authorization", "Basic dXNlcjpwYXNzIHdvcmQ=");
    for (headers, status) in [
        (&[][..], 401),
        (&[("x-token", "a token")], 401),
        (&[basic], 401),
        (&[basic, ("x-token", "another")], 401),
        (&[basic, ("x-token", "a token"), ("x-token", "a token")], 401),
        (&[("authorization", "Basic dXNlcjo="), ("x-token", "a token")], 401),
        (&[basic, ("x-token", "a token")], 200),
    ] {
        assert_eq!(h.receive("POST", &url, headers, "x").await.status, status, "{headers:?}");
    }
    let kept = format!("{:?}", h.received(&source).await);
    assert!(!kept.contains("a token") && !kept.contains("dXNlcjpwYXNzIHdvcmQ"), "{kept}");
    // Nobody but a trusted proxy may say whose certificate it was.
    let (_, url) = generic(&h, json!({ "clientCertificateSubjects": ["CN=sender"] })).await;
    assert_eq!(h.receive("POST", &url, &[("x-client-cert-subject", "CN=sender")], "x").await.status, 401);
}

/// Broken: a stranger writes a header and passes for somebody in a source's networks (T9).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_judged_behind_trusted_proxies_only() {
    use axum::body::Body;
    use bellwire_api::receive::PeerAddress;
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({ "allowedNetworks": ["192.0.2.0/24"] })).await;
    let path = url.trim_start_matches("https://hooks.example.com");
    for (peer, forwarded, status) in [
        ("192.0.2.7", None, 200),
        ("203.0.113.1", Some("192.0.2.7"), 403),
        ("10.0.0.1", Some("192.0.2.7"), 200),
        ("10.0.0.1", Some("192.0.2.7, 203.0.113.1"), 403),
        ("10.0.0.1", None, 403),
    ] {
        let mut request = http::Request::post(path);
        if let Some(forwarded) = forwarded {
            request = request.header("x-forwarded-for", forwarded);
        }
        let mut request = request.body(Body::from(format!("{peer} {forwarded:?}"))).unwrap();
        request.extensions_mut().insert(PeerAddress(peer.parse().unwrap()));
        assert_eq!(h.send(request).await.status, status, "{peer} {forwarded:?}");
    }
    assert_eq!(h.log(&source, 3).await[0].0, "network");
    assert_eq!(h.received(&source).await[0].origin.as_deref().unwrap().remote_address, "192.0.2.7");
}
