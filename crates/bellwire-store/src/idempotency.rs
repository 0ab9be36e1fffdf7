//! Idempotency keys: the record commits in the same transaction as what it stands for.

use std::time::Duration;

use bellwire_core::{OrgId, Timestamp, limits};
use bytes::Bytes;

/// How long the key of an API call counts.
pub const WINDOW: Duration = Duration::from_secs(limits::IDEMPOTENCY_WINDOW_HOURS * 3_600);

/// The caller's key, scoped and hashed, and a hash of the request it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Hash of organisation, method, path and the caller's key.
    pub key: [u8; 16],
    /// Hash of query and body: the same key with another request is [`crate::StoreError::IdempotencyMismatch`].
    pub request: [u8; 16],
    pub expires_at: Timestamp,
    /// How long it counts: `expires_at` is this long after the request.
    pub window: Duration,
}

impl Idempotency {
    /// When the request came: what stored keys are compared with to see whether they have expired.
    pub fn made_at(&self) -> Timestamp {
        self.expires_at.minus(self.window)
    }
}

/// A key with the answer it will give for 24 h. The answer is stored encrypted (it may hold a token).
#[derive(Clone, Debug)]
pub struct IdempotencyRecord {
    pub org: OrgId,
    pub idempotency: Idempotency,
    pub status: u16,
    pub response: Bytes,
}

/// What a write with an optional idempotency record came to.
#[derive(Clone, Debug)]
pub enum Written<T> {
    /// Done now.
    Fresh(T),
    /// Done before under this key: the answer of that time. Nothing was written.
    Replayed { status: u16, response: Bytes },
}
