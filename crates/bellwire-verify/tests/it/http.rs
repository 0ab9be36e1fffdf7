//! The axum extractor and the tower layer: genuine requests reach the handler, nothing else does, and large bodies are not read.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use bellwire_verify::{Credentials, Event, Peer, Presets, Receiver, VerifyLayer, Webhook};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};

use crate::provider::{NOW_S, Provider};

fn receiver(id: &str) -> Receiver {
    let provider = Provider::of(Presets::builtin().get(id).unwrap(), false).unwrap();
    Receiver::new(provider.preset, provider.receiver(), "https://hooks.example.com/", || NOW_S).unwrap()
}

/// What the provider sends to `/in/<id>`, signed, as it comes in over HTTP.
fn genuine(id: &str) -> Request<Body> {
    let signed = Provider::of(Presets::builtin().get(id).unwrap(), false).unwrap().sign(NOW_S);
    let mut request =
        Request::builder().method(signed.method.as_str()).uri(signed.url.strip_prefix("https://hooks.example.com").unwrap());
    for (name, value) in &signed.headers {
        request = request.header(name, value.as_slice());
    }
    let mut request = request.body(Body::from(signed.body.clone())).unwrap();
    if let Some(peer) = signed.peer {
        request.extensions_mut().insert(Peer(peer));
    }
    request
}

async fn hook(webhook: Webhook) -> String {
    format!("{} {:?}", webhook.event.kind.unwrap_or_default(), webhook.verified.secret)
}

fn app(id: &str) -> Router {
    Router::new().route(&format!("/in/{id}"), post(hook)).with_state(receiver(id))
}

/// A body of a terabyte that counts how often anybody asked for a part of it.
struct Endless(Arc<AtomicUsize>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b'x'; 64 * 1024])))))
    }
}

/// Broken: a handler runs for a forged request, or not for a genuine one (the URL and the sender's address among what is verified).
#[tokio::test]
async fn the_extractor_lets_genuine_requests_through_and_no_others() {
    for id in ["github", "square", "twilio", "salesforce"] {
        let response = app(id).oneshot(genuine(id)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{id}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(text.ends_with(b"Some(0)"), "{id}: {text:?}");

        let (mut parts, _) = genuine(id).into_parts();
        parts.headers.remove("x-github-event");
        let changed = Request::from_parts(parts, Body::from("a=changed"));
        let response = app(id).oneshot(changed).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{id}");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(text.is_empty(), "{id}: the sender is told {text:?}");
    }
}

/// Broken: anybody can make a receiver read without end (T22).
#[tokio::test]
async fn t22_bodies_are_not_read_for_bad_heads_and_never_beyond_the_limit() {
    let read = Arc::new(AtomicUsize::new(0));
    let unsigned = Request::builder().method("POST").uri("/in/github").body(Body::new(Endless(read.clone()))).unwrap();
    assert_eq!(app("github").oneshot(unsigned).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(read.load(Ordering::Relaxed), 0, "the body of an unsigned request was read");

    let (parts, _) = genuine("github").into_parts();
    let endless = Request::from_parts(parts, Body::new(Endless(read.clone())));
    assert_eq!(app("github").oneshot(endless).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        read.load(Ordering::Relaxed) <= 18,
        "{} parts of 64 KiB were read for a limit of 1 MiB",
        read.load(Ordering::Relaxed)
    );

    let (mut parts, body) = genuine("github").into_parts();
    parts.headers.insert("content-length", "1000000000000".parse().unwrap());
    assert_eq!(app("github").oneshot(Request::from_parts(parts, body)).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);

    let small = Router::new().route("/in/github", post(hook)).with_state(receiver("github").body_bytes_max(10));
    assert_eq!(small.oneshot(genuine("github")).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// Broken: the service behind the layer sees forged requests, another body than the verified one, or nothing of the verdict.
#[tokio::test]
async fn the_layer_hands_on_what_it_has_verified() {
    let inner = service_fn(async |request: Request<Full<Bytes>>| {
        let kind = request.extensions().get::<Event>().unwrap().kind.clone().unwrap_or_default();
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, Infallible>(Response::new(format!("{kind} {}", String::from_utf8_lossy(&body))))
    });
    let service = VerifyLayer::new(receiver("stripe")).layer(inner);
    let response = service.clone().oneshot(genuine("stripe")).await.unwrap();
    assert_eq!(response.into_body(), r#"example.created {"type":"example.created","id":"evt_1"}"#);

    let (parts, _) = genuine("stripe").into_parts();
    let response = service.oneshot(Request::from_parts(parts, Body::from("{}"))).await.unwrap();
    assert_eq!((response.status(), response.into_body().as_str()), (StatusCode::UNAUTHORIZED, ""));
}

/// Broken: a server starts with a source that anybody can send to (T3).
#[test]
fn t3_a_receiver_without_a_secret_does_not_start() {
    let github = Presets::builtin().get("github").unwrap();
    for credentials in [Credentials::none(), Credentials::secret(""), Credentials::secret("  ")] {
        assert_eq!(Receiver::new(github, credentials, "", || NOW_S).unwrap_err().code(), "secret_missing");
    }
}
