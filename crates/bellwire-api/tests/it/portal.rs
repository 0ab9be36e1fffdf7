//! Portal access: a token for one application, with the capabilities asked for, until it is logged out or expires.

use std::time::Duration;

use bellwire_api::mint_app_jwt;
use bellwire_core::{AppId, Secret};
use serde_json::{Value, json};

use crate::harness::{Harness, JWT_SECRET, text};

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
    let rotate = format!("{secret}/rotate");
    assert_eq!(status(&h, &secrets, "POST", &rotate, Some("{}")).await, 403, "who may see the secret replaces it");
    for capability in ["ManageEndpointSecret", "ManageEndpoint"] {
        let manager = access(&h, json!({ "capabilities": [capability] })).await;
        assert_eq!(status(&h, &manager, "GET", &secret, None).await, 200, "{capability}");
        assert_eq!(status(&h, &manager, "POST", &rotate, Some("{}")).await, 204, "{capability}");
    }
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

/// If it fails, a customer deletes what the vendor keeps of its deliveries, such as the answers that show whose fault it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_applications_own_credentials_delete_no_content() {
    let h = Harness::start().await;
    let app: AppId = h.application("a").await.parse().unwrap();
    h.endpoint("a", "/ok").await;
    let message = h.publish("a", "t").await;
    let attempts = format!("/api/v1/app/a/attempt/msg/{message}");
    let listed = h.until(&attempts, |page| page["data"][0]["response"] == json!("thanks")).await;
    let message = format!("/api/v1/app/a/msg/{message}");
    let attempt = format!("{message}/attempt/{}", text(&listed["data"][0]["id"]));
    let now = h.engine.now();
    let bound = mint_app_jwt(&Secret::new(JWT_SECRET), h.org, app, now, now.plus(Duration::from_secs(60))).unwrap();
    for token in [&access(&h, json!({})).await, bound.expose()] {
        assert_eq!(status(&h, token, "GET", &attempt, None).await, 200);
        assert_eq!(status(&h, token, "DELETE", &format!("{attempt}/content"), None).await, 403);
        assert_eq!(status(&h, token, "DELETE", &format!("{message}/content"), None).await, 403);
    }
    assert_eq!(h.get(&attempt).await.expect(200)["response"], "thanks");
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
