//! Sign and verify webhooks as the Standard Webhooks specification has it (<https://www.standardwebhooks.com>):
//! for receivers who check what they were sent, and for Bellwire, which signs what it sends.
//!
//! * `v1`: HMAC-SHA256 over `id.timestamp.body`, key `whsec_` + base64 ([`Secret`]);
//! * `v1a`: Ed25519 over the same bytes, key pair `whsk_` / `whpk_` + base64 ([`SigningKey`], [`VerifyingKey`]).
//!
//! Verify the raw bytes before anything parses them:
//!
//! ```
//! use bellwire_verify::{Key, SignedHeaders, TOLERANCE_SECONDS, verify};
//!
//! let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
//! let body = br#"{"test": 2432232314}"#;
//! let headers = SignedHeaders {
//!     id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
//!     timestamp: Some("1614265330"),
//!     signature: Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
//! };
//! let now_s = 1_614_265_340; // from your clock
//! verify(&headers, body, &[key.verifier()], now_s, TOLERANCE_SECONDS)?;
//! # Ok::<(), bellwire_verify::Error>(())
//! ```
//!
//! There is no way to switch verification off, no default secret and no magic value. Time and randomness are arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod error;
mod key;
mod sign;
mod verify;

pub use error::Error;
pub use key::{Key, Secret, SigningKey, VerifyingKey};
pub use sign::{Signer, sign_all};
pub use verify::{SIGNATURES_MAX, SignedHeaders, TOLERANCE_SECONDS, Verifier, verify};
