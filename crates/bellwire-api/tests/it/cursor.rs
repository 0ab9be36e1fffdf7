//! Lists: every one of them walks forward and backward, in both orders, without gaps or repetitions.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Harness, text};

fn ids(page: &Value) -> Vec<String> {
    let id = |row: &Value| text(if row["id"].is_string() { &row["id"] } else { &row["name"] });
    page["data"].as_array().unwrap().iter().map(id).collect()
}

fn join(path: &str, more: &str) -> String {
    format!("{path}{}{more}", if path.contains('?') { '&' } else { '?' })
}

/// Walks a list both ways with pages of two and compares with the whole.
async fn walk(h: &Harness, path: &str, count: usize) {
    let mut orders = Vec::new();
    for order in ["ascending", "descending"] {
        let path = join(path, &format!("order={order}"));
        let whole = h.get(&join(&path, "limit=250")).await.expect(200);
        assert_eq!(whole["done"], json!(true), "{path}");
        let all = ids(&whole);
        assert_eq!(all.len(), count, "{path}: {all:?}");
        let (mut forward, mut iterator, mut last) = (Vec::new(), String::new(), Value::Null);
        for round in 0.. {
            assert!(round <= count, "{path} does not end");
            let page = h.get(&join(&path, &format!("limit=2{iterator}"))).await.expect(200);
            forward.extend(ids(&page));
            iterator = format!("&iterator={}", text(&page["iterator"]));
            let done = page["done"] == json!(true);
            last = page;
            if done {
                break;
            }
        }
        assert_eq!(forward, all, "{path} forward");
        let beyond = h.get(&join(&path, &format!("limit=2{iterator}"))).await.expect(200);
        assert_eq!((&beyond["data"], &beyond["done"], &beyond["iterator"]), (&json!([]), &json!(true), &Value::Null), "{path}");
        let mut backward = ids(&last);
        for round in 0.. {
            assert!(round <= count, "{path} does not end backwards");
            let page = h.get(&join(&path, &format!("limit=2&iterator={}", text(&last["prevIterator"])))).await.expect(200);
            let mut rows = ids(&page);
            let done = page["done"] == json!(true);
            rows.extend(backward);
            backward = rows;
            if !page["data"].as_array().unwrap().is_empty() {
                last = page;
            }
            if done {
                break;
            }
        }
        assert_eq!(backward, all, "{path} backward");
        orders.push(all);
    }
    orders[1].reverse();
    assert_eq!(orders[0], orders[1], "{path}: descending is not ascending turned round");
}

/// If it fails, a client that pages through a list misses rows, sees some twice, or never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_list_walks_both_ways() {
    let h = Harness::start().await;
    for n in 0..7 {
        h.application(&format!("app{n}")).await;
        h.post("/api/v1/event-type", json!({ "name": format!("-type.{n}"), "description": "" })).await.expect(201);
        h.post("/api/v1/api-key", json!({ "name": format!("key{n}") })).await.expect(201);
        h.post("/api/v1/operational-webhook/endpoint", json!({ "url": h.receiver.url("/op"), "eventTypes": ["none"] }))
            .await
            .expect(201);
    }
    let mut endpoints = Vec::new();
    for n in 0..7 {
        endpoints.push(h.endpoint("app0", &format!("/ok{n}")).await);
    }
    let mut messages = Vec::new();
    for n in 0..7 {
        messages.push(h.publish("app0", &format!("t.{}", n % 2)).await);
    }
    for (n, endpoint) in endpoints.iter().enumerate() {
        h.receiver.wait(&format!("/ok{n}"), 7).await;
        h.until(&format!("/api/v1/app/app0/endpoint/{endpoint}/stats"), |stats| stats["success"] == json!(7)).await;
        let since = h.engine.now().minus(Duration::from_secs(60)).to_string();
        h.post(&format!("/api/v1/app/app0/endpoint/{endpoint}/recover"), json!({ "since": since })).await.expect(202);
    }
    let (endpoint, message) = (&endpoints[0], &messages[0]);
    walk(&h, "/api/v1/app", 7).await;
    walk(&h, "/api/v1/event-type", 7).await;
    walk(&h, "/api/v1/api-key", 8).await;
    walk(&h, "/api/v1/operational-webhook/endpoint", 7).await;
    walk(&h, "/api/v1/app/app0/endpoint", 7).await;
    walk(&h, "/api/v1/app/app0/msg", 7).await;
    walk(&h, "/api/v1/app/app0/msg?event_types=t.0", 4).await;
    walk(&h, &format!("/api/v1/app/app0/attempt/endpoint/{endpoint}"), 7).await;
    walk(&h, &format!("/api/v1/app/app0/attempt/endpoint/{endpoint}?event_types=t.1&status=0&status_code_class=200"), 3).await;
    walk(&h, &format!("/api/v1/app/app0/attempt/msg/{message}"), 7).await;
    walk(&h, &format!("/api/v1/app/app0/endpoint/{endpoint}/msg"), 7).await;
    walk(&h, &format!("/api/v1/app/app0/msg/{message}/endpoint"), 7).await;
    walk(&h, "/api/v1/background-task", 7).await;
    h.until("/api/v1/background-task?status=finished", |page| page["data"].as_array().unwrap().len() == 7).await;
    walk(&h, "/api/v1/background-task?status=finished&task=endpoint.recover", 7).await;
    walk(&h, "/api/v1/app?exclude_apps_with_no_endpoints=true", 1).await;
}
