//! Writing the signed request. Invariant: the signature covers the exact bytes that follow the head, with every key that is
//! valid now.

use std::fmt::Write;

use bellwire_core::{Message, Timestamp};
use bellwire_verify::sign_all;

use crate::config::HeaderPrefix;
use crate::route::{Destination, Route};
use crate::transport::TransportError;

/// A request head being written; its room is reused from request to request.
#[derive(Default)]
pub struct RequestWriter {
    head: Vec<u8>,
    signature: String,
    id: String,
    timestamp: String,
}

impl RequestWriter {
    /// Signs `payload` as `message` at `now` and writes the head for it.
    pub fn prepare(
        &mut self,
        prefix: HeaderPrefix,
        route: &Route,
        destination: &Destination,
        message: &Message,
        payload: &[u8],
        now: Timestamp,
    ) -> Result<(), TransportError> {
        self.id.clear();
        self.timestamp.clear();
        let seconds = now.as_unix_seconds();
        // Writing to a String cannot fail.
        let _ = write!(self.id, "{}", message.id);
        let _ = write!(self.timestamp, "{seconds}");
        sign_all(route.signers(now), &self.id, seconds.unsigned_abs(), payload, &mut self.signature);
        let [id, timestamp, signature] = match prefix {
            HeaderPrefix::Webhook => ["webhook-id", "webhook-timestamp", "webhook-signature"],
            HeaderPrefix::Svix => ["svix-id", "svix-timestamp", "svix-signature"],
        };
        let mut headers = [
            ("content-type", message.content_type.as_str()),
            (id, &self.id),
            (timestamp, &self.timestamp),
            (signature, &self.signature),
        ];
        // An endpoint's own content type stands in the constant part already.
        let own_content_type = route.endpoint.headers.0.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let headers = if own_content_type { &mut headers[1..] } else { &mut headers[..] };
        destination.head.write(&mut self.head, headers, payload.len())
    }

    pub fn head(&self) -> &[u8] {
        &self.head
    }
}
