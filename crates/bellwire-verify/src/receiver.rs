//! The part that the axum extractor and the tower layer share: a received HTTP request, its head judged before its body is read.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{Credentials, Event, Preset, Refusal, Request, Verified};

/// Largest body that is read unless [`Receiver::body_bytes_max`] says otherwise: a megabyte is more than nearly all providers send.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What one source expects: a preset, credentials, the address under which the provider knows it, and a clock.
#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    preset: Preset,
    credentials: Credentials,
    public_origin: String,
    body_bytes_max: usize,
    now_s: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Who sent a request, put into its extensions by whoever knows (after trusted proxies). Presets with addresses need it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// A genuine request's body, and what is known about it.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The raw bytes that were verified.
    pub body: Bytes,
    pub verified: Verified,
    pub event: Event,
}

/// Why a request was turned away. The answer to the sender says no more than its status.
#[derive(Debug)]
#[non_exhaustive]
pub enum Rejected {
    /// 401.
    Refused(Refusal),
    /// 413.
    TooLarge,
    /// 400: the connection broke, or the body did.
    Unreadable,
}

impl Rejected {
    /// The status to answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused(_) => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::TooLarge => f.write_str("the body is larger than this source takes"),
            Self::Unreadable => f.write_str("the body could not be read"),
        }
    }
}

impl std::error::Error for Rejected {}

impl Receiver {
    /// `public_origin`: what stands before the path in the address that is configured at the provider, such as
    /// `https://hooks.example.com`. `now_s`: seconds since 1970.
    ///
    /// # Errors
    /// Those of [`Preset::check_credentials`]: a source without a secret takes nothing, and says so at its start.
    pub fn new(
        preset: &Preset,
        credentials: Credentials,
        public_origin: &str,
        now_s: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self, Refusal> {
        preset.check_credentials(&credentials)?;
        Ok(Self(Arc::new(Inner {
            preset: preset.clone(),
            credentials: preset.prepare(credentials),
            public_origin: public_origin.trim_end_matches('/').to_owned(),
            body_bytes_max: BODY_BYTES_MAX,
            now_s: Arc::new(now_s),
        })))
    }

    /// Another limit for bodies, in bytes.
    #[must_use]
    pub fn body_bytes_max(self, bytes: usize) -> Self {
        Self(Arc::new(Inner { body_bytes_max: bytes, ..(*self.0).clone() }))
    }

    /// Judges a request: its head first, so that nobody has to take in a large body for a request that its head gives away. How long
    /// a sender may take over the body is the server's to limit.
    ///
    /// # Errors
    /// [`Rejected`].
    pub async fn receive<B>(&self, parts: &Parts, body: B) -> Result<Webhook, Rejected>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let now_s = (self.0.now_s)();
        self.judge(parts, b"", |preset, request, credentials| preset.check_head(request, credentials, now_s))
            .map_err(Rejected::Refused)?;

        let announced = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > self.0.body_bytes_max) {
            return Err(Rejected::TooLarge);
        }
        let body = match Limited::new(body, self.0.body_bytes_max).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(Rejected::TooLarge),
            Err(_) => return Err(Rejected::Unreadable),
        };
        let (verified, event) = self.judge(parts, &body, |preset, request, credentials| {
            let verified = preset.verify(request, credentials, now_s).map_err(Rejected::Refused)?;
            Ok::<_, Rejected>((verified, preset.event(request)))
        })?;
        Ok(Webhook { body, verified, event })
    }

    fn judge<T>(&self, parts: &Parts, body: &[u8], f: impl FnOnce(&Preset, &Request<'_>, &Credentials) -> T) -> T {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.0.public_origin);
        let headers: Vec<(&str, &[u8])> = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let request = Request { method: parts.method.as_str(), url: &url, headers: &headers, body, peer };
        f(&self.0.preset, &request, &self.0.credentials)
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({}, {})", self.0.preset.id(), self.0.public_origin)
    }
}
