//! Why a request was refused: a stable code for logs and metrics, a sentence for people, and never a secret or a signature.

use std::fmt;

/// Why a request was refused. [`Refusal::code`] is stable: dashboards and alerts may depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    at: Option<String>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason) -> Self {
        Self { reason, at: None }
    }

    /// `at`: the place in the request or the setting that the refusal is about; never its value.
    pub(crate) fn at(reason: Reason, at: impl Into<String>) -> Self {
        Self { reason, at: Some(at.into()) }
    }

    /// The reason, for matching.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The reason as a stable word in `snake_case`.
    pub fn code(&self) -> &'static str {
        self.reason.code()
    }

    /// What it is about (`header:X-Hub-Signature-256`, `setting:webhook_id`, a certificate's URL), if there is one such thing.
    pub fn place(&self) -> Option<&str> {
        self.at.as_deref()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.sentence())?;
        match &self.at {
            Some(at) => write!(f, " ({at})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $sentence:literal;)*) => {
        /// The reasons, in the order in which they are looked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them, for documentation and for metrics that list every label.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// A stable word in `snake_case`.
            pub fn code(self) -> &'static str {
                match self {
                    $(Reason::$name => $code,)*
                }
            }

            fn sentence(self) -> &'static str {
                match self {
                    $(Reason::$name => $sentence,)*
                }
            }
        }
    };
}

reasons! {
    /// Never a pass: a source without a secret takes nothing.
    SecretMissing = "secret_missing", "no secret is set: set the one that the provider shows";
    SecretInvalid = "secret_invalid", "the secret does not have the form that this provider's secrets have";
    SecretsTooMany = "secrets_too_many", "too many secrets are set: remove those that no longer sign";
    SettingMissing = "setting_missing", "a setting that this provider needs is not set";
    SettingInvalid = "setting_invalid", "a setting has a value that cannot be used";
    AddressRefused = "address_refused", "the request does not come from an address of the provider";
    HeaderRepeated = "header_repeated", "a header that must be there once is there several times";
    FieldRepeated = "field_repeated", "a field of the form that must be there once is there several times";
    HeaderMalformed = "header_malformed", "a header is not text";
    ValueMissing = "value_missing", "something that the signature covers or that must be checked is missing";
    ValueMismatch = "value_mismatch", "something that must have a certain value has another one";
    BodyMalformed = "body_malformed", "the body is not what its content type or this provider promises";
    SignatureMissing = "signature_missing", "the signature is missing";
    SignatureMalformed = "signature_malformed", "the signature has a wrong prefix, alphabet or length";
    SignaturesTooMany = "signatures_too_many", "there are more signatures than a rotation needs";
    TimestampMissing = "timestamp_missing", "the timestamp is missing";
    TimestampMalformed = "timestamp_malformed", "the timestamp cannot be read";
    TimestampTooOld = "timestamp_too_old", "the timestamp is too old: replayed, delayed, or one of the clocks is wrong";
    TimestampTooNew = "timestamp_too_new", "the timestamp is in the future: one of the clocks is wrong";
    CertificateRefused = "certificate_refused", "the certificate's address is not one of the provider's";
    /// The caller fetches the certificate from [`Refusal::place`], keeps it, and asks again.
    CertificateMissing = "certificate_missing", "the certificate has not been fetched yet";
    CertificateInvalid = "certificate_invalid", "the certificate cannot be read or is not the provider's";
    CertificateExpired = "certificate_expired", "the certificate is no longer valid: the provider signs with a newer one by now, or a clock is wrong";
    CertificateNotYetValid = "certificate_not_yet_valid", "the certificate is not valid yet: one of the clocks is wrong";
    AlgorithmRefused = "algorithm_refused", "the request asks for an algorithm that this provider does not use";
    ClaimMismatch = "claim_mismatch", "a claim of the token is missing or does not belong to this request";
    NoMatch = "no_match", "no signature matches: another secret, or the request was changed on its way";
    /// Only when signing.
    CannotSign = "cannot_sign", "requests of this provider cannot be signed with what is given";
}
