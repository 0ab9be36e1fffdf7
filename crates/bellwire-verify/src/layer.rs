//! A tower layer: the service behind it sees genuine requests only, with their bodies read and a [`Verified`] and an [`Event`] in
//! their extensions.
//!
//! ```
//! use bellwire_verify::{Credentials, Presets, Receiver, VerifyLayer};
//! use tower::{ServiceBuilder, service_fn};
//!
//! let stripe = Presets::builtin().get("stripe").ok_or("no such preset")?;
//! let now_s = || 1_767_225_600; // your clock
//! let receiver = Receiver::new(stripe, Credentials::secret("whsec_x"), "https://hooks.example.com", now_s)?;
//! let service = ServiceBuilder::new().layer(VerifyLayer::new(receiver)).service(service_fn(
//!     async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
//!         println!("{:?}", request.extensions().get::<bellwire_verify::Event>());
//!         Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
//!     },
//! ));
//! # drop(service);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Verified`]: crate::Verified
//! [`Event`]: crate::Event

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use crate::Receiver;

/// Lets genuine requests through and answers the others itself.
#[derive(Clone, Debug)]
pub struct VerifyLayer(Receiver);

impl VerifyLayer {
    pub fn new(receiver: Receiver) -> Self {
        Self(receiver)
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = VerifyService<S>;

    fn layer(&self, inner: S) -> VerifyService<S> {
        VerifyService { receiver: self.0.clone(), inner }
    }
}

/// The service that [`VerifyLayer`] makes.
#[derive(Clone, Debug)]
pub struct VerifyService<S> {
    receiver: Receiver,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for VerifyService<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone is for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let receiver = self.receiver.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match receiver.receive(&parts, body).await {
                Ok(webhook) => {
                    parts.extensions.insert(webhook.verified);
                    parts.extensions.insert(webhook.event);
                    inner.call(Request::from_parts(parts, Full::new(webhook.body))).await
                }
                Err(rejected) => {
                    let mut response = Response::new(R::default());
                    *response.status_mut() = rejected.status();
                    Ok(response)
                }
            }
        })
    }
}
