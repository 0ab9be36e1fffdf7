//! One step of a flow: which requests it is about, what must hold before it is answered, and the answer. Data, mostly.

use super::challenge::{At, Found, Shape};
use super::{Answer, Handshake, HandshakeReason, Keep, Knowledge, Refused, Signature};
use crate::algorithm::is_equal;
use crate::request::View;

/// A condition for a request to be this step at all.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// Something is there and is this text.
    Is(At, &'static str),
    /// There is no body.
    EmptyBody,
    /// The body is JSON, and at the pointer stands this integer.
    JsonInteger(&'static str, i64),
    /// The body is JSON, and at the pointer stands an array without elements.
    JsonEmptyArray(&'static str),
    /// The body is a JSON object with these members and no others.
    JsonMembers(&'static [&'static str]),
    /// The JSON object has no such member.
    JsonLacks(&'static str),
    /// The body is a form with this field and no others.
    FormOnly(&'static str),
    /// The path ends so.
    PathEnd(&'static str),
}

/// What must hold before anything is answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Guard {
    /// The provider does not sign it.
    Open,
    /// The provider signs it as it signs events.
    Signed,
    /// Some versions of the provider sign it: if this header is there, the signature must be valid.
    SignedIf(&'static str),
    /// Something in the request must equal a setting; otherwise it is refused with the status.
    Agreed(At, &'static str, u16),
    /// Something in the request must be this text; otherwise it is refused with the status.
    Mode(At, &'static str, u16),
    /// The header must equal one of the secrets, otherwise 401.
    SecretIn(At),
}

/// What is answered.
#[derive(Clone, Copy)]
pub(super) enum Reply {
    Empty(u16),
    /// No body, but a content type, which the provider looks for.
    EmptyJson(u16),
    /// The challenge as plain text.
    Text,
    /// A JSON object with the challenge as the one member.
    Json(&'static str),
    /// A constant JSON text.
    Fixed(&'static str),
    /// The challenge in a header.
    Header(&'static str),
    /// The challenge becomes the secret; it is echoed in the header of the same name or shown to the operator.
    Settle {
        header: Option<&'static str>,
        name: &'static str,
        is_for_operator: bool,
    },
    /// What a table cannot say.
    Code(fn(&View<'_>, &Knowledge<'_>, &str) -> Result<Handshake, Refused>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty(_) | Self::EmptyJson(_) => "Empty",
            Self::Text => "Text",
            Self::Json(_) => "Json",
            Self::Fixed(_) => "Fixed",
            Self::Header(_) => "Header",
            Self::Settle { .. } => "Settle",
            Self::Code(_) => "Code",
        })
    }
}

#[derive(Debug)]
pub(super) struct Step {
    /// `*` for all.
    pub(super) method: &'static str,
    pub(super) when: &'static [When],
    pub(super) guards: &'static [Guard],
    /// The step is only for requests that have one.
    pub(super) challenge: Option<(At, Shape)>,
    pub(super) reply: Reply,
}

impl Step {
    /// `None` when the request is not about this step.
    pub(super) fn judge(&self, view: &View<'_>, knowledge: &Knowledge<'_>, signature: Signature) -> Option<Handshake> {
        if self.method != "*" && self.method != view.request.method {
            return None;
        }
        let found = self.challenge.map_or(Found::Nothing, |(at, _)| at.find(view));
        if self.challenge.is_some() && matches!(found, Found::Nothing) {
            return None;
        }
        if !self.when.iter().all(|when| when.holds(view)) {
            return None;
        }
        Some(self.answer(view, knowledge, signature, found).unwrap_or_else(Handshake::Refuse))
    }

    fn answer(
        &self,
        view: &View<'_>,
        knowledge: &Knowledge<'_>,
        signature: Signature,
        found: Found,
    ) -> Result<Handshake, Refused> {
        for guard in self.guards {
            guard.check(view, knowledge, signature)?;
        }
        let challenge = match (self.challenge, found) {
            (Some((at, shape)), Found::One(text)) => {
                shape.check(&text, at.name())?;
                text
            }
            (Some((at, _)), _) => return Err(Refused::new(400, HandshakeReason::ChallengeMalformed, at.name())),
            (None, _) => String::new(),
        };
        let answer = match self.reply {
            Reply::Empty(status) => Answer::empty(status),
            Reply::EmptyJson(status) => Answer::empty(status).with_header("Content-Type", "application/json"),
            Reply::Text => Answer::text(challenge),
            Reply::Json(member) => Answer::json(&serde_json::json!({ member: challenge })),
            Reply::Fixed(body) => Answer::empty(200).with_body("application/json", body.to_owned()),
            Reply::Header(name) => Answer::empty(200).with_header(name, challenge),
            Reply::Settle { header, name, is_for_operator } => {
                let answer = header
                    .map_or_else(|| Answer::empty(200), |header| Answer::empty(200).with_header(header, challenge.as_str()));
                match settle(knowledge, &challenge, name)? {
                    true => answer.keeping(Keep::Secret { name, value: challenge, is_for_operator }),
                    false => answer,
                }
            }
            Reply::Code(hook) => return hook(view, knowledge, &challenge),
        };
        Ok(Handshake::Answer(answer))
    }
}

/// Whether the secret is new. One that is known may come again; another one is refused, because anybody who knows the URL can send one.
fn settle(knowledge: &Knowledge<'_>, secret: &str, name: &'static str) -> Result<bool, Refused> {
    let known = knowledge.credentials.secrets.iter().map(String::as_str).chain(knowledge.settled);
    let mut has_known = false;
    for known in known.filter(|known| !known.is_empty()) {
        if is_equal(known.as_bytes(), secret.as_bytes()) {
            return Ok(false);
        }
        has_known = true;
    }
    if has_known || knowledge.has_settled {
        return Err(Refused::new(403, HandshakeReason::AlreadySettled, name));
    }
    Ok(true)
}

impl When {
    fn holds(self, view: &View<'_>) -> bool {
        match self {
            Self::Is(at, text) => matches!(at.find(view), Found::One(found) if found == text),
            Self::EmptyBody => view.request.body.is_empty(),
            Self::JsonInteger(pointer, integer) => {
                view.json().and_then(|json| json.pointer(pointer)).and_then(serde_json::Value::as_i64) == Some(integer)
            }
            Self::JsonEmptyArray(pointer) => {
                let array = view.json().and_then(|json| json.pointer(pointer)).and_then(serde_json::Value::as_array);
                array.is_some_and(Vec::is_empty)
            }
            Self::JsonMembers(members) => view
                .json()
                .and_then(serde_json::Value::as_object)
                .is_some_and(|object| object.len() == members.len() && members.iter().all(|member| object.contains_key(*member))),
            Self::JsonLacks(member) => {
                view.json().and_then(serde_json::Value::as_object).is_some_and(|object| !object.contains_key(member))
            }
            Self::FormOnly(name) => view.form().is_some_and(|fields| matches!(fields.as_slice(), [(key, _)] if key == name)),
            Self::PathEnd(end) => view.request.path().ends_with(end),
        }
    }
}

impl Guard {
    fn check(self, view: &View<'_>, knowledge: &Knowledge<'_>, signature: Signature) -> Result<(), Refused> {
        let is_signed = match self {
            Self::Open => false,
            Self::Signed => true,
            Self::SignedIf(header) => !matches!(At::Header(header).find(view), Found::Nothing),
            Self::Agreed(at, setting, status) => {
                let agreed = knowledge.setting(setting)?;
                return match at.find(view) {
                    Found::One(token) if is_equal(token.as_bytes(), agreed.as_bytes()) => Ok(()),
                    _ => Err(Refused::new(status, HandshakeReason::TokenMismatch, at.name())),
                };
            }
            Self::Mode(at, text, status) => {
                return match at.find(view) {
                    Found::One(found) if found == text => Ok(()),
                    _ => Err(Refused::new(status, HandshakeReason::NotRequested, at.name())),
                };
            }
            Self::SecretIn(at) => {
                let Found::One(given) = at.find(view) else {
                    return Err(Refused::new(401, HandshakeReason::TokenMismatch, at.name()));
                };
                let mut is_one = false;
                for secret in knowledge.credentials.secrets.iter().filter(|secret| !secret.trim().is_empty()) {
                    is_one |= is_equal(secret.as_bytes(), given.as_bytes());
                }
                return is_one.then_some(()).ok_or_else(|| Refused::new(401, HandshakeReason::TokenMismatch, at.name()));
            }
        };
        match (is_signed, signature) {
            (true, Signature::NotValid) => Err(Refused::signature()),
            _ => Ok(()),
        }
    }
}

/// What is answered to an event that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Acknowledgement {
    Empty,
    /// A content type and certain words.
    Words(&'static str, &'static str),
    /// A header with the value of a setting.
    HeaderOf(&'static str, &'static str),
    /// A header with the secret itself: for providers whose secret is an id that they want to read again.
    SecretIn(&'static str),
}

impl Acknowledgement {
    pub(super) fn answer(self, knowledge: &Knowledge<'_>) -> Answer {
        match self {
            Self::Empty => Answer::empty(200),
            Self::Words(content_type, body) => Answer::empty(200).with_header("Content-Type", content_type).with_words(body),
            Self::HeaderOf(header, setting) => match knowledge.optional(setting) {
                Some(value) => Answer::empty(200).with_header(header, value),
                None => Answer::empty(200),
            },
            Self::SecretIn(header) => match knowledge.secret() {
                Ok(secret) => Answer::empty(200).with_header(header, secret),
                Err(_) => Answer::empty(200),
            },
        }
    }
}

impl Answer {
    fn with_words(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }
}
