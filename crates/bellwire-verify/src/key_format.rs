//! How the text that a provider shows becomes the bytes of a key. Empty ones are refused here, before anything is verified.

use std::borrow::Cow;

use aws_lc_rs::digest;
use base64::Engine;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use crate::encoding::from_hex;
use crate::key::LENIENT;
use crate::{Reason, Refusal};

/// The forms of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyFormat {
    /// The text itself, with whatever prefix it has.
    Utf8,
    /// The text after Unicode normalisation NFKD.
    Utf8Nfkd,
    /// The SHA-1 digest of the text.
    Utf8Sha1,
    /// The text behind `signkey-<environment>-`.
    Signkey,
    Base64,
    Hex,
    /// Base64 behind `whsec_` (or `v1,whsec_`, or bare).
    Whsec,
    /// Base64 behind `whsec_`; text without that prefix is the key itself.
    WhsecOrUtf8,
    /// A public key: PEM, JSON Web Key (Set), `whpk_`, hexadecimal or base64.
    PublicKey,
    /// A public key in a certificate whose address stands in the request.
    Certificate,
}

impl KeyFormat {
    /// The key of a symmetric scheme.
    pub(crate) fn bytes(self, secret: &str) -> Result<Cow<'_, [u8]>, Refusal> {
        if secret.trim().is_empty() {
            return Err(Refusal::new(Reason::SecretMissing));
        }
        let base64 = |text: &str| LENIENT.decode(text.trim()).ok().map(Cow::Owned);
        let bytes = match self {
            Self::Utf8 => Some(Cow::Borrowed(secret.as_bytes())),
            Self::Utf8Nfkd => Some(Cow::Owned(secret.nfkd().collect::<String>().into_bytes())),
            Self::Utf8Sha1 => {
                Some(Cow::Owned(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes()).as_ref().to_vec()))
            }
            Self::Signkey => {
                let behind = secret.strip_prefix("signkey-").and_then(|rest| rest.split_once('-')).map(|(_, key)| key);
                Some(Cow::Borrowed(behind.unwrap_or(secret).as_bytes()))
            }
            Self::Base64 => base64(secret),
            Self::Hex => from_hex(secret.trim()).map(Cow::Owned),
            Self::Whsec => base64(without_prefix(secret)),
            Self::WhsecOrUtf8 if secret.starts_with("whsec_") => base64(without_prefix(secret)),
            Self::WhsecOrUtf8 => Some(Cow::Borrowed(secret.as_bytes())),
            Self::PublicKey | Self::Certificate => None,
        };
        bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| Refusal::new(Reason::SecretInvalid))
    }
}

fn without_prefix(secret: &str) -> &str {
    let secret = secret.trim();
    let secret = secret.strip_prefix("v1,").unwrap_or(secret);
    secret.strip_prefix("whsec_").unwrap_or(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: an empty key is taken, so that anybody can sign (T3), or a provider's prefix ends up in the key.
    #[test]
    fn keys_are_never_empty_and_lose_only_their_own_prefix() {
        use KeyFormat::*;
        for format in [Utf8, Utf8Nfkd, Utf8Sha1, Signkey, Base64, Hex, Whsec, WhsecOrUtf8, PublicKey] {
            for empty in ["", " ", "\t\n"] {
                assert_eq!(format.bytes(empty).unwrap_err().code(), "secret_missing", "{format:?} {empty:?}");
            }
        }
        for (format, secret) in [(Whsec, "whsec_"), (WhsecOrUtf8, "whsec_"), (Whsec, "v1,whsec_"), (Hex, "xy"), (Base64, "*")] {
            assert_eq!(format.bytes(secret).unwrap_err().code(), "secret_invalid", "{format:?} {secret:?}");
        }
        assert_eq!(*Signkey.bytes("signkey-").unwrap(), *b"signkey-");
        assert_eq!(*Signkey.bytes("signkey-prod-abc").unwrap(), *b"abc");
        assert_eq!(*Utf8.bytes("whsec_AAAA").unwrap(), *b"whsec_AAAA");
        assert_eq!(*Whsec.bytes("v1,whsec_AAAA").unwrap(), [0, 0, 0]);
        assert_eq!(*Utf8Nfkd.bytes("é").unwrap(), *"e\u{301}".as_bytes());
    }
}
