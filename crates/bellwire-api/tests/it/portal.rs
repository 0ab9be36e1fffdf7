//! Portal access: a token for one application, with the capabilities asked for, until it is logged out or expires.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Harness, text};

async fn access(h: &Harness, body: Value) -> String {
    text(&h.post("/api/v1/auth/app-portal-access/a", body).await.expect(200)["token"])
}

async fn status(h: &Harness, token: &str, method: &str, path: &str, body: Option<&str>) -> u16 {
    h.call(token, method, path, &[], body).await.status.as_u16()
}

/// If it fails, a customer's browser can do more than its vendor meant it to.
#[tokio::test]
async fn capabilities_bound_what_a_portal_token_does() {
    let h = Harness::start().await;
    h.application("a").await;
    h.application("b").await;
    let endpoint = format!("/api/v1/app/a/endpoint/{}", h.endpoint("a", "/ok").await);
    let secret = format!("{endpoint}/secret");
    let new = json!({ "url": h.receiver.url("/ok") }).to_string();
    let viewer = access(&h, json!({ "capabilities": ["ViewBase"] })).await;
    assert_eq!(status(&h, &viewer, "GET", &endpoint, None).await, 200);
    assert_eq!(status(&h, &viewer, "GET", "/api/v1/app/a/msg", None).await, 200);
    assert_eq!(status(&h, &viewer, "GET", "/api/v1/event-type", None).await, 200);
    assert_eq!(status(&h, &viewer, "GET", &secret, None).await, 403);
    assert_eq!(status(&h, &viewer, "POST", "/api/v1/app/a/endpoint", Some(&new)).await, 403);
    assert_eq!(status(&h, &viewer, "GET", "/api/v1/app/b/endpoint", None).await, 404);
    let read_only = access(&h, json!({ "readOnly": true })).await;
    assert_eq!(status(&h, &read_only, "DELETE", &endpoint, None).await, 403);
    let secrets = access(&h, json!({ "capabilities": ["ViewEndpointSecret"] })).await;
    assert_eq!(status(&h, &secrets, "GET", &secret, None).await, 200);
    let all = access(&h, json!({})).await;
    assert_eq!(status(&h, &all, "GET", &secret, None).await, 200);
    assert_eq!(status(&h, &all, "POST", "/api/v1/app/a/endpoint", Some(&new)).await, 201);
    for (method, path) in
        [("GET", "/api/v1/app"), ("DELETE", "/api/v1/app/a"), ("POST", "/api/v1/app/a/msg"), ("GET", "/api/v1/api-key")]
    {
        let body = json!({ "eventType": "t", "payload": {} }).to_string();
        assert_eq!(status(&h, &all, method, path, Some(&body)).await, 403, "{method} {path}");
    }
}

/// If it fails, a link that was taken back or has run out still opens the portal.
#[tokio::test]
async fn portal_tokens_end() {
    let h = Harness::start().await;
    let made =
        h.post("/api/v1/auth/app-portal-access/a", json!({ "application": { "name": "n" }, "expiry": 3600 })).await.expect(200);
    assert_eq!(h.get("/api/v1/app/a").await.expect(200)["name"], "n", "the application is created on the way");
    let token = text(&made["token"]);
    assert_eq!(text(&made["url"]), format!("https://hooks.example.com/portal#key={token}"));
    assert_eq!(status(&h, &token, "GET", "/api/v1/app/a", None).await, 200);
    assert_eq!(status(&h, &token, "POST", "/api/v1/auth/logout", None).await, 204);
    assert_eq!(status(&h, &token, "GET", "/api/v1/app/a", None).await, 401, "a logged-out token still works");
    assert_eq!(h.call(&h.key, "POST", "/api/v1/auth/logout", &[], None).await.status, 403, "API keys are not logged out");
    let token = access(&h, json!({ "expiry": 3600, "sessionId": "user_1" })).await;
    let who = h.call(&token, "GET", "/api/v1/auth/whoami", &[], None).await.expect(200);
    assert_eq!(who["sessionId"], "user_1");
    h.clock.turn(Duration::from_secs(3_700));
    assert_eq!(status(&h, &token, "GET", "/api/v1/app/a", None).await, 401, "an expired token still works");
    let token = access(&h, json!({})).await;
    h.delete("/api/v1/app/a").await.expect(204);
    assert_eq!(status(&h, &token, "GET", "/api/v1/app/a", None).await, 401, "a deleted application's token still works");
}
