//! Secrets at rest: AES-256-GCM-SIV under a key derived per organisation, bound to the place where the value stands.

/// Seals and opens secrets. One per process, from the operator's master key.
pub struct Cipher {}
