//! The signature algorithms that providers use, under one name each, for verifying and for signing.

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};
use serde::Deserialize;

use crate::keccak::keccak256;

/// An algorithm, named as presets name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha384,
    HmacSha512,
    /// A plain digest over content that holds the secret.
    Sha1,
    Sha256,
    Keccak256,
    Ed25519,
    /// ASN.1 signatures.
    EcdsaP256Sha1,
    EcdsaP256Sha256,
    /// Fixed-length signatures, as in JSON Web Signatures.
    EcdsaP256Sha256Fixed,
    EcdsaP384Sha384Fixed,
    EcdsaP521Sha512Fixed,
    RsaSha1,
    RsaSha256,
    RsaSha384,
    RsaSha512,
}

impl Algorithm {
    pub(crate) fn is_hmac(self) -> bool {
        matches!(self, Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512)
    }

    /// Whether whoever verifies holds no secret.
    pub(crate) fn is_public(self) -> bool {
        self.symmetric_bytes().is_none()
    }

    /// Length of a symmetric signature.
    fn symmetric_bytes(self) -> Option<usize> {
        match self {
            Self::HmacSha1 | Self::Sha1 => Some(20),
            Self::HmacSha256 | Self::Sha256 | Self::Keccak256 => Some(32),
            Self::HmacSha384 => Some(48),
            Self::HmacSha512 => Some(64),
            _ => None,
        }
    }

    /// Whether a signature can be this long at all; what cannot is refused before anything is computed.
    pub(crate) fn is_length_possible(self, bytes: usize) -> bool {
        match self {
            Self::Ed25519 | Self::EcdsaP256Sha256Fixed => bytes == 64,
            Self::EcdsaP384Sha384Fixed => bytes == 96,
            Self::EcdsaP521Sha512Fixed => bytes == 132,
            Self::EcdsaP256Sha1 | Self::EcdsaP256Sha256 => (8..=72).contains(&bytes),
            Self::RsaSha1 | Self::RsaSha256 | Self::RsaSha384 | Self::RsaSha512 => (128..=1024).contains(&bytes),
            _ => self.symmetric_bytes() == Some(bytes),
        }
    }

    /// The signature of a symmetric algorithm; `None` for the others. `key` is not used by plain digests.
    pub(crate) fn compute(self, key: &[u8], content: &[Cow<'_, [u8]>]) -> Option<Vec<u8>> {
        match self {
            Self::Sha1 => Some(plain(&digest::SHA1_FOR_LEGACY_USE_ONLY, content)),
            Self::Sha256 => Some(plain(&digest::SHA256, content)),
            Self::Keccak256 => Some(keccak256(&content.concat()).to_vec()),
            _ => self.hmac_key(key).map(|key| keyed(&key, content)),
        }
    }

    /// A key that is ready for any number of signatures ([`keyed`]); `None` for what is no HMAC.
    pub(crate) fn hmac_key(self, key: &[u8]) -> Option<hmac::Key> {
        let algorithm = match self {
            Self::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::HmacSha256 => hmac::HMAC_SHA256,
            Self::HmacSha384 => hmac::HMAC_SHA384,
            Self::HmacSha512 => hmac::HMAC_SHA512,
            _ => return None,
        };
        Some(hmac::Key::new(algorithm, key))
    }
}

/// The signature that [`Algorithm::compute`] gives for the same key and content.
pub(crate) fn keyed(key: &hmac::Key, content: &[Cow<'_, [u8]>]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(key);
    for part in content {
        context.update(part);
    }
    context.sign().as_ref().to_vec()
}

fn plain(algorithm: &'static digest::Algorithm, content: &[Cow<'_, [u8]>]) -> Vec<u8> {
    let mut context = digest::Context::new(algorithm);
    for part in content {
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

/// Compares in constant time; different lengths are different.
pub(crate) fn is_equal(left: &[u8], right: &[u8]) -> bool {
    verify_slices_are_equal(left, right).is_ok()
}
