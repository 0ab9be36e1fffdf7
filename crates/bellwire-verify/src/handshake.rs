//! Handshakes: what providers ask of a URL before (and while) they send to it, decided without any I/O.
//!
//! [`Flow::judge`] looks at a request before it is taken as an event and says what to do with it; [`Flow::acknowledgement`] says what
//! a provider wants to read after an event was taken. The flows are a table ([`Flow::all`]); code stands only where a table
//! cannot say it.
//!
//! ```
//! use bellwire_verify::handshake::{Flow, Handshake, Knowledge, Signature};
//! use bellwire_verify::{Credentials, Request};
//!
//! let request = Request {
//!     method: "GET",
//!     url: "https://hooks.example.com/in/1?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock",
//!     headers: &[],
//!     body: b"",
//!     peer: None,
//! };
//! let credentials = Credentials::none().setting("verify_token", "meatyhamhock");
//! let flow = Flow::named("meta").ok_or("no such flow")?;
//! // Handshakes that the provider signs need `Signature::Valid`, which is what `Preset::verify` found.
//! match flow.judge(&request, &Knowledge::new(&credentials), Signature::NotValid) {
//!     Handshake::Answer(answer) => assert_eq!((answer.status, answer.body.as_str()), (200, "1158201444")),
//!     other => return Err(format!("{other:?}").into()),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What holds for all of them:
//!
//! * A handshake that the provider signs changes and answers nothing before its signature is valid.
//! * What is echoed is never `text/html`, is at most [`CHALLENGE_BYTES_MAX`] long, has no control characters, and is sent with
//!   `X-Content-Type-Options: nosniff`.
//! * Whoever may choose what we sign could have us sign events: challenges that are signed must look like tokens, never like a body.
//! * A secret that a handshake has set up is never replaced by a later one: the operator removes it first.

mod challenge;
mod confirm;
mod hook;
mod outcome;
mod step;
mod table;

use crate::request::View;
use crate::{Credentials, Request};

pub use outcome::{Answer, Handshake, HandshakeReason, Keep, Refused};
use step::Step;

/// Bytes of a challenge. The longest documented are Microsoft's validation tokens with a few hundred.
pub const CHALLENGE_BYTES_MAX: usize = 2_048;

/// What the caller found when it verified the request as an event of this provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// The preset took it.
    Valid,
    /// The preset refused it, or nothing could be verified.
    NotValid,
}

/// What the source knows: what operators set, and what earlier handshakes left.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    credentials: &'a Credentials,
    has_settled: bool,
    settled: Option<&'a str>,
}

impl<'a> Knowledge<'a> {
    /// Secrets and settings, and nothing left by an earlier handshake.
    pub fn new(credentials: &'a Credentials) -> Self {
        Self { credentials, has_settled: false, settled: None }
    }

    /// The secret that an earlier handshake of this source left ([`Keep::Secret`]); it is compared, never replaced.
    #[must_use]
    pub fn settled(mut self, secret: &'a str) -> Self {
        self.has_settled = true;
        self.settled = Some(secret);
        self
    }

    fn secret(&self) -> Result<&'a str, Refused> {
        let first = self.credentials.secrets.iter().find(|secret| !secret.trim().is_empty());
        first.map(String::as_str).ok_or_else(|| Refused::setting("secret"))
    }

    fn setting(&self, name: &'static str) -> Result<&'a str, Refused> {
        self.optional(name).ok_or_else(|| Refused::setting(name))
    }

    fn optional(&self, name: &str) -> Option<&'a str> {
        self.credentials.settings.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }
}

/// The handshake of one provider.
#[derive(Debug)]
pub struct Flow {
    id: &'static str,
    name: &'static str,
    /// Providers with this flow whose id is another one.
    also: &'static [&'static str],
    reply_within_s: Option<u64>,
    settings: &'static [&'static str],
    steps: &'static [Step],
    acknowledgement: step::Acknowledgement,
}

impl Flow {
    /// All flows, by no particular order.
    pub fn all() -> &'static [Flow] {
        table::FLOWS
    }

    /// The flow of that name; ids of providers and of single steps (`xero-bad`) are names too. Letter case counts.
    pub fn named(name: &str) -> Option<&'static Flow> {
        table::FLOWS.iter().find(|flow| flow.id == name || flow.also.contains(&name))
    }

    /// Its stable id (`slack`).
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// Its name for people (`Slack url_verification`).
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Seconds after which the provider gives up waiting, where it says so.
    pub fn reply_within_s(&self) -> Option<u64> {
        self.reply_within_s
    }

    /// The settings it looks at, beside secrets.
    pub fn settings(&self) -> &'static [&'static str] {
        self.settings
    }

    /// Decides about one request. `signature` is what verifying it as an event of this provider gave; flows that are not signed do
    /// not look at it. [`Handshake::NotOne`] means: an event, to be refused or taken as its signature says.
    pub fn judge(&self, request: &Request<'_>, knowledge: &Knowledge<'_>, signature: Signature) -> Handshake {
        let view = View::new(*request, None);
        for step in self.steps {
            if let Some(outcome) = step.judge(&view, knowledge, signature) {
                return outcome;
            }
        }
        Handshake::NotOne
    }

    /// What the provider wants to read once an event was taken: an empty 200 for most, certain words for some.
    pub fn acknowledgement(&self, credentials: &Credentials) -> Answer {
        self.acknowledgement.answer(&Knowledge::new(credentials))
    }
}
