//! What a message tells of where it came from: type, order, time; and bodies of every kind, byte for byte.

use serde_json::json;

use super::generic;
use crate::harness::{Harness, text};

/// Broken: a body is changed because of what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_kind_are_kept_byte_for_byte() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({ "eventType": "/kind" })).await;
    let kinds: &[(&str, &[u8], &str)] = &[
        ("application/json", b"{ \"kind\" : \"a.b\", \"n\": 1.0e0, \"n\": 2 }", "a.b"),
        ("application/x-www-form-urlencoded", b"kind=form+type&x=%zz", "form_type"),
        ("text/xml; charset=utf-8", b"<kind>x</kind>\r\n", "x"),
        ("text/plain", b"caf\xc3\xa9 \xff\xfe\0", "generic-webhook"),
        ("application/octet-stream", b"\x1f\x8b\x00\xff", "generic-webhook"),
    ];
    for (content_type, body, event_type) in kinds {
        let answer = h.receive("PUT", &url, &[("content-type", content_type)], body.to_vec()).await;
        assert_eq!(answer.status, 200, "{content_type}");
        let stored = h.received(&source).await.remove(0);
        assert_eq!(stored.payload.as_deref(), Some(*body), "{content_type}");
        assert_eq!((stored.content_type.as_str(), stored.event_type.as_str()), (*content_type, *event_type));
    }
}

/// Broken: late and stale events cannot be told, or on-time ones are marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_and_stale_events_are_marked() {
    let h = Harness::start().await;
    let settings = json!({ "orderingKey": "/customer", "occurredAt": "/at", "sequence": "/seq", "staleAfterSeconds": 3600 });
    let (source, url) = generic(&h, settings).await;
    let now = h.engine.now().as_unix_seconds();
    for (customer, at, is_late, is_stale) in [
        ("a", now - 10, false, false),
        ("a", now - 20, true, false),
        ("b", now - 20, false, false),
        ("a", now - 5_000, true, true),
        ("a", now, false, false),
    ] {
        let body = json!({ "customer": customer, "at": at, "seq": at }).to_string();
        assert_eq!(h.receive("POST", &url, &[], body).await.status, 200);
        let stored = h.received(&source).await.remove(0);
        let origin = stored.origin.unwrap();
        assert_eq!((origin.is_late, origin.is_stale), (is_late, is_stale), "{customer} {at}");
        assert_eq!(origin.ordering_key.as_deref(), Some(customer));
        assert_eq!((origin.occurred_at, origin.sequence), (Some(at * 1_000), Some(at.to_string())));
    }
}

/// Broken: a provider that wants certain words gets others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn success_is_answered_as_the_provider_or_the_operator_wants() {
    let h = Harness::start().await;
    let answer = json!({ "status": 202, "headers": { "Content-Type": "text/plain", "X-Ok": "1" }, "body": "thanks" });
    let (source, url) = generic(&h, json!({ "answer": answer })).await;
    let got = h.receive("POST", &url, &[], "x").await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (202, &b"thanks"[..]));
    assert_eq!((got.headers["content-type"].to_str().unwrap(), got.headers["x-ok"].to_str().unwrap()), ("text/plain", "1"));
    let repeated = h.receive("POST", &url, &[], "x").await;
    assert_eq!((repeated.status, repeated.body), (got.status, got.body), "a repeat is answered otherwise");
    let path = format!("/api/v1/source/{}/settings", text(&source["id"]));
    for wrong in [
        json!({ "status": 500 }),
        json!({ "status": 200, "headers": { "a b": "c" } }),
        json!({ "status": 200, "headers": { "a": "b\r\nc: d" } }),
        json!({ "status": 200, "headers": { "Content-Length": "7" } }),
    ] {
        assert_eq!(h.patch(&path, json!({ "answer": wrong })).await.place(), ["body", "answer"], "{wrong}");
    }
}

/// Broken: messages on a schedule are not made, or made twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_makes_its_messages_once_a_minute() {
    let h = Harness::start().await;
    let config = json!({ "schedule": "* * * * *", "payload": "{\"tick\":1}", "eventType": "tick" });
    let source = h.source(json!({ "name": "clock", "type": "cron", "config": config })).await;
    assert_eq!(source["ingestUrl"], json!(null));
    assert_eq!(source["config"]["schedule"], "* * * * *");
    // Three minutes at once, as after a pause: made up once.
    h.clock.turn(std::time::Duration::from_secs(180));
    let path = format!("/api/v1/app/{}/msg", text(&source["appId"]));
    let page = h.until(&path, |page| !page["data"].as_array().unwrap().is_empty()).await;
    let rows = page["data"].as_array().unwrap();
    assert_eq!((rows.len(), rows[0]["eventType"].as_str(), &rows[0]["payload"]), (1, Some("tick"), &json!({ "tick": 1 })));
    for config in [json!({ "payload": "{}" }), json!({ "schedule": "* * *", "payload": "{}" }), json!({ "schedule": "@daily" })] {
        let place = h.post("/ingest/api/v1/source", json!({ "name": "clock", "type": "cron", "config": config })).await.place();
        assert_eq!(place[..2], ["body", "config"], "{config}");
    }
}
