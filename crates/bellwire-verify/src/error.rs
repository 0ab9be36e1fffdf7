//! Everything that can be wrong with a key or a signed request, in one enum. No text ever holds key material or a signature.

/// Why a key or a signed request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the secret is empty")]
    SecretEmpty,
    #[error("the secret is not base64")]
    SecretEncoding,
    #[error("the secret is {bytes} bytes; it must be between {min} and {max} (24 to 64 are recommended)")]
    SecretLength { bytes: usize, min: usize, max: usize },
    #[error("an Ed25519 signing key is a 32-byte seed, or the seed and its public key (64 bytes); this one is {bytes} bytes")]
    SigningKeyLength { bytes: usize },
    #[error("the two halves of the Ed25519 signing key do not belong together, or are no key at all")]
    SigningKeyMismatch,
    #[error("an Ed25519 public key is 32 bytes; this one is {bytes} bytes")]
    VerifyingKeyLength { bytes: usize },
    #[error("a public key cannot sign; give the whsec_ secret or the whsk_ signing key")]
    CannotSign,
    #[error("the message id is missing, too long, or has characters that it must not have (a full stop among them)")]
    IdInvalid,
    #[error("no secret to verify with")]
    NoSecret,
    #[error("the {0} header is missing")]
    HeaderMissing(&'static str),
    #[error("the timestamp is not a whole number of seconds since 1970")]
    TimestampInvalid,
    #[error("the timestamp is too old")]
    TimestampTooOld,
    #[error("the timestamp is too far in the future")]
    TimestampTooNew,
    #[error("the signature header holds more than {max} signatures")]
    TooManySignatures { max: usize },
    #[error("no signature in the header matches")]
    NoMatch,
}
