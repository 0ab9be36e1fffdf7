//! Two nodes on one PostgreSQL, asked to change the same object at the same time: nothing that was answered with success is lost.

use std::sync::Arc;

use bellwire_core::Endpoint;
use bellwire_testkit::database;
use serde_json::{Value, json};

use crate::harness::{Answer, Harness, text};

/// Fields of one object that are changed at the same time, again and again: chance alone does not keep them all.
const ROUNDS: usize = 8;

struct Pair([Arc<Harness>; 2]);

/// Method, path, idempotency key (or none) and body.
type Request = (&'static str, String, &'static str, Value);

impl Pair {
    async fn start() -> Self {
        let url = database().await;
        let one = Harness::node(&url).await;
        Self([Arc::new(one), Arc::new(Harness::node(&url).await)])
    }

    fn one(&self) -> &Harness {
        &self.0[0]
    }

    /// Sends all at once, through the nodes in turn.
    async fn at_once(&self, requests: Vec<Request>) -> Vec<Answer> {
        let mut sent = Vec::new();
        for (number, (method, path, key, body)) in requests.into_iter().enumerate() {
            let node = self.0[number % 2].clone();
            sent.push(tokio::spawn(async move {
                let key = [("idempotency-key", key)];
                let headers = if key[0].1.is_empty() { &[][..] } else { &key[..] };
                node.call(&node.key, method, &path, headers, Some(&body.to_string())).await
            }));
        }
        let mut answers = Vec::new();
        for answer in sent {
            answers.push(answer.await.unwrap());
        }
        answers
    }

    /// PATCHes `path` with all at once, each of which must succeed; what the object is then.
    async fn patched(&self, path: &str, bodies: &[Value]) -> Value {
        let requests = bodies.iter().map(|body| ("PATCH", path.to_owned(), "", body.clone())).collect();
        for answer in self.at_once(requests).await {
            answer.expect(200);
        }
        self.one().get(path).await.expect(200)
    }

    async fn stored_endpoint(&self, app: &str, id: &str) -> Endpoint {
        self.one().engine.store().find_endpoint(app.parse().unwrap(), id).await.unwrap().unwrap()
    }
}

#[track_caller]
fn has(found: &Value, wanted: &[Value]) {
    for fields in wanted {
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&found[name], value, "{name} of {found}");
        }
    }
}

/// Broken: of several who change other fields of one object through different nodes, all are told that they have, and some have not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_changed_through_two_nodes_at_once_are_all_changed() {
    let nodes = Pair::start().await;
    let h = nodes.one();
    let app = h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    h.post("/api/v1/event-type", json!({ "name": "t", "description": "d" })).await.expect(201);
    let source = text(&h.source(json!({ "name": "s", "type": "generic-webhook" })).await["id"]);
    for round in 1..=ROUNDS {
        let n = round.to_string();
        let changes = [
            json!({ "name": n }),
            json!({ "throttleRate": round }),
            json!({ "metadata": { "k": n } }),
            json!({ "uid": format!("a-{n}") }),
        ];
        has(&nodes.patched(&format!("/api/v1/app/{app}"), &changes).await, &changes);
        let changes = [
            json!({ "description": n }),
            json!({ "throttleRate": round }),
            json!({ "metadata": { "k": n } }),
            json!({ "uid": format!("e-{n}") }),
            json!({ "eventTypes": [format!("t{n}")] }),
            json!({ "channels": [n] }),
            json!({ "disabled": !round.is_multiple_of(2) }),
            json!({ "url": h.receiver.url(&format!("/{n}")) }),
        ];
        has(&nodes.patched(&format!("/api/v1/app/{app}/endpoint/{endpoint}"), &changes).await, &changes);
        let changes = [
            json!({ "description": n }),
            json!({ "deprecated": !round.is_multiple_of(2) }),
            json!({ "groupName": format!("g{n}") }),
            json!({ "featureFlags": [format!("f{n}")] }),
        ];
        has(&nodes.patched("/api/v1/event-type/t", &changes).await, &changes);
        let changes = [json!({ "name": n }), json!({ "metadata": { "k": n } }), json!({ "uid": format!("s-{n}") })];
        has(&nodes.patched(&format!("/ingest/api/v1/source/{source}"), &changes).await, &changes);
        let changes = [
            json!({ "rateLimit": round }),
            json!({ "orderingKey": format!("/{n}") }),
            json!({ "requireJson": !round.is_multiple_of(2) }),
            json!({ "staleAfterSeconds": round }),
        ];
        has(&nodes.patched(&format!("/api/v1/source/{source}/settings"), &changes).await, &changes);
    }
}

/// Broken: a header, a key in its grace period or a field is gone, because another part of the endpoint was changed through another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_keys_and_fields_of_an_endpoint_do_not_overwrite_each_other() {
    const EACH: usize = 8;
    let nodes = Pair::start().await;
    let app = nodes.one().application("a").await;
    let id = nodes.one().endpoint("a", "/ok").await;
    let path = format!("/api/v1/app/{app}/endpoint/{id}");
    let first = nodes.stored_endpoint(&app, &id).await.secret.current;
    let keys: Vec<String> = (0..EACH).map(|_| nodes.one().engine.new_signing_secret().expose().to_owned()).collect();
    let mut requests: Vec<Request> = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        // Each kind through each node.
        let name = format!("x-{n}");
        requests.push(("PATCH", format!("{path}/headers"), "", json!({ "headers": { name: "v" } })));
        requests.push(("POST", format!("{path}/secret/rotate"), "", json!({ "key": key, "gracePeriodSeconds": 3600 })));
        if n % 2 == 0 {
            requests.push(("PATCH", path.clone(), "", json!({ "description": "changed" })));
        }
    }
    for answer in nodes.at_once(requests).await {
        assert!([200, 204].contains(&answer.status.as_u16()), "{answer:?}");
    }
    let stored = nodes.stored_endpoint(&app, &id).await;
    let mut names: Vec<_> = stored.headers.0.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    assert_eq!(names, (0..EACH).map(|n| format!("x-{n}")).collect::<Vec<_>>());
    assert_eq!(stored.description, "changed");
    let mut signing: Vec<_> = stored.secret.old.iter().map(|(key, _)| key.expose().to_owned()).collect();
    assert_eq!(signing.last().map(String::as_str), Some(first.expose()), "the first key signs until its time is over");
    signing.push(stored.secret.current.expose().to_owned());
    let lost: Vec<_> = keys.iter().filter(|key| !signing.contains(key)).collect();
    assert!(lost.is_empty() && signing.len() == EACH + 1, "{} keys, {} of them lost", signing.len(), lost.len());
}

/// Broken: who rotates at the same time as somebody else makes a key that is in use invalid at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rotations_at_once_both_old_keys_sign_on() {
    let nodes = Pair::start().await;
    let app = nodes.one().application("a").await;
    for _ in 0..ROUNDS {
        let id = nodes.one().endpoint("a", "/ok").await;
        let path = format!("/api/v1/app/{app}/endpoint/{id}/secret/rotate");
        let first = nodes.stored_endpoint(&app, &id).await.secret.current;
        let rotate = || ("POST", path.clone(), "", json!({}));
        for answer in nodes.at_once(vec![rotate(), rotate()]).await {
            answer.expect(204);
        }
        let secret = nodes.stored_endpoint(&app, &id).await.secret;
        let old: Vec<_> = secret.old.iter().map(|(key, _)| key.expose()).collect();
        assert!(old.len() == 2 && old[1] == first.expose() && old[0] != secret.current.expose(), "{} old keys", old.len());
    }
}

/// Broken: a rotation that is sent again through another node, before the first has been answered, rotates again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_one_key_happens_once_whatever_nodes_are_asked() {
    let nodes = Pair::start().await;
    let app = nodes.one().application("a").await;
    for round in 0..ROUNDS {
        let id = nodes.one().endpoint("a", "/ok").await;
        let rotate = || ("POST", format!("/api/v1/app/{app}/endpoint/{id}/secret/rotate"), "rotate", json!({}));
        for answer in nodes.at_once(vec![rotate(), rotate(), rotate(), rotate()]).await {
            answer.expect(204);
        }
        assert_eq!(nodes.stored_endpoint(&app, &id).await.secret.old.len(), 1);

        let made = nodes.one().source(json!({ "name": round.to_string(), "type": "generic-webhook" })).await;
        let path = format!("/ingest/api/v1/source/{}", text(&made["id"]));
        let rotate = || ("POST", format!("{path}/token/rotate"), "rotate", json!({}));
        let mut urls = Vec::new();
        for answer in nodes.at_once(vec![rotate(), rotate(), rotate(), rotate()]).await {
            urls.push(text(&answer.expect(200)["ingestUrl"]));
        }
        let stored = text(&nodes.one().get(&path).await.expect(200)["ingestUrl"]);
        assert!(urls.iter().all(|url| *url == stored), "{urls:?} were told, {stored} is");
    }
}

/// Broken: of two declarative clients that PUT the same new object through two nodes, one is refused, or is shown the other's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_nodes_put_at_once_is_made_once_and_replaced_once() {
    let nodes = Pair::start().await;
    nodes.one().application("home").await;
    let url = nodes.one().receiver.url("/ok");
    for round in 0..ROUNDS {
        let paths = [
            (format!("/api/v1/app/a{round}"), json!({})),
            (format!("/api/v1/app/home/endpoint/e{round}"), json!({ "url": url })),
            (format!("/ingest/api/v1/source/s{round}"), json!({ "type": "generic-webhook" })),
            (format!("/api/v1/event-type/t{round}"), json!({ "description": "d" })),
        ];
        for (path, body) in paths {
            let put = |n: usize| {
                let mut body = body.clone();
                body["name"] = json!(n.to_string());
                body["description"] = json!(n.to_string());
                ("PUT", path.clone(), "", body)
            };
            let (mut made, mut shown) = (0, Vec::new());
            for (n, answer) in nodes.at_once(vec![put(0), put(1), put(2), put(3)]).await.into_iter().enumerate() {
                made += usize::from(answer.status == 201);
                let status = answer.status.as_u16();
                let body = answer.expect(if status == 201 { 201 } else { 200 });
                let own = json!(n.to_string());
                let is_own = body["name"] == own || body["description"] == own;
                assert!(is_own, "{path}: {n} was answered {body}");
                shown.push(body["id"].clone());
            }
            assert_eq!(made, 1, "{path} was made {made} times");
            assert!(shown.iter().all(|id| *id == shown[0]), "{path}: {shown:?}");
        }
    }
}
