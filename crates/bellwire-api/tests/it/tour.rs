//! The whole way of a message as a caller sees it, and all there is to do with an endpoint.

use std::time::Duration;

use bellwire_core::{Clock, SystemClock};
use bellwire_verify::Key;
use serde_json::{Value, json};

use crate::harness::{Harness, Received, text};

/// Whether a received request verifies with this key.
fn verifies(received: &Received, key: &str) -> bool {
    let headers = bellwire_verify::SignedHeaders::read(|name| received.headers.get(name).and_then(|value| value.to_str().ok()));
    let verifier = Key::parse(key).unwrap().verifier();
    let now = SystemClock.now().as_unix_seconds().unsigned_abs();
    bellwire_verify::verify(&headers, &received.body, &[verifier], now, bellwire_verify::TOLERANCE_SECONDS).is_ok()
}

/// If it fails, what a caller publishes is not what a receiver gets, or cannot be seen afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_arrives_byte_for_byte_and_can_be_seen() {
    let h = Harness::start().await;
    let app = h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    let key = text(&h.get(&format!("/api/v1/app/a/endpoint/{endpoint}/secret")).await.expect(200)["key"]);
    // Spaces, order, escapes, numbers beyond a double: none of it may change.
    let payload = "{ \"b\" :1.000, \"a\":[ 1e400,12345678901234567890 ],\"u\":\"\\u00e9\\/\",\n\"é\" : null }";
    let body =
        format!(r#"{{"eventType":"invoice.paid","eventId":"e1","channels":["c1"],"tags":["t1"],"payload":  {payload}  }}"#);
    let made = h.call(&h.key, "POST", "/api/v1/app/a/msg/", &[], Some(&body)).await;
    assert_eq!(made.status, 202, "{:?}", made.body);
    assert!(String::from_utf8_lossy(&made.body).contains(payload), "the answer rewrites the payload");
    let received = h.receiver.wait("/ok", 1).await.remove(0);
    assert_eq!(received.body, payload.as_bytes());
    assert!(verifies(&received, &key));
    let id = text(&serde_json::from_slice::<Value>(&made.body.to_vec().replace_numbers()).unwrap()["id"]);
    assert_eq!(received.headers["webhook-id"], id.as_str());

    for part in [&id, "e1"] {
        let path = format!("/api/v1/app/{app}/msg/{part}");
        assert!(String::from_utf8_lossy(&h.get(&path).await.body).contains(payload), "{path}");
        assert_eq!(h.get(&format!("{path}?with_content=false")).await.expect(200)["payload"], json!({}));
    }
    let attempts = h.until(&format!("/api/v1/app/a/attempt/msg/{id}"), |page| page["data"] != json!([])).await;
    let attempt = &attempts["data"][0];
    assert_eq!(
        (&attempt["status"], &attempt["statusText"], &attempt["responseStatusCode"]),
        (&json!(0), &json!("success"), &json!(200))
    );
    assert_eq!(
        (&attempt["response"], &attempt["endpointId"], &attempt["msgId"]),
        (&json!("thanks"), &json!(endpoint), &json!(id))
    );
    assert_eq!((&attempt["triggerType"], &attempt["msg"]), (&json!(0), &Value::Null));
    let by_endpoint = h
        .get(&format!("/api/v1/app/a/attempt/endpoint/{endpoint}?with_msg=true&with_content=false&channel=c1&tag=t1"))
        .await
        .expect(200);
    assert_eq!((&by_endpoint["data"][0]["msg"]["eventId"], &by_endpoint["data"][0]["response"]), (&json!("e1"), &json!("")));
    assert_eq!(by_endpoint["data"][0]["msg"]["payload"], json!({}));
    let none = h.get(&format!("/api/v1/app/a/attempt/endpoint/{endpoint}?channel=other")).await.expect(200);
    assert_eq!(none["data"], json!([]));
    let path = format!("/api/v1/app/a/msg/{id}/attempt/{}", text(&attempt["id"]));
    assert_eq!(h.get(&path).await.expect(200)["response"], "thanks");
    h.delete(&format!("{path}/content")).await.expect(204);
    assert_eq!(h.get(&path).await.expect(200)["response"], "");
    let destinations = h.get(&format!("/api/v1/app/a/msg/{id}/endpoint")).await.expect(200);
    assert_eq!((&destinations["data"][0]["id"], &destinations["data"][0]["status"]), (&json!(endpoint), &json!(0)));

    let resend = format!("/api/v1/app/a/msg/{id}/endpoint/{endpoint}/resend");
    assert_eq!(h.post(&resend, json!({})).await.expect(202), json!({}));
    h.receiver.wait("/ok", 2).await;
    h.until(&format!("/api/v1/app/a/attempt/msg/{id}?order=ascending"), |page| page["data"][1]["triggerType"] == json!(1)).await;
    h.delete(&format!("/api/v1/app/a/msg/{id}/content")).await.expect(204);
    assert_eq!(h.get(&format!("/api/v1/app/a/msg/{id}")).await.expect(200)["payload"], json!({ "expired": true }));
    assert_eq!(h.post(&resend, json!({})).await.status, 422, "what is deleted cannot be sent again");
}

/// `1e400` is JSON, but no number of serde_json's values.
trait ReplaceNumbers {
    fn replace_numbers(self) -> Vec<u8>;
}

impl ReplaceNumbers for Vec<u8> {
    fn replace_numbers(self) -> Vec<u8> {
        String::from_utf8(self).unwrap().replace("1e400", "0").into_bytes()
    }
}

/// If it fails, receivers lose deliveries while they change their key, or the new key never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_rotation_both_keys_sign() {
    let h = Harness::start().await;
    h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    let path = format!("/api/v1/app/a/endpoint/{endpoint}/secret");
    let old = text(&h.get(&path).await.expect(200)["key"]);
    assert!(old.starts_with("whsec_"));
    h.post(&format!("{path}/rotate"), json!({})).await.expect(204);
    let new = text(&h.get(&path).await.expect(200)["key"]);
    assert_ne!(old, new);
    h.publish("a", "t").await;
    let received = h.receiver.wait("/ok", 1).await.remove(0);
    assert!(verifies(&received, &old) && verifies(&received, &new), "{received:?}");
    let own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    h.post(&format!("{path}/rotate"), json!({ "key": own, "gracePeriodSeconds": 0 })).await.expect(204);
    assert_eq!(text(&h.get(&path).await.expect(200)["key"]), own);
    h.publish("a", "t").await;
    let received = h.receiver.wait("/ok", 2).await.remove(1);
    assert!(verifies(&received, own) && !verifies(&received, &new), "a grace period of 0 ends the key at once");
    // An asymmetric key is read back as its public half.
    let pair = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    h.post(&format!("{path}/rotate"), json!({ "key": pair, "gracePeriodSeconds": 0 })).await.expect(204);
    let public = text(&h.get(&path).await.expect(200)["key"]);
    assert_eq!(public, "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
    h.publish("a", "t").await;
    assert!(verifies(&h.receiver.wait("/ok", 3).await[2], &public));
    assert_eq!(h.post(&format!("{path}/rotate"), json!({ "key": public })).await.place(), ["body", "key"]);
    assert_eq!(
        h.post(&format!("{path}/rotate"), json!({ "gracePeriodSeconds": 604_801 })).await.place(),
        ["body", "gracePeriodSeconds"]
    );
}

/// If it fails, `rotate_secret` of the Python client fails (2.x reads the key from the answer), or others get a body they do not expect.
#[tokio::test]
async fn a_rotation_shows_the_key_to_the_client_that_reads_it() {
    let h = Harness::start().await;
    h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    let path = format!("/api/v1/app/a/endpoint/{endpoint}/secret");
    let rotate = async |agent| h.call(&h.key, "POST", &format!("{path}/rotate"), &[("user-agent", agent)], Some("{}")).await;
    let shown = rotate("svix-libs/2.0.1/python").await.expect(200);
    assert_eq!(shown, h.get(&path).await.expect(200));
    for agent in ["svix-libs/1.60.0/python", "svix-libs/2.0.1/javascript", "curl/8"] {
        assert_eq!(rotate(agent).await.expect(204), Value::Null, "{agent}");
    }
}

/// If it fails, `message_in_raw` of the official clients sends its envelope instead of its content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_payload_is_sent_as_it_stands() {
    let h = Harness::start().await;
    h.application("a").await;
    h.endpoint("a", "/ok").await;
    let raw = |kind: &str| json!({ "eventType": "t", "payload": {}, "transformationsParams": { "rawPayload": "<a>é</a>", "headers": { "content-type": kind } } });
    let made = h.post("/api/v1/app/a/msg", raw("application/xml; charset=utf-8")).await.expect(202);
    assert!(made["payload"].is_object(), "clients read an object: {made}");
    let received = h.receiver.wait("/ok", 1).await.remove(0);
    assert_eq!(received.body, "<a>é</a>".as_bytes());
    assert_eq!(received.headers["content-type"], "application/xml; charset=utf-8");
    let place = h.post("/api/v1/app/a/msg", raw("text/plain\r\nx-evil: 1")).await.place();
    assert_eq!(place, ["body", "transformationsParams", "headers", "content-type"]);
}

/// If it fails, credentials in headers can be read back, or a change of one header loses others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_sent_and_sensitive_ones_masked() {
    let h = Harness::start().await;
    h.application("a").await;
    let body =
        json!({ "url": h.receiver.url("/ok"), "uid": "e", "headers": { "x-team": "pay", "Authorization": "Bearer s3cret" } });
    h.post("/api/v1/app/a/endpoint", body).await.expect(201);
    let path = "/api/v1/app/a/endpoint/e/headers";
    let shown = h.get(path).await.expect(200);
    assert_eq!(shown, json!({ "headers": { "x-team": "pay" }, "sensitive": ["Authorization"] }));
    h.patch(path, json!({ "headers": { "X-Team": null, "x-other": "1" }, "deleteHeaders": [] })).await.expect(204);
    assert_eq!(h.get(path).await.expect(200), json!({ "headers": { "x-other": "1" }, "sensitive": ["Authorization"] }));
    h.publish("a", "t").await;
    let received = h.receiver.wait("/ok", 1).await.remove(0);
    assert_eq!(received.headers["authorization"], "Bearer s3cret");
    assert_eq!(received.headers["x-other"], "1");
    assert!(!received.headers.contains_key("x-team"));
    assert_eq!(h.patch(path, json!({ "headers": { "x-bad": "a\nb" } })).await.place(), ["body", "headers"]);
    h.put(path, json!({ "headers": {} })).await.expect(204);
    assert_eq!(h.get(path).await.expect(200), json!({ "headers": {}, "sensitive": [] }));
}

/// If it fails, an endpoint that was down does not get what it missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_recovered_on_request() {
    let h = Harness::with(|config| config.retry.schedule = vec![]).await;
    h.application("a").await;
    let endpoint = h.endpoint("a", "/down").await;
    h.receiver.set_status("/down", 500);
    let message = h.publish("a", "t").await;
    h.until(&format!("/api/v1/app/a/endpoint/{endpoint}/stats"), |stats| stats["fail"] == json!(1)).await;
    let failed = h.get(&format!("/api/v1/app/a/endpoint/{endpoint}/msg?status=2")).await.expect(200);
    assert_eq!((&failed["data"][0]["id"], &failed["data"][0]["statusText"]), (&json!(message), &json!("fail")));
    h.receiver.set_status("/down", 200);
    let recover = format!("/api/v1/app/a/endpoint/{endpoint}/recover");
    let since = h.engine.now().minus(Duration::from_secs(60));
    let task = h.post(&recover, json!({ "since": since.to_string() })).await.expect(202);
    assert_eq!((&task["task"], &task["status"]), (&json!("endpoint.recover"), &json!("running")));
    let path = format!("/api/v1/background-task/{}", text(&task["id"]));
    let done = h.until(&path, |task| task["status"] == json!("finished")).await;
    assert_eq!(done["data"]["messagesSent"], json!(1));
    h.until(&format!("/api/v1/app/a/msg/{message}/endpoint"), |page| page["data"][0]["status"] == json!(0)).await;
    let too_old = h.engine.now().minus(Duration::from_secs(91 * 86_400)).to_string();
    assert_eq!(h.post(&recover, json!({ "since": too_old })).await.place(), ["body", "since"]);
    let future = h.engine.now().plus(Duration::from_secs(60)).to_string();
    assert_eq!(h.post(&recover, json!({ "since": future })).await.place(), ["body", "since"]);
}

/// If it fails, "send me an example" sends nothing, or something other than the schema's example.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_are_sent_to_the_endpoint_alone() {
    let h = Harness::start().await;
    h.application("a").await;
    let endpoint = h.endpoint("a", "/one").await;
    h.endpoint("a", "/two").await;
    let schemas = json!({ "1": { "type": "object", "examples": [{ "n": 1 }, { "n": 2 }] } });
    h.post("/api/v1/event-type", json!({ "name": "t", "description": "", "schemas": schemas })).await.expect(201);
    let path = format!("/api/v1/app/a/endpoint/{endpoint}/send-example");
    let sent = h.post(&path, json!({ "eventType": "t", "exampleIndex": 1 })).await.expect(202);
    assert_eq!((&sent["eventType"], &sent["payload"]), (&json!("t"), &json!({ "n": 2 })));
    assert_eq!(h.receiver.wait("/one", 1).await[0].body, br#"{"n":2}"#.as_slice());
    assert_eq!(h.post(&path, json!({ "eventType": "t", "exampleIndex": 2 })).await.place(), ["body", "exampleIndex"]);
    assert_eq!(h.post(&path, json!({ "eventType": "unknown" })).await.place(), ["body", "eventType"]);
    assert!(h.receiver.at("/two").is_empty());
}

/// If it fails, an application named for the first time in a message is not created, or is created twice.
#[tokio::test]
async fn a_message_can_bring_its_application() {
    let h = Harness::start().await;
    let body = json!({ "eventType": "t", "payload": {}, "application": { "name": "n", "uid": "new" } });
    h.post("/api/v1/app/new/msg", body.clone()).await.expect(202);
    h.post("/api/v1/app/new/msg", body.clone()).await.expect(202);
    assert_eq!(h.get("/api/v1/app/new").await.expect(200)["name"], "n");
    assert_eq!(h.post("/api/v1/app/other/msg", body).await.place(), ["body", "application", "uid"]);
    let at = h.engine.now().plus(Duration::from_secs(3_600)).to_string();
    let later = h.post("/api/v1/app/new/msg", json!({ "eventType": "t", "payload": {}, "deliverAt": at })).await.expect(202);
    assert_eq!(later["deliverAt"], at);
}

/// If it fails, an operator's own webhooks miss what happens to customers' endpoints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operational_events_go_out() {
    let h = Harness::start().await;
    let made = h
        .post("/api/v1/operational-webhook/endpoint", json!({ "url": h.receiver.url("/op"), "uid": "ops", "channels": ["c"] }))
        .await
        .expect(201);
    assert_eq!(made["channels"], Value::Null, "operational events have no channels");
    h.get("/api/v1/operational-webhook/endpoint/ops/secret").await.expect(200);
    let app = h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    h.patch(&format!("/api/v1/app/a/endpoint/{endpoint}"), json!({ "disabled": true })).await.expect(200);
    h.patch(&format!("/api/v1/app/a/endpoint/{endpoint}"), json!({ "disabled": false })).await.expect(200);
    h.delete(&format!("/api/v1/app/a/endpoint/{endpoint}")).await.expect(204);
    let events: Vec<Value> = h.receiver.wait("/op", 6).await.iter().map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
    for wanted in ["endpoint.created", "endpoint.updated", "endpoint.disabled", "endpoint.enabled", "endpoint.deleted"] {
        let event =
            events.iter().find(|event| event["type"] == wanted).unwrap_or_else(|| panic!("{wanted} is missing: {events:?}"));
        assert_eq!(event["data"]["endpointId"], json!(endpoint), "{wanted}");
        assert_eq!((&event["data"]["appId"], &event["data"]["appUid"]), (&json!(app), &json!("a")), "{wanted}");
        assert!(event["data"].as_object().unwrap().contains_key("endpointUid"), "{wanted}");
    }
    // The hidden application is nobody's to see.
    assert_eq!(h.get("/api/v1/app").await.expect(200)["data"].as_array().unwrap().len(), 1);
    h.put("/api/v1/operational-webhook/endpoint/ops2", json!({ "url": h.receiver.url("/op2") })).await.expect(200);
    h.delete("/api/v1/operational-webhook/endpoint/ops").await.expect(204);
}

/// If it fails, a deleted application is still there for some route.
#[tokio::test]
async fn deleting_an_application_deletes_it_everywhere() {
    let h = Harness::start().await;
    let app = h.application("a").await;
    let endpoint = h.endpoint("a", "/ok").await;
    h.publish("a", "t").await;
    h.delete("/api/v1/app/a").await.expect(204);
    for path in ["/api/v1/app/a".to_owned(), format!("/api/v1/app/{app}/msg"), format!("/api/v1/app/{app}/endpoint/{endpoint}")] {
        h.get(&path).await.expect(404);
    }
    h.delete("/api/v1/app/a").await.expect(404);
    let again = h.application("a").await;
    assert_ne!(again, app, "the uid is free again");
}
