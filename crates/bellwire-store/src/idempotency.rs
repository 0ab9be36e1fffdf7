//! Idempotency keys: the record commits in the same transaction as what it stands for.

use bellwire_core::{OrgId, Timestamp};
use bytes::Bytes;

/// The caller's key, scoped and hashed, and a hash of the request it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Hash of organisation, method, path and the caller's key.
    pub key: [u8; 16],
    /// Hash of query and body: the same key with another request is [`crate::StoreError::IdempotencyMismatch`].
    pub request: [u8; 16],
    pub expires_at: Timestamp,
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
