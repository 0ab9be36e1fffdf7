//! Managing sources, by the paths of the Svix API and beyond them.

use serde_json::json;

use crate::harness::{Harness, text};

/// Broken: a client of the Svix API cannot manage sources, or is shown a secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_are_created_changed_and_deleted_and_their_secrets_never_shown() {
    let h = Harness::start().await;
    let body = json!({ "name": "Payments", "uid": "pay", "type": "stripe", "config": { "secret": "whsec_never_shown" } });
    let key = [("idempotency-key", "k1")];
    let created = h.call(&h.key, "POST", "/ingest/api/v1/source", &key, Some(&body.to_string())).await.expect(201);
    let again = h.call(&h.key, "POST", "/ingest/api/v1/source", &key, Some(&body.to_string())).await.expect(201);
    assert_eq!(created, again, "the key made another source");
    assert!(!created.to_string().contains("never_shown"), "{created}");
    assert_eq!((text(&created["type"]), text(&created["uid"])), ("stripe".into(), "pay".into()));
    assert_eq!(h.post("/ingest/api/v1/source", body.clone()).await.status, 409, "the uid is taken");
    assert_eq!(h.get("/ingest/api/v1/source/pay").await.expect(200)["id"], created["id"]);
    // Without a config, what there is stays.
    let put = json!({ "name": "Money", "type": "stripe", "metadata": { "a": "b" } });
    let replaced = h.put("/ingest/api/v1/source/pay", put).await.expect(200);
    assert_eq!((text(&replaced["name"]), &replaced["configNames"]), ("Money".into(), &json!(["secret"])));
    assert_eq!(replaced["ingestUrl"], created["ingestUrl"]);
    let patched = h.patch("/ingest/api/v1/source/pay", json!({ "type": "github" })).await.expect(200);
    assert_eq!(patched["configNames"], json!([]), "one provider's secret opens another's source");
    h.put("/ingest/api/v1/source/new", json!({ "name": "New", "type": "generic-webhook" })).await.expect(201);
    let list = h.get("/ingest/api/v1/source").await.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let app = text(&created["appId"]);
    h.get(&format!("/api/v1/app/{app}")).await.expect(200);
    h.delete("/ingest/api/v1/source/pay").await.expect(204);
    assert_eq!(h.get("/ingest/api/v1/source/pay").await.status, 404);
    assert_eq!(h.get(&format!("/api/v1/app/{app}")).await.status, 404, "its application stays behind");
}

/// Broken: a source that can never work is taken, or the error does not say what to write instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_its_place() {
    let h = Harness::start().await;
    let create = async |body| h.post("/ingest/api/v1/source", body).await;
    let mistyped = create(json!({ "name": "x", "type": "gihtub" })).await;
    assert!(String::from_utf8_lossy(&mistyped.body).contains("github"), "no hint");
    assert_eq!(mistyped.place(), ["body", "type"]);
    let wrong = json!({ "name": "x", "type": "telnyx", "config": { "publicKey": "not a key" } });
    assert_eq!(create(wrong).await.place(), ["body", "config"]);
    assert_eq!(create(json!({ "name": "x", "type": "generic-webhook", "appId": "nobody" })).await.place(), ["body", "appId"]);
    let nested = json!({ "name": "x", "type": "github", "config": { "secret": { "a": "b" } } });
    assert_eq!(create(nested).await.place()[..2], ["body", "config"]);
    for (name, value) in [
        ("allowedNetworks", json!(["10.0.0.0/99"])),
        ("rateLimit", json!(0)),
        ("bodyBytesMax", json!(1_000_000_000)),
        ("basicUser", json!("a:b")),
        ("tokenHeader", json!("a b")),
        ("orderingKey", json!("customer")),
        ("eventType", json!("header:a b")),
        ("schema", json!({ "type": "nothing" })),
        ("schema", json!({ "$ref": "https://example.com/schema.json" })),
        ("duplicates", json!({ "windowSeconds": 0 })),
        ("duplicates", json!({ "by": "parts" })),
    ] {
        let body = json!({ "name": "x", "type": "generic-webhook", "settings": { name: value } });
        assert_eq!(create(body.clone()).await.place(), ["body", "settings", name], "{body}");
    }
    let unknown = json!({ "name": "x", "type": "generic-webhook", "settings": { "isUnverified": true } });
    assert_eq!(create(unknown).await.status, 422, "a mistyped setting is taken in silence");
}

/// Broken: endpoints under a source are others than those of its application, or transformations are pretended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_under_a_source_are_those_of_its_application() {
    let h = Harness::start().await;
    let app = h.application("shared").await;
    let source = h.source(json!({ "name": "x", "type": "generic-webhook", "appId": "shared", "uid": "x" })).await;
    assert_eq!(text(&source["appId"]), app);
    let base = "/ingest/api/v1/source/x/endpoint";
    let endpoint = text(&h.post(base, json!({ "url": h.receiver.url("/x") })).await.expect(201)["id"]);
    assert_eq!(text(&h.get(&format!("/api/v1/app/shared/endpoint/{endpoint}")).await.expect(200)["id"]), endpoint);
    let one = format!("{base}/{endpoint}");
    h.put(&one, json!({ "url": h.receiver.url("/y"), "uid": "e" })).await.expect(200);
    h.put(&format!("{base}/other"), json!({ "url": h.receiver.url("/z") })).await.expect(200);
    assert_eq!(h.get(base).await.expect(200)["data"].as_array().unwrap().len(), 2);
    assert!(text(&h.get(&format!("{one}/secret")).await.expect(200)["key"]).starts_with("whsec_"));
    h.post(&format!("{one}/secret/rotate"), json!({})).await.expect(204);
    h.put(&format!("{one}/headers"), json!({ "headers": { "x-a": "b" } })).await.expect(204);
    assert_eq!(h.get(&format!("{one}/headers")).await.expect(200)["headers"]["x-a"], "b");
    assert_eq!(h.get(&format!("{one}/transformation")).await.status, 501);
    h.receive("POST", &text(&source["ingestUrl"]), &[], "hello").await;
    h.receiver.wait("/y", 1).await;
    h.receiver.wait("/z", 1).await;
    h.delete(&one).await.expect(204);
    h.delete("/ingest/api/v1/source/x").await.expect(204);
    h.get("/api/v1/app/shared").await.expect(200);
}

/// Broken: somebody without the right manages sources, or another organisation sees them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_ask_for_their_scopes_and_stay_in_their_organisation() {
    use bellwire_core::{IdKind, OrgId};
    let h = Harness::start().await;
    h.source(json!({ "name": "x", "type": "generic-webhook", "uid": "x" })).await;
    let reader = h.make_key(h.org, &["source:read"]).await;
    assert_eq!(h.call(&reader, "GET", "/ingest/api/v1/source/x", &[], None).await.status, 200);
    assert_eq!(h.call(&reader, "DELETE", "/ingest/api/v1/source/x", &[], None).await.status, 403);
    assert_eq!(
        h.call(&reader, "GET", "/api/v1/source/x/handshake", &[], None).await.status,
        403,
        "a kept secret is shown to readers"
    );
    let stranger = h.make_key(OrgId::from_bytes([9; 20]), &["*"]).await;
    for path in [
        "/ingest/api/v1/source/x",
        "/ingest/api/v1/source/x/log",
        "/ingest/api/v1/source/x/endpoint",
        "/api/v1/source/x/settings",
    ] {
        assert_eq!(h.call(&stranger, "GET", path, &[], None).await.status, 404, "{path}");
    }
    let providers = h.get("/api/v1/provider").await.expect(200);
    assert_eq!(providers["data"].as_array().unwrap().len(), 170);
    assert_eq!(text(&h.get("/api/v1/provider/github").await.expect(200)["confidence"]), "verified");
}
