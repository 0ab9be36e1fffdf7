//! Walls: another organisation's data is not there (404), an application's credential sees its own, scopes hold.

use bellwire_api::ROUTES;
use bellwire_core::{IdKind, OrgId};
use serde_json::{Value, json};

use crate::harness::{Harness, text};

/// A body that every route accepts, so that nothing but the wall can refuse.
fn any_body(h: &Harness) -> Value {
    json!({
        "name": "n", "description": "d", "url": h.receiver.url("/stolen"), "headers": {}, "eventType": "t", "payload": {},
        "type": "generic-webhook", "since": h.engine.now().minus(std::time::Duration::from_secs(60)).to_string(), "eventTypes": null,
    })
}

struct Things {
    source: String,
    app: String,
    endpoint: String,
    message: String,
    attempt: String,
    task: String,
    key: String,
}

async fn make_things(h: &Harness) -> Things {
    let app = h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    h.post("/api/v1/event-type", json!({ "name": "t", "description": "" })).await.expect(201);
    let message = h.publish("a", "t").await;
    let attempts = h.until(&format!("/api/v1/app/a/attempt/msg/{message}"), |page| page["data"] != json!([])).await;
    let since = h.engine.now().minus(std::time::Duration::from_secs(60)).to_string();
    let task = h.post(&format!("/api/v1/app/a/endpoint/{endpoint}/recover"), json!({ "since": since })).await.expect(202);
    let key = h.post("/api/v1/api-key", json!({ "name": "k" })).await.expect(201);
    let source = h.source(json!({ "name": "s", "type": "generic-webhook", "appId": "a" })).await;
    let source = text(&source["id"]);
    Things {
        source,
        app,
        endpoint,
        message,
        attempt: text(&attempts["data"][0]["id"]),
        task: text(&task["id"]),
        key: text(&key["id"]),
    }
}

impl Things {
    fn fill(&self, path: &str) -> String {
        path.replace("{app_id}", &self.app)
            .replace("{endpoint_id}", &self.endpoint)
            .replace("{msg_id}", &self.message)
            .replace("{attempt_id}", &self.attempt)
            .replace("{task_id}", &self.task)
            .replace("{key_id}", &self.key)
            .replace("{source_id}", &self.source)
            .replace("{event_type_name}", "t")
    }
}

/// If it fails, one organisation reads or changes another's data.
#[tokio::test]
async fn another_organisations_data_is_not_there() {
    let h = Harness::start().await;
    let things = make_things(&h).await;
    let stranger = h.make_key(OrgId::from_bytes([2; 20]), &["*"]).await;
    let body = any_body(&h).to_string();
    let mut tried = 0;
    for route in ROUTES.iter().filter(|route| route.path.contains('{')) {
        if matches!(route.op.id, "v1.event-type.upsert" | "v1.provider.get") {
            continue; // Creates one of the same name in the stranger's own organisation; is everybody's.
        }
        let path = things.fill(route.path);
        let body = (route.method != http::Method::GET && route.method != http::Method::DELETE).then_some(body.as_str());
        let answer = h.call(&stranger, route.method.as_str(), &path, &[], body).await;
        assert_eq!(answer.status.as_u16(), 404, "{} {path}: {:?}", route.method, answer.body);
        // By uid the application is no more to be found than by id.
        let by_uid = path.replace(&things.app, "a");
        if by_uid != path && route.op.id != "v1.application.upsert" {
            let answer = h.call(&stranger, route.method.as_str(), &by_uid, &[], body).await;
            assert_eq!(answer.status.as_u16(), 404, "{} {by_uid}: {:?}", route.method, answer.body);
        }
        tried += 1;
    }
    assert!(tried > 40, "only {tried} routes were tried");
    for path in [
        "/api/v1/app",
        "/ingest/api/v1/source",
        "/api/v1/event-type",
        "/api/v1/background-task",
        "/api/v1/operational-webhook/endpoint",
    ] {
        let page = h.call(&stranger, "GET", path, &[], None).await.expect(200);
        assert_eq!(page["data"], json!([]), "{path}");
    }
    // All is as it was for the owner.
    h.get(&format!("/api/v1/app/a/msg/{}", things.message)).await.expect(200);
    h.get(&format!("/api/v1/app/a/endpoint/{}", things.endpoint)).await.expect(200);
}

/// If it fails, a key does more than its scopes say.
#[tokio::test]
async fn every_route_holds_its_scope() {
    let h = Harness::start().await;
    let things = make_things(&h).await;
    let body = any_body(&h).to_string();
    let powerless = h.make_key(h.org, &["task:read"]).await;
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/api/v1/") && !route.path.contains("background-task")) {
        let bellwire_api::router::Access::Scope(scope) = route.access else { continue };
        let path = things.fill(route.path);
        let answer = h.call(&powerless, route.method.as_str(), &path, &[], Some(&body)).await;
        assert_eq!(answer.status.as_u16(), 403, "{} {path}: {:?}", route.method, answer.body);
        assert!(
            text(&answer.json()["detail"]).contains(scope.as_str()),
            "{} {path} does not say which scope is missing",
            route.method
        );
    }
    let publisher = h.make_key(h.org, &["message:write"]).await;
    let message = json!({ "eventType": "t", "payload": {} }).to_string();
    h.call(&publisher, "POST", "/api/v1/app/a/msg", &[], Some(&message)).await.expect(202);
    h.call(&publisher, "GET", "/api/v1/app/a/msg", &[], None).await.expect(403);
    // Nobody gives away more than they have.
    let maker = h.make_key(h.org, &["api-key:*", "message:write"]).await;
    let greedy = json!({ "name": "k", "scopes": ["*"] }).to_string();
    h.call(&maker, "POST", "/api/v1/api-key", &[], Some(&greedy)).await.expect(403);
    let same = h.call(&maker, "POST", "/api/v1/api-key", &[], Some(r#"{"name": "k"}"#)).await.expect(201);
    assert_eq!(same["scopes"], json!(["message:write", "api-key:read", "api-key:write"]));
}

/// If it fails, a key that was to publish or to hand out links only makes applications.
#[tokio::test]
async fn applications_are_created_with_the_scope_for_it_only() {
    let h = Harness::start().await;
    let publish = json!({ "eventType": "t", "payload": {}, "application": { "name": "n" } }).to_string();
    let access = json!({ "application": { "name": "n" } }).to_string();
    let cases = [
        ("message:write", "/api/v1/app/new/msg", &publish, 202),
        ("portal:write", "/api/v1/auth/app-portal-access/new2", &access, 200),
    ];
    for (scope, path, body, status) in cases {
        let lacking = h.make_key(h.org, &[scope]).await;
        let refused = h.call(&lacking, "POST", path, &[], Some(body)).await.expect(403);
        assert!(text(&refused["detail"]).contains("application:write"), "{path} does not say which scope is missing");
        assert_eq!(h.get("/api/v1/app?limit=1").await.expect(200)["data"], json!([]), "{path} made one all the same");
        let both = h.make_key(h.org, &[scope, "application:write"]).await;
        h.call(&both, "POST", path, &[], Some(body)).await.expect(status);
        // It is there now, so nothing is created.
        h.call(&lacking, "POST", path, &[], Some(body)).await.expect(status);
        let uid = if scope == "message:write" { "new" } else { "new2" };
        h.delete(&format!("/api/v1/app/{uid}")).await.expect(204);
    }
}
