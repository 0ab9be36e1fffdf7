//! Where a challenge stands in a request, and which text may be one.

use super::{CHALLENGE_BYTES_MAX, HandshakeReason, Refused};
use crate::request::{View, parse_form};

/// Where something stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Query(&'static str),
    Header(&'static str),
    /// A JSON Pointer into the body.
    Json(&'static str),
    Form(&'static str),
}

/// What was found at a place.
pub(super) enum Found {
    Nothing,
    One(String),
    /// Several, or something that is not text: nobody can say which one is meant.
    Unclear,
}

impl At {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Query(name) | Self::Header(name) | Self::Json(name) | Self::Form(name) => name,
        }
    }

    pub(super) fn find(self, view: &View<'_>) -> Found {
        match self {
            Self::Query(name) => match parse_form(view.request.query()) {
                Some(fields) => one(fields, name),
                None => Found::Unclear,
            },
            Self::Header(name) => match view.header(name) {
                Ok(Some(value)) => Found::One(value.to_owned()),
                Ok(None) => Found::Nothing,
                Err(_) => Found::Unclear,
            },
            Self::Json(pointer) => match view.json().and_then(|json| json.pointer(pointer)) {
                Some(serde_json::Value::String(text)) => Found::One(text.clone()),
                Some(_) => Found::Unclear,
                None => Found::Nothing,
            },
            Self::Form(name) => view.form().map_or(Found::Nothing, |fields| one(fields.clone(), name)),
        }
    }
}

fn one(fields: Vec<(String, String)>, name: &str) -> Found {
    let mut named = fields.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    match (named.next(), named.next()) {
        (None, _) => Found::Nothing,
        (Some(value), None) => Found::One(value),
        (Some(_), Some(_)) => Found::Unclear,
    }
}

/// Which text a provider's challenge can be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Any text on one line; it is only echoed.
    Line,
    /// What may stand in a header: visible ASCII and spaces.
    HeaderValue,
    /// Letters, digits and what Base64, UUIDs and URNs need. Nothing that makes a JSON, XML or form body: our signature over it must
    /// not be worth anything as the signature of an event.
    Token,
    /// So many hexadecimal digits at least and at most.
    Hex(usize, usize),
}

impl Shape {
    pub(super) fn check(self, text: &str, place: &'static str) -> Result<(), Refused> {
        if text.len() > CHALLENGE_BYTES_MAX {
            return Err(Refused::new(400, HandshakeReason::ChallengeTooLong, place));
        }
        let is_fine = match self {
            Self::Line => !text.chars().any(char::is_control),
            Self::HeaderValue => text.bytes().all(|c| c == b' ' || c.is_ascii_graphic()),
            Self::Token => text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~+/=:".contains(&c)),
            Self::Hex(least, most) => (least..=most).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit()),
        };
        if text.is_empty() || !is_fine {
            return Err(Refused::new(400, HandshakeReason::ChallengeMalformed, place));
        }
        Ok(())
    }
}
