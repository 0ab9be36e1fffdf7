//! The server itself, over real sockets: pages, limits, slow clients, a graceful end.

use std::time::Duration;

use axum::body::Body;
use bellwire_api::{Api, ApiConfig, ApiState};
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::Harness;

/// Sends raw bytes and reads until the server closes.
async fn raw(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.expect("the server keeps the connection open for too long").unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

/// If it fails, a client can make the server read more than it should, or is cut off without an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_on_the_wire_and_the_end_is_graceful() {
    let h = Harness::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let state = h.api.state().clone();
    let server = tokio::spawn(bellwire_api::serve(listener, state, async move { drop(ended.await) }, Duration::from_secs(5)));
    let key = &h.key;

    let head = format!("host: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n");
    let answer = raw(address, format!("GET /api/v1/app HTTP/1.1\r\n{head}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Announced as too large: refused before a byte of it is sent.
    let answer = raw(address, format!("POST /api/v1/app HTTP/1.1\r\n{head}content-length: 99999999\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("payload_too_large"), "{answer}");
    // Not announced, but sent.
    let mut chunked = format!("POST /api/v1/app HTTP/1.1\r\n{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    chunked.extend_from_slice(b"200000\r\n");
    chunked.extend(std::iter::repeat_n(b' ', 0x20_0000));
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close while we are still sending: that is the point.
    let _ = stream.write_all(&chunked).await;
    let mut start = [0; 12];
    if stream.read_exact(&mut start).await.is_ok() {
        assert_eq!(&start, b"HTTP/1.1 413");
    }
    let many: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = raw(address, format!("GET /api/v1/app HTTP/1.1\r\n{head}{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer = raw(address, b"this is no HTTP\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    // A keep-alive connection at rest does not hold up the end.
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    end.send(()).unwrap();
    let report = tokio::time::timeout(Duration::from_secs(10), server).await.expect("the server does not end").unwrap();
    assert_eq!(report.cut, 0);
    assert!(TcpStream::connect(address).await.is_err(), "a server that ended still accepts");
}

/// If it fails, balancers, Prometheus or people find no page.
#[tokio::test]
async fn the_servers_own_pages_are_there_and_safe() {
    let h = Harness::start().await;
    h.get("/api/v1/app").await.expect(200);
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/docs.js", "/docs/docs.css", "/"] {
        let answer = h.call("", "GET", path, &[], None).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
    }
    for path in ["/docs", "/"] {
        let answer = h.call("", "GET", path, &[], None).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let page = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("://"), "{path} breaks its own policy");
    }
    let metrics = String::from_utf8(h.call("", "GET", "/metrics", &[], None).await.body.to_vec()).unwrap();
    assert!(metrics.contains("bellwire_api_responses_total{class=\"2xx\"}") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert_eq!(metrics.matches("# EOF").count(), 1);
    let document: Value = h.call("", "GET", "/openapi.json", &[], None).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    h.api.state().set_closing();
    assert_eq!(h.call("", "GET", "/readyz", &[], None).await.status, 503, "a stopping server still asks for work");
    assert_eq!(h.call("", "GET", "/healthz", &[], None).await.status, 200);
}

/// If it fails, a node that only delivers takes requests that it should not, or a balancer cannot see how it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_only_delivers_serves_health_and_metrics_and_nothing_else() {
    let h = Harness::start().await;
    let config = ApiConfig { jwt_secret: None, portal_secret: [3; 32], public_url: String::new(), receive: Default::default() };
    let api = Api::new(ApiState::health_only(h.engine.clone(), config));
    let status = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", h.key));
        let response = api.handle(request.body(Body::empty()).unwrap()).await;
        let status = response.status().as_u16();
        (status, String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned())
    };
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status("GET", path).await.0, 200, "{path}");
    }
    for (method, path) in
        [("GET", "/api/v1/app"), ("POST", "/api/v1/app"), ("GET", "/docs"), ("GET", "/"), ("GET", "/api/v1/health")]
    {
        let (code, body) = status(method, path).await;
        assert!(code == 404 && body.contains("node.roles"), "{method} {path}: {code} {body}");
    }
}
