//! A door for `bellwire-fuzz`: exchanges over any stream, without names, sockets and TLS.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::http1::Http1;
use super::{Response, ResponseLimits, TransportError};

/// A connection as deliveries use it, over a stream of the caller's.
pub struct Wire<S>(Http1<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S, limits: ResponseLimits) -> Self {
        Self(Http1::new(stream, limits))
    }

    /// # Errors
    /// As those of [`super::Connection::send`].
    pub async fn exchange(&mut self, head: &[u8], body: &[u8], deadline: Instant) -> Result<Response, TransportError> {
        self.0.exchange(head, body, deadline).await
    }

    pub fn is_reusable(&self) -> bool {
        self.0.is_reusable()
    }

    /// Bytes that heads were looked for in, those that were looked at again included.
    pub fn scanned_bytes(&self) -> u64 {
        self.0.scanned_bytes()
    }
}
