//! Bad input: each a clear answer that names the place, and nothing lost or half done.

use serde_json::{Value, json};

use crate::harness::{Harness, text};

/// If it fails, a caller with a broken request is left without the place of the fault.
#[tokio::test]
async fn faults_in_bodies_are_named_by_their_place() {
    let h = Harness::start().await;
    h.application("a").await;
    let url = h.receiver.url("/ok");
    let cases: &[(&str, &str, String, &[&str])] = &[
        ("POST", "/api/v1/app", "{".into(), &["body"]),
        ("POST", "/api/v1/app", String::new(), &["body"]),
        ("POST", "/api/v1/app", "[]".into(), &["body"]),
        ("POST", "/api/v1/app", "null".into(), &["body"]),
        ("POST", "/api/v1/app", "{}".into(), &["body", "name"]),
        ("POST", "/api/v1/app", r#"{"name": ""}"#.into(), &["body", "name"]),
        ("POST", "/api/v1/app", r#"{"name": 5}"#.into(), &["body", "name"]),
        ("POST", "/api/v1/app", r#"{"name": "a", "uid": "b c"}"#.into(), &["body", "uid"]),
        ("POST", "/api/v1/app", r#"{"name": "a", "uid": "app_1srOrx2ZWZBpBUvZwXKQmoEYga2"}"#.into(), &["body", "uid"]),
        ("POST", "/api/v1/app", r#"{"name": "a", "throttleRate": 0}"#.into(), &["body", "throttleRate"]),
        ("POST", "/api/v1/app", r#"{"name": "a", "throttleRate": 65536}"#.into(), &["body", "throttleRate"]),
        ("POST", "/api/v1/app", r#"{"name": "a", "metadata": {"k": 1}}"#.into(), &["body", "metadata", "k"]),
        ("PATCH", "/api/v1/app/a", r#"{"name": null}"#.into(), &["body", "name"]),
        ("PUT", "/api/v1/app/new", r#"{"name": "a", "uid": "other"}"#.into(), &["body", "uid"]),
        ("POST", "/api/v1/app/a/endpoint", r#"{"url": "not a url"}"#.into(), &["body", "url"]),
        ("POST", "/api/v1/app/a/endpoint", r#"{"url": "ftp://example.com"}"#.into(), &["body", "url"]),
        ("POST", "/api/v1/app/a/endpoint", r#"{"url": "https://u:p@example.com"}"#.into(), &["body", "url"]),
        ("POST", "/api/v1/app/a/endpoint", r#"{"url": "http://10.0.0.1/"}"#.into(), &["body", "url"]),
        ("POST", "/api/v1/app/a/endpoint", r#"{"url": "http://[::1]/"}"#.into(), &["body", "url"]),
        ("POST", "/api/v1/app/a/endpoint", r#"{"url": "http://169.254.169.254/latest"}"#.into(), &["body", "url"]),
        (
            "POST",
            "/api/v1/app/a/endpoint",
            r#"{"url": "http://2130706433:80/"}"#.replace("2130706433", "0x0a000001"),
            &["body", "url"],
        ),
        ("POST", "/api/v1/app/a/endpoint", format!(r#"{{"url": "{url}", "eventTypes": []}}"#), &["body", "eventTypes"]),
        ("POST", "/api/v1/app/a/endpoint", format!(r#"{{"url": "{url}", "channels": ["a b"]}}"#), &["body", "channels", "0"]),
        ("POST", "/api/v1/app/a/endpoint", format!(r#"{{"url": "{url}", "secret": "whsec_c2hvcnQ="}}"#), &["body", "secret"]),
        (
            "POST",
            "/api/v1/app/a/endpoint",
            format!(r#"{{"url": "{url}", "headers": {{"x-a": "b\r\nhost: evil"}}}}"#),
            &["body", "headers"],
        ),
        ("POST", "/api/v1/app/a/endpoint", format!(r#"{{"url": "{url}", "headers": {{"Host": "evil"}}}}"#), &["body", "headers"]),
        ("POST", "/api/v1/app/a/msg", r#"{"eventType": "a"}"#.into(), &["body", "payload"]),
        ("POST", "/api/v1/app/a/msg", r#"{"eventType": "a", "payload": [1]}"#.into(), &["body", "payload"]),
        ("POST", "/api/v1/app/a/msg", r#"{"eventType": "a b", "payload": {}}"#.into(), &["body", "eventType"]),
        ("POST", "/api/v1/app/a/msg", r#"{"eventType": "a", "payload": {}, "deliverAt": "soon"}"#.into(), &["body", "deliverAt"]),
        (
            "POST",
            "/api/v1/app/a/msg",
            r#"{"eventType": "a", "payload": {}, "deliverAt": "2020-01-01T00:00:00Z"}"#.into(),
            &["body", "deliverAt"],
        ),
        (
            "POST",
            "/api/v1/app/a/msg",
            r#"{"eventType": "a", "payload": {}, "payloadRetentionPeriod": 91}"#.into(),
            &["body", "payloadRetentionPeriod"],
        ),
        (
            "POST",
            "/api/v1/app/a/msg",
            r#"{"eventType": "a", "payload": {}, "payloadRetentionPeriod": 1, "payloadRetentionHours": 1}"#.into(),
            &["body", "payloadRetentionHours"],
        ),
        ("POST", "/api/v1/event-type", r#"{"name": "a", "description": "", "schemas": {"1": 5}}"#.into(), &["body", "schemas"]),
        ("POST", "/api/v1/event-type", r#"{"name": "a", "description": "", "schemas": []}"#.into(), &["body", "schemas"]),
        ("POST", "/api/v1/api-key", r#"{"name": "a", "scopes": ["everything"]}"#.into(), &["body", "scopes"]),
        ("POST", "/api/v1/auth/app-portal-access/a", r#"{"expiry": 60}"#.into(), &["body", "expiry"]),
        ("POST", "/api/v1/auth/app-portal-access/a", r#"{"capabilities": ["All"]}"#.into(), &["body", "capabilities", "0"]),
    ];
    for (method, path, body, place) in cases {
        let answer = h.call(&h.key, method, path, &[], Some(body)).await;
        assert_eq!(answer.status, 422, "{method} {path} {body}: {:?}", answer.body);
        assert_eq!(answer.place(), *place, "{method} {path} {body}");
    }
    // Nothing was made by any of them.
    assert_eq!(h.get("/api/v1/app").await.expect(200)["data"].as_array().unwrap().len(), 1);
    assert_eq!(h.get("/api/v1/app/a/endpoint").await.expect(200)["data"], json!([]));
    assert_eq!(h.get("/api/v1/app/a/msg").await.expect(200)["data"], json!([]));
}

/// If it fails, a tenant who names a forbidden address does not learn that it is forbidden and how it could be allowed.
#[tokio::test]
async fn private_addresses_are_refused_with_the_way_out() {
    let h = Harness::start().await;
    h.application("a").await;
    let found = h.post("/api/v1/app/a/endpoint", json!({ "url": "http://192.168.1.7/hook" })).await.expect(422);
    let message = text(&found["detail"][0]["msg"]);
    assert!(message.contains("192.168.1.7") && message.contains("BELLWIRE_EGRESS__ALLOW"), "{message}");
}

/// If it fails, list parameters out of bounds are silently bent, or a page is shown for a cursor that is none.
#[tokio::test]
async fn faults_in_queries_are_named_with_value_and_bounds() {
    let h = Harness::start().await;
    h.application("a").await;
    let cases = [
        ("/api/v1/app?limit=0", "limit"),
        ("/api/v1/app?limit=251", "limit"),
        ("/api/v1/app?limit=99999999999999999999999", "limit"),
        ("/api/v1/app?limit=ten", "limit"),
        ("/api/v1/app?order=up", "order"),
        ("/api/v1/app?iterator=nonsense", "iterator"),
        ("/api/v1/app?iterator=app_1srOrx2ZWZBpBUvZwXKQmoEYga", "iterator"),
        ("/api/v1/app/a/msg?iterator=app_1srOrx2ZWZBpBUvZwXKQmoEYga2", "iterator"),
        ("/api/v1/app/a/msg?iterator=--msg_1srOrx2ZWZBpBUvZwXKQmoEYga2", "iterator"),
        ("/api/v1/event-type?iterator=a%20b", "iterator"),
        ("/api/v1/app/a/msg?before=yesterday", "before"),
        ("/api/v1/app/a/msg?with_content=maybe", "with_content"),
        ("/api/v1/app/a/msg?channel=a%20b", "channel"),
        ("/api/v1/app/a/msg?event_types=a%20b", "event_types"),
        ("/api/v1/app/a/attempt/msg/m?status=5", "status"),
        ("/api/v1/app/a/attempt/msg/m?status_code_class=201", "status_code_class"),
        ("/api/v1/background-task?status=lost", "status"),
    ];
    for (path, name) in cases {
        assert_eq!(h.get(path).await.place(), ["query", name], "{path}");
    }
    let message = text(&h.get("/api/v1/app?limit=251").await.expect(422)["detail"][0]["msg"]);
    assert!(message.contains("251") && message.contains("1 to 250"), "{message}");
}

/// If it fails, a wrong path, method or content type is answered with something no client can read.
#[tokio::test]
async fn wrong_paths_methods_and_content_types_have_codes() {
    let h = Harness::start().await;
    let answer = h.get("/api/v1/nothing").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "route_not_found"));
    let answer = h.call(&h.key, "DELETE", "/api/v1/app", &[], None).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
    assert!(answer.headers["allow"].to_str().unwrap().contains("POST"));
    let answer = h.get("/api/v1/app/x/endpoint/y/transformation").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (501, "not_implemented"));
    let answer = h.post("/ingest/api/v1/source/x/dashboard", json!({})).await;
    assert_eq!(answer.status, 501);
    let answer = h.call(&h.key, "POST", "/api/v1/app", &[("content-type", "text/plain")], None).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "unsupported_media_type"));
    for path in [
        "/api/v1/app/nobody",
        "/api/v1/app/nobody/endpoint",
        "/api/v1/app/app_1srOrx2ZWZBpBUvZwXKQmoEYga2",
        "/api/v1/event-type/none",
    ] {
        let answer = h.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"), "{path}");
    }
    assert_eq!(h.get("/api/v1/app/a%20b").await.place(), ["path", "app_id"]);
    assert_eq!(h.get("/api/v1/app/").await.status, 200, "a trailing slash is the same path");
    assert_eq!(h.get("/api/v1/app/?limit=1").await.status, 200);
}

/// If it fails, a payload is cut or a large body fills the memory.
#[tokio::test]
async fn what_is_too_large_is_refused_whole() {
    let h = Harness::start().await;
    h.application("a").await;
    let big = json!({ "eventType": "a", "payload": { "x": "y".repeat(1024 * 1024) } });
    let answer = h.post("/api/v1/app/a/msg", big).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "payload_too_large"));
    let answer = h.post("/api/v1/app", json!({ "name": "a", "metadata": { "x": "y".repeat(2 * 1024 * 1024) } })).await;
    assert_eq!(answer.status, 413);
    // The largest payload that is allowed passes.
    let fits = "y".repeat(1024 * 1024 - r#"{"x":""}"#.len());
    h.post("/api/v1/app/a/msg", json!({ "eventType": "a", "payload": { "x": fits } })).await.expect(202);
    let metadata = json!({ "name": "b", "metadata": { "x": "y".repeat(20_000) } });
    assert_eq!(h.post("/api/v1/app", metadata).await.place(), ["body", "metadata"]);
}

/// If it fails, two messages of one event id exist, or the second caller does not learn of it.
#[tokio::test]
async fn taken_names_are_conflicts() {
    let h = Harness::start().await;
    h.application("a").await;
    let conflict =
        |answer: crate::harness::Answer| assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "conflict"));
    conflict(h.post("/api/v1/app", json!({ "name": "again", "uid": "a" })).await);
    let endpoint = json!({ "url": h.receiver.url("/ok"), "uid": "e" });
    h.post("/api/v1/app/a/endpoint", endpoint.clone()).await.expect(201);
    conflict(h.post("/api/v1/app/a/endpoint", endpoint).await);
    let message = json!({ "eventType": "t", "eventId": "one", "payload": {} });
    h.post("/api/v1/app/a/msg", message.clone()).await.expect(202);
    conflict(h.post("/api/v1/app/a/msg", message.clone()).await);
    h.application("b").await;
    h.post("/api/v1/app/b/msg", message).await.expect(202);
    let event_type = json!({ "name": "t", "description": "" });
    h.post("/api/v1/event-type", event_type.clone()).await.expect(201);
    conflict(h.post("/api/v1/event-type", event_type).await);
}

/// If it fails, archived event types go on being sent.
#[tokio::test]
async fn archived_event_types_are_refused_at_once_and_unknown_ones_taken() {
    let h = Harness::start().await;
    h.application("a").await;
    h.post("/api/v1/event-type", json!({ "name": "t", "description": "" })).await.expect(201);
    h.publish("a", "t").await;
    h.publish("a", "unheard.of").await;
    h.delete("/api/v1/event-type/t").await.expect(204);
    let refused = h.post("/api/v1/app/a/msg", json!({ "eventType": "t", "payload": {} })).await;
    assert_eq!(refused.place(), ["body", "eventType"]);
    assert_eq!(h.get("/api/v1/event-type").await.expect(200)["data"], json!([]));
    let all = h.get("/api/v1/event-type?include_archived=true").await.expect(200);
    assert_eq!(all["data"][0]["archived"], json!(true));
    h.post("/api/v1/event-type", json!({ "name": "t", "description": "back" })).await.expect(201);
    h.publish("a", "t").await;
    h.delete("/api/v1/event-type/t?expunge=true").await.expect(204);
    assert_eq!(h.get("/api/v1/event-type?include_archived=true").await.expect(200)["data"], Value::Array(vec![]));
}

/// If it fails, who asks for a delivery to a disabled endpoint is told that it is on its way, and waits for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_accepted_for_a_disabled_endpoint() {
    let h = Harness::start().await;
    h.application("a").await;
    let id = h.endpoint("a", "/ok").await;
    let endpoint = format!("/api/v1/app/a/endpoint/{id}");
    h.post("/api/v1/event-type", json!({ "name": "t", "description": "" })).await.expect(201);
    let message = h.publish("a", "t").await;
    h.receiver.wait("/ok", 1).await;
    let since = h.engine.now().minus(std::time::Duration::from_secs(60)).to_string();
    let (resend, recover) = (format!("/api/v1/app/a/msg/{message}/endpoint/{id}/resend"), format!("{endpoint}/recover"));
    let cases = [
        (&resend, json!({})),
        (&recover, json!({ "since": since })),
        (&format!("{endpoint}/send-example"), json!({ "eventType": "t" })),
    ];
    let once = |path: String, body: String| {
        let h = &h;
        async move { h.call(&h.key, "POST", &path, &[("idempotency-key", "once")], Some(&body)).await }
    };
    for path in [&resend, &recover] {
        once(path.clone(), json!({ "since": since }).to_string()).await.expect(202);
    }
    h.patch(&endpoint, json!({ "disabled": true })).await.expect(200);
    for (path, body) in &cases {
        let refused = h.post(path, body.clone()).await.expect(422);
        assert_eq!(refused["detail"][0]["loc"], json!(["path", "endpoint_id"]), "{path}");
        assert_eq!(refused["detail"][0]["msg"], "the endpoint is disabled; enable it first", "{path}");
    }
    assert_eq!(h.get("/api/v1/app/a/msg").await.expect(200)["data"].as_array().unwrap().len(), 1, "an example was stored");
    for path in [&resend, &recover] {
        // What was done before is still answered as it was.
        once(path.clone(), json!({ "since": since }).to_string()).await.expect(202);
    }
    h.patch(&endpoint, json!({ "disabled": false })).await.expect(200);
    for (path, body) in &cases {
        h.post(path, body.clone()).await.expect(202);
    }
}

/// If it fails, who compresses requests is told that the JSON is broken, and looks for the fault in the wrong place.
#[tokio::test]
async fn compressed_bodies_are_refused_by_name() {
    let h = Harness::start().await;
    for encoding in ["gzip", "br", "identity, gzip", "GZIP"] {
        let answer = h.call(&h.key, "POST", "/api/v1/app", &[("content-encoding", encoding)], Some("\u{1f}\u{8b}")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (415, "unsupported_media_type"), "{encoding}");
        let detail = text(&answer.json()["detail"]);
        assert!(detail.contains(encoding) && detail.contains("Content-Encoding"), "{detail}");
    }
    for encoding in ["identity", "Identity", ""] {
        let answer = h.call(&h.key, "POST", "/api/v1/app", &[("content-encoding", encoding)], Some(r#"{"name": "n"}"#)).await;
        assert_eq!(answer.status, 201, "{encoding:?}");
    }
}
