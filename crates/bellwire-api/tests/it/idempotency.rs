//! `idempotency-key`: the same answer for 24 hours, even when sent a hundred times at once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Harness};

async fn with_key(h: &Harness, path: &str, key: &str, body: &Value) -> Answer {
    h.call(&h.key, "POST", path, &[("idempotency-key", key)], Some(&body.to_string())).await
}

/// If it fails, a client that repeats a request makes things twice, or gets another answer than the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_copies_at_once_do_it_once() {
    let h = Harness::start().await;
    h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    h.post("/api/v1/event-type", json!({ "name": "ex", "description": "" })).await.expect(201);
    let message = h.publish("a", "t").await;
    let since = h.engine.now().minus(Duration::from_secs(60)).to_string();
    let url = h.receiver.url("/other");
    let cases: Vec<(String, Value, u16)> = vec![
        ("/api/v1/app".into(), json!({ "name": "n", "uid": "n" }), 201),
        ("/api/v1/app?get_if_exists=true".into(), json!({ "name": "n", "uid": "a" }), 200),
        ("/api/v1/app/a/endpoint".into(), json!({ "url": url, "uid": "e" }), 201),
        ("/api/v1/app/a/msg".into(), json!({ "eventType": "t", "payload": { "n": 1 }, "eventId": "once" }), 202),
        ("/api/v1/event-type".into(), json!({ "name": "new", "description": "" }), 201),
        ("/api/v1/auth/app-portal-access/a".into(), json!({}), 200),
        ("/api/v1/api-key".into(), json!({ "name": "k" }), 201),
        (format!("/api/v1/app/a/endpoint/{endpoint}/secret/rotate"), json!({}), 204),
        (format!("/api/v1/app/a/endpoint/{endpoint}/recover"), json!({ "since": since }), 202),
        (format!("/api/v1/app/a/endpoint/{endpoint}/send-example"), json!({ "eventType": "ex" }), 202),
        (format!("/api/v1/app/a/msg/{message}/endpoint/{endpoint}/resend"), json!({}), 202),
        ("/api/v1/operational-webhook/endpoint".into(), json!({ "url": url }), 201),
    ];
    for (number, (path, body, status)) in cases.iter().enumerate() {
        let key = &format!("key-{number}");
        let copies = (0..100).map(|_| with_key(&h, path, key, body));
        let answers = join_all(copies).await;
        let first = &answers[0];
        assert_eq!(first.status.as_u16(), *status, "{path}: {:?}", first.body);
        for answer in &answers {
            assert_eq!((answer.status, &answer.body), (first.status, &first.body), "{path}");
        }
        let other = json!({
            "name": "other", "description": "x", "eventType": "ex", "payload": { "n": 2 }, "url": url, "since": since, "until": since,
        });
        let another = with_key(&h, path, key, &other).await;
        if !path.ends_with("/resend") {
            let code = if another.status == 409 { another.code() } else { format!("{another:?}") };
            // The end of a recovery's window is checked after the key, so every route comes to the key first.
            assert_eq!(code, "idempotency_key_mismatch", "{path}");
        }
    }
    assert_eq!(h.get("/api/v1/app/a/endpoint").await.expect(200)["data"].as_array().unwrap().len(), 2);
    assert_eq!(h.get("/api/v1/background-task").await.expect(200)["data"].as_array().unwrap().len(), 1);
    assert_eq!(h.get("/api/v1/app/a/msg").await.expect(200)["data"].as_array().unwrap().len(), 3);
    assert_eq!(h.get("/api/v1/operational-webhook/endpoint").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, slot) in waiting.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().map(Option::unwrap).collect()
}

/// If it fails, a key blocks its name for ever, or its answer is forgotten too early.
#[tokio::test]
async fn a_key_is_good_for_a_day() {
    let h = Harness::start().await;
    let first = with_key(&h, "/api/v1/app", "k", &json!({ "name": "n" })).await;
    h.clock.turn(Duration::from_secs(23 * 3_600));
    assert_eq!(with_key(&h, "/api/v1/app", "k", &json!({ "name": "n" })).await.body, first.body);
    h.clock.turn(Duration::from_secs(2 * 3_600));
    let later = with_key(&h, "/api/v1/app", "k", &json!({ "name": "n" })).await;
    assert_eq!(later.status, 201);
    assert_ne!(later.body, first.body);
}

/// If it fails, one organisation's key, path or failed request stands in the way of another's.
#[tokio::test]
async fn keys_are_separate_by_path_and_failures_are_not_remembered() {
    let h = Harness::start().await;
    h.application("a").await;
    h.application("b").await;
    let message = json!({ "eventType": "t", "payload": {} });
    let in_a = with_key(&h, "/api/v1/app/a/msg", "k", &message).await.expect(202);
    let in_b = with_key(&h, "/api/v1/app/b/msg", "k", &message).await.expect(202);
    assert_ne!(in_a["id"], in_b["id"]);
    assert_eq!(with_key(&h, "/api/v1/app", "f", &json!({ "name": "" })).await.status, 422);
    with_key(&h, "/api/v1/app", "f", &json!({ "name": "better" })).await.expect(201);
    assert_eq!(with_key(&h, "/api/v1/app", "", &json!({ "name": "n" })).await.place(), ["header", "idempotency-key"]);
    let long = "k".repeat(513);
    assert_eq!(with_key(&h, "/api/v1/app", &long, &json!({ "name": "n" })).await.place(), ["header", "idempotency-key"]);
}

/// If it fails, a weak credential that knows or guesses an idempotency key is handed the strong API key made under it.
#[tokio::test]
async fn a_new_api_key_is_repeated_only_to_who_could_make_it() {
    let h = Harness::start().await;
    let weak = h.make_key(h.org, &["api-key:*"]).await;
    for (number, body) in [json!({ "name": "k", "scopes": ["*"] }), json!({ "name": "k" })].iter().enumerate() {
        let key = format!("k{number}");
        let made = with_key(&h, "/api/v1/api-key", &key, body).await;
        assert_eq!(made.status, 201);
        assert_eq!(with_key(&h, "/api/v1/api-key", &key, body).await.body, made.body, "{body}");
        let asked = h.call(&weak, "POST", "/api/v1/api-key", &[("idempotency-key", &key)], Some(&body.to_string())).await;
        assert!(matches!(asked.status.as_u16(), 403 | 409), "{body} gave {asked:?}");
    }
}
