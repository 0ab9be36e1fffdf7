//! What a handshake comes to: an answer, something to fetch first, or a refusal with a stable reason. Debug output hides secrets.

use std::fmt;

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Not a handshake: an event.
    NotOne,
    /// Answer so, and take no event.
    Answer(Answer),
    /// Fetch the URL (GET, no redirects, through the caller's egress guard), then answer so. If fetching fails, answer with an error,
    /// so that the provider asks again.
    Confirm {
        /// Only https, only a host of the provider.
        url: String,
        /// The answer after it was fetched.
        then: Answer,
    },
    /// Answer with the status and an empty body.
    Refuse(Refused),
}

/// An answer: what to send, and what to store before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header names and values; there is always at most one of a name.
    pub headers: Vec<(&'static str, String)>,
    /// The body; a length must be sent with it, never chunks.
    pub body: String,
    /// What must be stored, durably, before the answer is sent.
    pub keep: Option<Keep>,
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), keep: None }
    }

    /// Text that came from outside: as plain text that no browser takes for anything else.
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self::empty(200).with_body("text/plain", body.into())
    }

    pub(super) fn json(body: &serde_json::Value) -> Self {
        Self::empty(200).with_body("application/json", body.to_string())
    }

    pub(super) fn with_body(mut self, content_type: &'static str, body: String) -> Self {
        self.headers.push(("Content-Type", content_type.to_owned()));
        self.headers.push(("X-Content-Type-Options", "nosniff".to_owned()));
        self.body = body;
        self
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn keeping(mut self, keep: Keep) -> Self {
        self.keep = Some(keep);
        self
    }
}

/// What a handshake leaves behind.
#[derive(Clone, PartialEq, Eq)]
pub enum Keep {
    /// The key that verifies events from now on. Store it only if the source has none.
    Secret {
        /// How the provider calls it (`X-Hook-Secret`).
        name: &'static str,
        /// The secret.
        value: String,
        /// The operator has to copy it into the provider's settings.
        is_for_operator: bool,
    },
    /// The subscription ends after so many seconds and must be renewed before.
    LeaseSeconds(u64),
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { name, is_for_operator, .. } => {
                let mut shown = f.debug_struct("Secret");
                shown
                    .field("name", name)
                    .field("value", &format_args!("redacted"))
                    .field("is_for_operator", is_for_operator)
                    .finish()
            }
            Self::LeaseSeconds(seconds) => f.debug_tuple("LeaseSeconds").field(seconds).finish(),
        }
    }
}

/// A refused handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status to answer with; providers look at it.
    pub status: u16,
    /// Why, for logs and metrics.
    pub reason: HandshakeReason,
    /// The part of the request or the setting that it is about; never its value.
    pub place: Option<&'static str>,
}

impl Refused {
    pub(super) fn new(status: u16, reason: HandshakeReason, place: &'static str) -> Self {
        Self { status, reason, place: Some(place) }
    }

    pub(super) fn setting(name: &'static str) -> Self {
        Self::new(403, HandshakeReason::SettingMissing, name)
    }

    pub(super) fn signature() -> Self {
        Self { status: 401, reason: HandshakeReason::SignatureNotValid, place: None }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.sentence())?;
        self.place.map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

impl std::error::Error for Refused {}

/// Why a handshake was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandshakeReason {
    /// The provider signs this handshake, and the signature is not valid.
    SignatureNotValid,
    /// The token that was agreed with the provider is another one.
    TokenMismatch,
    /// Something was asked for that we did not ask the provider for.
    NotRequested,
    /// A setting or secret that the answer needs is not set.
    SettingMissing,
    /// Longer than [`super::CHALLENGE_BYTES_MAX`].
    ChallengeTooLong,
    /// Empty, there several times, or with characters that this provider's challenges never have.
    ChallengeMalformed,
    /// A secret was set up before, and this one is another.
    AlreadySettled,
    /// What is to be fetched is not an address of the provider.
    AddressRefused,
}

impl HandshakeReason {
    /// All of them, for metrics that list every label.
    pub const ALL: &[Self] = &[
        Self::SignatureNotValid,
        Self::TokenMismatch,
        Self::NotRequested,
        Self::SettingMissing,
        Self::ChallengeTooLong,
        Self::ChallengeMalformed,
        Self::AlreadySettled,
        Self::AddressRefused,
    ];

    /// A stable word in `snake_case`.
    pub fn code(self) -> &'static str {
        match self {
            Self::SignatureNotValid => "signature_not_valid",
            Self::TokenMismatch => "token_mismatch",
            Self::NotRequested => "not_requested",
            Self::SettingMissing => "setting_missing",
            Self::ChallengeTooLong => "challenge_too_long",
            Self::ChallengeMalformed => "challenge_malformed",
            Self::AlreadySettled => "already_settled",
            Self::AddressRefused => "address_refused",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::SignatureNotValid => "the handshake is signed and its signature is not valid: check the source's secret",
            Self::TokenMismatch => "the handshake brings another token than the source has: set the same one on both sides",
            Self::NotRequested => "the handshake is about something that this source did not ask for",
            Self::SettingMissing => "the handshake cannot be answered: set what it needs",
            Self::ChallengeTooLong => "the challenge is longer than any provider sends",
            Self::ChallengeMalformed => "the challenge is empty, repeated, or has characters that the provider never sends",
            Self::AlreadySettled => {
                "a secret was set up before: remove it from the source to let the provider set another one up"
            }
            Self::AddressRefused => "the address to confirm at is not one of the provider's",
        }
    }
}
