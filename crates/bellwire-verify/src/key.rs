//! The three kinds of key and their text forms. Keys never show themselves in debug output.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::{Error, Signer, Verifier};

/// Shortest accepted secret: 24 bytes (192 bits) is the specification's lower bound.
const SECRET_BYTES_MIN: usize = 24;
/// Longest accepted secret: 75 bytes is what the 100 base64 characters of the Svix API hold.
const SECRET_BYTES_MAX: usize = 75;
const ED25519_SEED_BYTES: usize = 32;
const ED25519_PUBLIC_BYTES: usize = 32;

/// People copy keys without their padding, and some generators leave stray bits at the end: both still name one key.
pub(crate) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

fn decode(text: &str) -> Result<Vec<u8>, Error> {
    if text.is_empty() {
        return Err(Error::SecretEmpty);
    }
    LENIENT.decode(text).map_err(|_| Error::SecretEncoding)
}

/// A symmetric secret (`whsec_`): HMAC-SHA256, scheme `v1`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads `whsec_` + base64, or bare base64.
    ///
    /// # Errors
    /// [`Error::SecretEmpty`], [`Error::SecretEncoding`], [`Error::SecretLength`] (24 to 75 bytes are accepted).
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::from_bytes(&decode(text.strip_prefix("whsec_").unwrap_or(text))?)
    }

    /// Takes the raw bytes of a secret.
    ///
    /// # Errors
    /// [`Error::SecretEmpty`], [`Error::SecretLength`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        match bytes.len() {
            0 => Err(Error::SecretEmpty),
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(Self(bytes.to_vec())),
            n => Err(Error::SecretLength { bytes: n, min: SECRET_BYTES_MIN, max: SECRET_BYTES_MAX }),
        }
    }

    /// Makes a secret of 32 random bytes, which the caller takes from a cryptographic generator.
    pub fn generate(random: [u8; 32]) -> Self {
        Self(random.to_vec())
    }

    /// The text form (`whsec_…`). The secret itself: for its owner's eyes only.
    pub fn expose(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An Ed25519 key that signs (`whsk_`), scheme `v1a`.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    seed: [u8; ED25519_SEED_BYTES],
    public: [u8; ED25519_PUBLIC_BYTES],
}

impl SigningKey {
    /// Reads `whsk_` + base64 of the seed and public key (64 bytes, what Svix writes) or of the seed alone (32 bytes).
    ///
    /// # Errors
    /// [`Error::SecretEmpty`], [`Error::SecretEncoding`], [`Error::SigningKeyLength`], [`Error::SigningKeyMismatch`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.strip_prefix("whsk_").or_else(|| text.strip_prefix("whsk1_")).unwrap_or(text);
        let bytes = decode(text)?;
        let (seed, public) = match bytes.len() {
            ED25519_SEED_BYTES => (bytes.as_slice(), None),
            64 => (&bytes[..ED25519_SEED_BYTES], Some(&bytes[ED25519_SEED_BYTES..])),
            n => return Err(Error::SigningKeyLength { bytes: n }),
        };
        let key = Self::from_seed(seed)?;
        if public.is_some_and(|public| public != key.public) {
            return Err(Error::SigningKeyMismatch);
        }
        Ok(key)
    }

    /// Makes a key from a random seed, which the caller takes from a cryptographic generator.
    ///
    /// # Errors
    /// [`Error::SigningKeyMismatch`] if the library refuses the seed (it refuses none that are 32 bytes).
    pub fn generate(random: [u8; ED25519_SEED_BYTES]) -> Result<Self, Error> {
        Self::from_seed(&random)
    }

    fn from_seed(seed: &[u8]) -> Result<Self, Error> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::SigningKeyMismatch)?;
        let seed = seed.try_into().map_err(|_| Error::SigningKeyLength { bytes: seed.len() })?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| Error::SigningKeyMismatch)?;
        Ok(Self { seed, public })
    }

    /// The text form (`whsk_` + base64 of seed and public key). The key itself: for its owner's eyes only.
    pub fn expose(&self) -> String {
        let mut bytes = [0; ED25519_SEED_BYTES + ED25519_PUBLIC_BYTES];
        bytes[..ED25519_SEED_BYTES].copy_from_slice(&self.seed);
        bytes[ED25519_SEED_BYTES..].copy_from_slice(&self.public);
        format!("whsk_{}", STANDARD.encode(bytes))
    }

    /// The key that receivers verify with.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.public)
    }

    pub(crate) fn pair(&self) -> Result<Ed25519KeyPair, Error> {
        Ed25519KeyPair::from_seed_and_public_key(&self.seed, &self.public).map_err(|_| Error::SigningKeyMismatch)
    }
}

/// An Ed25519 public key (`whpk_`): verifies `v1a`, tells nobody how to sign. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey([u8; ED25519_PUBLIC_BYTES]);

impl VerifyingKey {
    /// Reads `whpk_` + base64 of 32 bytes.
    ///
    /// # Errors
    /// [`Error::SecretEmpty`], [`Error::SecretEncoding`], [`Error::VerifyingKeyLength`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.strip_prefix("whpk_").or_else(|| text.strip_prefix("whpk1_")).unwrap_or(text);
        let bytes = decode(text)?;
        bytes.as_slice().try_into().map(Self).map_err(|_| Error::VerifyingKeyLength { bytes: bytes.len() })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whpk_{}", STANDARD.encode(self.0))
    }
}

/// Any key, told apart by its prefix: what an endpoint's or a source's owner hands over.
///
/// The prefixes are those of the Svix API: `whsec_`, `whsk_`, `whsk1_`, `whpk_`, `whpk1_`, or none (a symmetric secret).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    Symmetric(Secret),
    Signing(SigningKey),
    Verifying(VerifyingKey),
}

impl Key {
    /// Reads any of the text forms.
    ///
    /// # Errors
    /// Those of [`Secret::parse`], [`SigningKey::parse`] and [`VerifyingKey::parse`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with("whsk_") || text.starts_with("whsk1_") {
            SigningKey::parse(text).map(Self::Signing)
        } else if text.starts_with("whpk_") || text.starts_with("whpk1_") {
            VerifyingKey::parse(text).map(Self::Verifying)
        } else {
            Secret::parse(text).map(Self::Symmetric)
        }
    }

    /// Prepares the key for signing.
    ///
    /// # Errors
    /// [`Error::CannotSign`] for a public key.
    pub fn signer(&self) -> Result<Signer, Error> {
        match self {
            Self::Symmetric(secret) => Ok(Signer::hmac(secret)),
            Self::Signing(key) => Signer::ed25519(key),
            Self::Verifying(_) => Err(Error::CannotSign),
        }
    }

    /// Prepares the key for verifying.
    pub fn verifier(&self) -> Verifier {
        match self {
            Self::Symmetric(secret) => Verifier::hmac(secret),
            Self::Signing(key) => Verifier::ed25519(&key.verifying_key()),
            Self::Verifying(key) => Verifier::ed25519(key),
        }
    }

    /// The canonical text form, with its prefix. For the symmetric and signing kinds this is the secret itself.
    pub fn expose(&self) -> String {
        match self {
            Self::Symmetric(secret) => secret.expose(),
            Self::Signing(key) => key.expose(),
            Self::Verifying(key) => key.to_string(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(whsec_[redacted])")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(whsk_[redacted], {})", self.verifying_key())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SVIX_PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const SVIX_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

    /// Broken: a server starts with a secret that anyone can guess (T3).
    #[test]
    fn empty_and_short_secrets_are_refused() {
        for text in ["", "whsec_", "   ", "whsec_   ", "whsec_AAAA", "***", "whsk_", "whpk_", "whsk_AAAA", "whpk_AAAA"] {
            assert!(Key::parse(text).is_err(), "{text:?} was taken");
        }
        assert_eq!(Secret::from_bytes(&[]), Err(Error::SecretEmpty));
        assert_eq!(Secret::from_bytes(&[1; 23]), Err(Error::SecretLength { bytes: 23, min: 24, max: 75 }));
        assert_eq!(Secret::from_bytes(&[1; 76]), Err(Error::SecretLength { bytes: 76, min: 24, max: 75 }));
    }

    /// Broken: a key that the Svix API accepts (32 to 100 base64 characters) cannot be brought along.
    #[test]
    fn every_length_of_the_svix_pattern_is_taken() {
        for bytes in 24..=75 {
            let text = format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
            let secret = Secret::parse(&text).unwrap();
            assert_eq!(secret.expose(), text);
            assert_eq!(Secret::parse(text.trim_start_matches("whsec_").trim_end_matches('=')).unwrap(), secret);
        }
    }

    /// Broken: a key pair made by a Svix server, or a bare seed, does not load, or half a pair is taken for a whole one.
    #[test]
    fn signing_keys_load_from_both_forms_and_must_fit_together() {
        let pair = SigningKey::parse(SVIX_PAIR).unwrap();
        assert_eq!(pair.verifying_key().to_string(), SVIX_PUBLIC);
        assert_eq!(pair.expose(), SVIX_PAIR);
        let seed = format!("whsk_{}", STANDARD.encode(pair.seed));
        assert_eq!(SigningKey::parse(&seed).unwrap(), pair);
        assert_eq!(SigningKey::parse(&SVIX_PAIR.replacen("whsk_", "whsk1_", 1)).unwrap(), pair);

        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&pair.seed);
        bytes[32..].copy_from_slice(SigningKey::generate([9; 32]).unwrap().verifying_key().bytes());
        assert_eq!(SigningKey::parse(&format!("whsk_{}", STANDARD.encode(bytes))), Err(Error::SigningKeyMismatch));
        assert_eq!(SigningKey::parse(&STANDARD.encode([1; 33])), Err(Error::SigningKeyLength { bytes: 33 }));
    }

    /// Broken: a secret lands in a log line through `{:?}`.
    #[test]
    fn debug_output_shows_no_secret() {
        let secret = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let pair = Key::parse(SVIX_PAIR).unwrap();
        let shown = format!("{secret:?} {pair:?} {:?} {:?}", secret.signer(), pair.signer());
        let shown = format!("{shown} {:?} {:?}", secret.verifier(), pair.verifier());
        assert!(!shown.contains("MfKQ9r8") && !shown.contains("6Xb/dCc"), "{shown}");
    }

    /// Broken: a public key is silently used as an HMAC secret, which anyone could then forge.
    #[test]
    fn a_public_key_cannot_sign() {
        assert_eq!(Key::parse(SVIX_PUBLIC).unwrap().signer().err(), Some(Error::CannotSign));
    }
}
