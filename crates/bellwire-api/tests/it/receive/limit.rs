//! What no sender can do: fill memory, disk or log, or hide something in a body.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{SECRET, generic, github, push, send};
use crate::harness::{Harness, text};

/// Broken: a body that is too large is read all the same, or its sender is not noted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_have_an_end_whether_they_announce_it_or_not() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({ "bodyBytesMax": 1000 })).await;
    let announced = h.receive("POST", &url, &[("content-length", "10000000000")], "x").await;
    assert_eq!((announced.status.as_u16(), announced.headers["connection"].to_str().unwrap()), (413, "close"));
    // Without an end: it is read no further than the limit.
    let given = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = given.clone();
    let endless = Endless(move || {
        counted.fetch_add(100, std::sync::atomic::Ordering::Relaxed);
        Bytes::from_static(&[b'x'; 100])
    });
    assert_eq!(h.receive("POST", &url, &[], Body::new(endless)).await.status, 413);
    assert!(given.load(std::sync::atomic::Ordering::Relaxed) <= 1_200);
    assert_eq!(h.receive("POST", &url, &[], vec![b'x'; 1000]).await.status, 200, "as large as allowed");
    let log = h.log(&source, 2).await;
    assert!(log.iter().all(|(reason, status, _)| reason == "too_large" && *status == 413), "{log:?}");
    assert_eq!(h.received(&source).await.len(), 1);
}

/// Broken: the largest bodies that providers send are taken but not kept, or not delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_bodies_are_stored_and_delivered_whole() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({})).await;
    let endpoints = format!("/ingest/api/v1/source/{}/endpoint", text(&source["id"]));
    h.post(&endpoints, json!({ "url": h.receiver.url("/large") })).await.expect(201);
    let mut seed = 7_u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    });
    let body: Vec<u8> = noise.take(bellwire_core::limits::RECEIVED_BODY_BYTES_MAX).collect();
    assert_eq!(h.receive("POST", &url, &[], body.clone()).await.status, 200);
    assert!(h.receiver.wait("/large", 1).await[0].body == body, "what was delivered is not what was sent");
    assert_eq!(h.receive("POST", &url, &[], [&body[..], b"x"].concat()).await.status, 413);
}

/// Frames without end.
struct Endless<F>(F);

impl<F: FnMut() -> Bytes + Unpin> hyper::body::Body for Endless<F> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data((self.0)()))))
    }
}

/// Broken: a compressed body is inflated, or taken for what it is not (gzip bombs).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bodies_are_refused_and_never_inflated() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({})).await;
    for encoding in ["gzip", "identity, br", "zstd"] {
        assert_eq!(h.receive("POST", &url, &[("content-encoding", encoding)], "x").await.status, 415, "{encoding}");
    }
    assert_eq!(h.receive("POST", &url, &[("content-encoding", "identity")], "x").await.status, 200);
    assert_eq!(h.log(&source, 3).await[0].0, "compressed");
}

/// Broken: one source's flood is let through, or its sender is not told when to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_told_when_to_come_again() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({ "rateLimit": 5, "duplicates": { "by": "off" } })).await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = h.receive("POST", &url, &[], "x").await;
        if answer.status == 429 {
            assert_eq!(answer.headers["retry-after"], "1");
            refused += 1;
        } else {
            assert_eq!(answer.status, 200);
        }
    }
    assert!((10..=15).contains(&refused), "{refused} of 20 were refused at five a second");
    assert_eq!(h.received(&source).await.len(), 20 - refused);
}

/// Broken: somebody who has no secret fills the disk with the log of his failures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forgeries_leaves_a_bounded_log() {
    let h = Harness::start().await;
    let (source, url) = github(&h).await;
    let forged = push("another", "d-1");
    for _ in 0..500 {
        assert_eq!(send(&h, &url, &forged).await.status, 401);
    }
    h.api.state().receive().flush().await;
    let path = format!("/api/v1/source/{}/log?limit=250", text(&source["id"]));
    let kept = h.get(&path).await.expect(200)["data"].as_array().unwrap().len();
    assert!((20..=200).contains(&kept), "{kept} of 500 failures are in the log");
    let metrics = h.get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("bellwire_source_log_dropped_total ")).unwrap();
    assert_eq!(dropped.parse::<usize>().unwrap(), 500 - kept, "what was not kept is not counted");
    assert_eq!(send(&h, &url, &push(SECRET, "d-2")).await.status, 200);
}

/// Broken: bodies that an operator excluded become messages, or are lost without a trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fulfil_the_schema_is_kept_apart() {
    let h = Harness::start().await;
    let schema = json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "integer" } } });
    let (source, url) = generic(&h, json!({ "requireJson": true, "schema": schema })).await;
    assert_eq!(h.receive("POST", &url, &[], "not json").await.status, 422);
    let answer = h.receive("POST", &url, &[], r#"{"id":"a secret text"}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{}"[..]), "the sender learns of the quarantine");
    assert_eq!(h.receive("POST", &url, &[], r#"{"id":7}"#).await.status, 200);
    assert_eq!(h.received(&source).await.len(), 1);
    assert_eq!(h.log(&source, 2).await.iter().filter(|(reason, _, _)| reason == "schema" || reason == "not_json").count(), 2);
    let log = h.get(&format!("/api/v1/source/{}/log", text(&source["id"]))).await.expect(200);
    let entry = log["data"].as_array().unwrap().iter().find(|row| row["reason"] == "schema").unwrap();
    assert_eq!(entry["payload"], r#"{"id":"a secret text"}"#);
    assert!(!entry["detail"].as_str().unwrap().contains("a secret text"), "{entry}");
}

/// Broken: one sender that never finishes holds up others, or the answer says more than its status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_senders_hold_up_nobody() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({})).await;
    let path = url.trim_start_matches("https://hooks.example.com").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let state = h.api.state().clone();
    let server = tokio::spawn(bellwire_api::serve(listener, state, async move { drop(ended.await) }, Duration::from_millis(200)));
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 20000000\r\n\r\nx").as_bytes())
            .await
            .unwrap();
        slow.push(stream);
    }
    let mut quick = TcpStream::connect(address).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), async {
        quick.write_all(request.as_bytes()).await.unwrap();
        quick.read_to_end(&mut answer).await.unwrap();
    })
    .await
    .expect("others wait for those who never finish");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(h.received(&source).await[0].origin.as_deref().unwrap().remote_address, "127.0.0.1");
    drop(end);
    assert!(server.await.unwrap().cut >= 1);
}
