//! Sign and verify webhooks: as the Standard Webhooks specification has it (<https://www.standardwebhooks.com>), and as some 180
//! providers have it, each described by a [`Preset`].
//!
//! # Standard Webhooks
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
//! # Any provider
//!
//! ```
//! use bellwire_verify::{Credentials, Presets, Request};
//!
//! let github = Presets::builtin().get("github").ok_or("no such preset")?;
//! let request = Request {
//!     method: "POST",
//!     url: "https://hooks.example.com/in/github",
//!     headers: &[
//!         ("X-GitHub-Event", b"ping"),
//!         ("X-Hub-Signature-256", b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
//!     ],
//!     body: b"Hello, World!",
//!     peer: None,
//! };
//! let credentials = Credentials::secret("It's a Secret to Everybody");
//! let now_s = 1_767_225_600; // from your clock
//! github.verify(&request, &credentials, now_s)?;
//! assert_eq!(github.event(&request).kind.as_deref(), Some("ping"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Presets are data ([`Preset::parse`] reads your own); `presets/FORMAT.md` explains the format.
//!
//! There is no way to switch verification off, no default secret and no magic value. Time and randomness are arguments; nothing here
//! opens a socket or a file.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod algorithm;
mod certificate;
mod check;
mod credentials;
mod der;
mod encoding;
mod error;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "fixtures")]
pub mod fixtures;
pub mod handshake;
mod hook;
mod jwt;
mod keccak;
mod key;
mod key_format;
#[cfg(feature = "tower")]
mod layer;
mod network;
mod place;
mod pluck;
mod preset;
mod public_key;
#[cfg(feature = "receiver")]
mod receiver;
mod refusal;
mod request;
mod sign;
mod signature;
mod signing;
mod template;
mod timestamp;
pub mod vectors;
mod verify;

pub use check::{Event, Verified};
pub use credentials::{Credentials, SECRETS_MAX};
pub use error::Error;
pub use key::{Key, Secret, SigningKey, VerifyingKey};
#[cfg(feature = "tower")]
pub use layer::{VerifyLayer, VerifyService};
pub use preset::{Confidence, Example, Preset, PresetError, Presets, Setting};
#[cfg(feature = "receiver")]
pub use receiver::{Peer, Receiver, Rejected, Webhook};
pub use refusal::{Reason, Refusal};
pub use request::Request;
pub use sign::{Signer, sign_all};
pub use signing::Signed;
pub use verify::{SIGNATURES_MAX, SignedHeaders, TOLERANCE_SECONDS, Verifier, verify};

/// The examples of the README are compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
