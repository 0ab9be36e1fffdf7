//! PATCH: absent is not null. PUT: creates at a uid, replaces, and keeps what has routes of its own.

use serde_json::{Value, json};

use crate::harness::Harness;

/// If it fails, changing one field empties others, or null does not empty.
#[tokio::test]
async fn absent_stays_and_null_empties() {
    let h = Harness::start().await;
    let app = json!({ "name": "n", "uid": "a", "throttleRate": 5, "metadata": { "k": "v" } });
    let id = h.post("/api/v1/app", app).await.expect(201)["id"].clone();
    let path = format!("/api/v1/app/{}", id.as_str().unwrap());
    let same = h.patch(&path, json!({})).await.expect(200);
    assert_eq!((&same["throttleRate"], &same["uid"], &same["metadata"]["k"]), (&json!(5), &json!("a"), &json!("v")));
    let one = h.patch(&path, json!({ "throttleRate": null })).await.expect(200);
    assert_eq!((&one["throttleRate"], &one["uid"], &one["name"]), (&Value::Null, &json!("a"), &json!("n")));
    let two = h.patch(&path, json!({ "uid": null, "metadata": {}, "rateLimit": 7 })).await.expect(200);
    assert_eq!((&two["uid"], &two["metadata"], &two["throttleRate"]), (&Value::Null, &json!({}), &json!(7)));
    h.get("/api/v1/app/a").await.expect(404);

    h.application("b").await;
    let endpoint = json!({ "url": h.receiver.url("/ok"), "uid": "e", "eventTypes": ["x"], "channels": ["c"], "throttleRate": 3, "description": "d" });
    h.post("/api/v1/app/b/endpoint", endpoint).await.expect(201);
    let path = "/api/v1/app/b/endpoint/e";
    let same = h.patch(path, json!({ "disabled": true })).await.expect(200);
    assert_eq!((&same["eventTypes"], &same["channels"], &same["throttleRate"]), (&json!(["x"]), &json!(["c"]), &json!(3)));
    let one = h.patch(path, json!({ "eventTypes": null, "throttleRate": 0 })).await.expect(200);
    assert_eq!(
        (&one["eventTypes"], &one["channels"], &one["throttleRate"], &one["disabled"]),
        (&Value::Null, &json!(["c"]), &Value::Null, &json!(true))
    );
    let two = h.patch(path, json!({ "filterTypes": ["y"], "channels": null })).await.expect(200);
    assert_eq!((&two["eventTypes"], &two["filterTypes"], &two["channels"]), (&json!(["y"]), &json!(["y"]), &Value::Null));
    assert_eq!(h.patch(path, json!({ "url": null })).await.place(), ["body", "url"]);

    let event_type = json!({ "name": "t", "description": "d", "schemas": { "1": { "type": "object" } }, "groupName": "g", "featureFlags": ["f"] });
    h.post("/api/v1/event-type", event_type).await.expect(201);
    let same = h.patch("/api/v1/event-type/t", json!({ "deprecated": true })).await.expect(200);
    assert_eq!(
        (&same["schemas"]["1"]["type"], &same["groupName"], &same["featureFlag"]),
        (&json!("object"), &json!("g"), &json!("f"))
    );
    let one =
        h.patch("/api/v1/event-type/t", json!({ "schemas": null, "groupName": null, "featureFlags": null })).await.expect(200);
    assert_eq!((&one["schemas"], &one["groupName"], &one["featureFlags"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!((&one["deprecated"], &one["description"]), (&json!(true), &json!("d")));
}

/// If it fails, a declarative client that only PUTs makes duplicates or loses signing keys.
#[tokio::test]
async fn put_creates_once_and_then_replaces() {
    let h = Harness::start().await;
    let made = h.put("/api/v1/app/a", json!({ "name": "one" })).await.expect(201);
    assert_eq!(made["uid"], "a");
    let same = h.put("/api/v1/app/a", json!({ "name": "two", "throttleRate": 2 })).await.expect(200);
    assert_eq!((&same["id"], &same["uid"], &same["name"]), (&made["id"], &json!("a"), &json!("two")));
    let bare = h.put("/api/v1/app/a", json!({ "name": "three" })).await.expect(200);
    assert_eq!(bare["throttleRate"], Value::Null, "PUT replaces the whole");
    h.put("/api/v1/app/app_1srOrx2ZWZBpBUvZwXKQmoEYga2", json!({ "name": "n" })).await.expect(404);

    let url = h.receiver.url("/ok");
    let made = h.put("/api/v1/app/a/endpoint/e", json!({ "url": url })).await.expect(201);
    h.put("/api/v1/app/a/endpoint/e/headers", json!({ "headers": { "x-a": "b" } })).await.expect(204);
    let key = h.get("/api/v1/app/a/endpoint/e/secret").await.expect(200);
    let again = h.put("/api/v1/app/a/endpoint/e", json!({ "url": url, "description": "d" })).await.expect(200);
    assert_eq!((&again["id"], &again["description"]), (&made["id"], &json!("d")));
    assert_eq!(h.get("/api/v1/app/a/endpoint/e/secret").await.expect(200), key);
    assert_eq!(h.get("/api/v1/app/a/endpoint/e/headers").await.expect(200)["headers"]["x-a"], "b");

    h.put("/api/v1/event-type/t", json!({ "description": "one" })).await.expect(201);
    let again = h.put("/api/v1/event-type/t", json!({ "description": "two" })).await.expect(200);
    assert_eq!(again["description"], "two");
}

/// If it fails, two changes at once lose one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_once_are_both_kept() {
    let h = std::sync::Arc::new(Harness::start().await);
    h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    let path = format!("/api/v1/app/a/endpoint/{endpoint}/headers");
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (h, path) = (h.clone(), path.clone());
        tasks.push(tokio::spawn(async move {
            h.patch(&path, json!({ "headers": { format!("x-{n}"): "v" } })).await.expect(204);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(h.get(&path).await.expect(200)["headers"].as_object().unwrap().len(), 20);
}
