//! What providers ask of a URL before they send to it, over the real path.

use axum::body::Body;
use bellwire_core::limits;
use bellwire_verify::{Credentials, Presets, Request};
use serde_json::json;

use super::{generic, send};
use crate::harness::{Harness, text};

/// Broken: a provider cannot verify the URL, or anybody can have it answered (T5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_challenges_are_answered_to_the_provider_only() {
    let h = Harness::start().await;
    let config = json!({ "secret": "8f742231b10e8888abcd99yyyzzz85a5" });
    let source = h.source(json!({ "name": "chat", "type": "slack", "config": config })).await;
    let url = text(&source["ingestUrl"]);
    let body = br#"{"type":"url_verification","token":"t","challenge":"3eZbrw1aB10bTRbpXjYpyYYcqnTwwmFp"}"#;
    let headers: &[(&str, &[u8])] = &[("Content-Type", b"application/json")];
    let request = Request { method: "POST", url: &url, headers, body, peer: None };
    let now = u64::try_from(h.engine.now().as_unix_seconds()).unwrap();
    let slack = Presets::builtin().get("slack").unwrap();
    let genuine = slack.sign(&request, &Credentials::secret("8f742231b10e8888abcd99yyyzzz85a5"), now).unwrap();
    let answer = send(&h, &url, &genuine).await;
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("3eZbrw1aB10bTRbpXjYpyYYcqnTwwmFp"), "{answer:?}");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let forged = slack.sign(&request, &Credentials::secret("another secret of thirty-two char"), now).unwrap();
    let answer = send(&h, &url, &forged).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (401, 0));
    // What is larger than any handshake is not even looked at as one: whoever has no secret could have it taken apart.
    let body =
        format!(r#"{{"type":"url_verification","challenge":"c","token":"{}"}}"#, "t".repeat(limits::HANDSHAKE_BODY_BYTES_MAX));
    let large = slack.sign(&Request { body: body.as_bytes(), ..request }, &Credentials::secret("another"), now).unwrap();
    assert_eq!(send(&h, &url, &large).await.status, 401);
    assert!(h.received(&source).await.is_empty(), "a handshake became a message");
    let reasons: Vec<String> = h.log(&source, 3).await.into_iter().map(|(reason, _, _)| reason).collect();
    assert_eq!(reasons, ["verification_failed.no_match", "handshake.signature_not_valid", "handshake"]);
}

/// Broken: a challenge by GET is not answered, or answered to whoever lacks the agreed token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_by_get_are_answered_before_any_secret_is_known() {
    let h = Harness::start().await;
    let config = json!({ "secret": "app-secret", "verifyToken": "meatyhamhock" });
    let source = h.source(json!({ "name": "social", "type": "meta", "config": config })).await;
    let url = text(&source["ingestUrl"]);
    let ask = |token: &str| format!("{url}?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}");
    let answer = h.receive("GET", &ask("meatyhamhock"), &[], "").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"1158201444"[..]));
    assert_eq!(h.receive("GET", &ask("other"), &[], "").await.status, 403);
}

/// Broken: a secret that a provider sets up is lost, replaced by a stranger's, or not used (Asana).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_a_handshake_brings_is_kept_once_and_verifies_from_then_on() {
    let h = Harness::start().await;
    let source = h.source(json!({ "name": "tasks", "type": "asana" })).await;
    let (id, url) = (text(&source["id"]), text(&source["ingestUrl"]));
    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    let answers = futures(&h, &url, &[secret; 4]).await;
    assert!(answers.iter().all(|(status, echoed)| *status == 200 && echoed.as_deref() == Some(secret)), "{answers:?}");
    let stranger = futures(&h, &url, &["a537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81"]).await;
    assert_eq!(stranger, [(403, None)], "a stranger replaced the secret");
    let headers: &[(&str, &[u8])] = &[("Content-Type", b"application/json")];
    let body = br#"{"events":[{"action":"added"}]}"#;
    let request = Request { method: "POST", url: &url, headers, body, peer: None };
    let asana = Presets::builtin().get("asana").unwrap();
    let now = u64::try_from(h.engine.now().as_unix_seconds()).unwrap();
    let event = asana.sign(&request, &Credentials::secret(secret), now).unwrap();
    assert_eq!(send(&h, &url, &event).await.status, 200, "events are not verified with the secret that was set up");
    let forged = asana.sign(&request, &Credentials::secret("another"), now).unwrap();
    assert_eq!(send(&h, &url, &forged).await.status, 401);
    assert_eq!(h.received(&source).await.len(), 1);
    let left = h.get(&format!("/api/v1/source/{id}/handshake")).await.expect(200);
    assert_eq!((left["secretName"].as_str(), left["secret"].as_str()), (Some("X-Hook-Secret"), None), "{left}");
    h.delete(&format!("/api/v1/source/{id}/handshake")).await.expect(204);
    assert_eq!(send(&h, &url, &event).await.status, 401, "a forgotten secret still opens");
}

async fn futures(h: &Harness, url: &str, secrets: &[&str]) -> Vec<(u16, Option<String>)> {
    let mut answers = Vec::new();
    for secret in secrets {
        let answer = h.receive("POST", url, &[("x-hook-secret", secret)], "").await;
        let echoed = answer.headers.get("x-hook-secret").map(|value| value.to_str().unwrap().to_owned());
        answers.push((answer.status.as_u16(), echoed));
    }
    answers
}

/// Broken: of two secrets that arrive at two nodes at once, the second replaces the first, or both providers believe to have set theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_that_are_given_secrets_at_once_one_takes_its() {
    let h = Harness::start().await;
    let other = h.another_node();
    for round in 0..20 {
        let source = h.source(json!({ "name": "tasks", "type": "asana" })).await;
        let path = text(&source["ingestUrl"]).trim_start_matches("https://hooks.example.com").to_owned();
        let secret_of = |node: usize| format!("{round:032x}{node:032x}");
        let ask = async |node: usize| {
            let request = http::Request::post(&path).header("x-hook-secret", secret_of(node)).body(Body::empty()).unwrap();
            if node.is_multiple_of(2) { h.api.handle(request).await } else { other.handle(request).await }.status().as_u16()
        };
        let statuses = tokio::join!(ask(0), ask(1), ask(2), ask(3));
        let statuses = [statuses.0, statuses.1, statuses.2, statuses.3];
        let winners: Vec<usize> = (0..4).filter(|node| statuses[*node] == 200).collect();
        assert!(winners.len() == 1 && statuses.iter().all(|status| [200, 403, 409].contains(status)), "{statuses:?}");
        let stored = h.engine.store().find_source(h.org, &text(&source["id"])).await.unwrap().unwrap();
        assert_eq!(stored.state["secret"].expose(), secret_of(winners[0]), "{statuses:?}");
        assert_eq!(stored.state["secretName"].expose(), "X-Hook-Secret");
    }
}

/// Broken: providers without a preset cannot be answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_can_be_named_where_there_is_no_preset() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({ "handshake": "adobe-io-events" })).await;
    let answer = h.receive("GET", &format!("{url}?challenge=8ec8d794"), &[], "").await;
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("8ec8d794"));
    let path = format!("/api/v1/source/{}/settings", text(&source["id"]));
    let place = h.patch(&path, json!({ "handshake": "nobody" })).await.place();
    assert_eq!(place, ["body", "handshake"]);
}

/// Broken: opening the URL in a browser, or a provider's look whether it is there, makes a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_the_url_is_no_event() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({})).await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(h.receive(method, &url, &[], "").await.status, 200, "{method}");
    }
    assert!(h.received(&source).await.is_empty());
    assert_eq!(h.receive("GET", &format!("{url}?event=a&b=1&b=2"), &[], "").await.status, 200);
    let stored = h.received(&source).await;
    assert_eq!(stored[0].payload.as_deref(), Some(&br#"{"b":["1","2"],"event":"a"}"#[..]));
}
