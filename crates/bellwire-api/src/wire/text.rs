//! Texts with a form: each type checks itself when read, and describes itself in the OpenAPI document.

use std::fmt;
use std::str::FromStr;

use bellwire_core::limits;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What a text may be: its length in characters and the characters beside letters and digits (`None`: any).
struct Form {
    what: &'static str,
    chars_min: usize,
    chars_max: usize,
    also: Option<&'static str>,
    /// For the document only, where the form is checked elsewhere.
    shown: Option<&'static str>,
}

impl Form {
    fn check(&self, text: &str) -> Result<(), String> {
        // Most texts are short: their bytes are at least as many as their characters.
        let chars =
            if text.len() <= self.chars_max && text.len() >= 4 * self.chars_min { text.len() } else { text.chars().count() };
        let (what, min, max) = (self.what, self.chars_min, self.chars_max);
        if chars < min || chars > max {
            return Err(format!("{what} has {chars} characters; {min} to {max} are allowed"));
        }
        let Some(also) = self.also else {
            // No database keeps it in a text.
            return if text.contains('\0') { Err(format!("{what} has a NUL character, which is not allowed")) } else { Ok(()) };
        };
        if text.bytes().all(|c| c.is_ascii_alphanumeric() || also.as_bytes().contains(&c)) {
            return Ok(());
        }
        let shown: String = text.chars().take(64).collect();
        Err(format!("{what} {shown:?} has characters other than letters, digits and {also}"))
    }

    fn pattern(&self) -> Option<String> {
        if let Some(shown) = self.shown {
            return Some(shown.to_owned());
        }
        let Some(also) = self.also else { return Some(r"^[^\u0000]*$".to_owned()) };
        let also = also.replace('\\', r"\\").replace('-', r"\-");
        Some(format!("^[a-zA-Z0-9{also}]{}$", if self.chars_min == 0 { '*' } else { '+' }))
    }

    fn schema(&self) -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(self.chars_min))
            .max_length(Some(self.chars_max))
            .pattern(self.pattern())
            .into()
    }
}

const fn first(of: &[&'static str]) -> Option<&'static str> {
    match of {
        [first, ..] => Some(first),
        [] => None,
    }
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $what:literal, $min:expr, $max:expr, $also:expr $(, shown $shown:literal)?;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            const FORM: Form = Form {
                what: $what,
                chars_min: $min,
                chars_max: $max,
                also: $also,
                shown: first(&[$($shown)?]),
            };

            /// Whether a borrowed text has this form; the error says why not.
            pub fn check(text: &str) -> Result<(), String> {
                Self::FORM.check(text)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::FORM.check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::FORM.check(&text).map_err(serde::de::Error::custom)?;
                Ok(Self(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self { text.0 }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> { Self::FORM.schema() }
        }

        impl ToSchema for $name {}
    )+};
}

texts! {
    /// The caller's own id of an application or endpoint.
    Uid = "the uid", 1, limits::UID_CHARS_MAX, Some("-_.");
    /// An id or a uid in a path.
    IdOrUid = "the id or uid", 1, limits::UID_CHARS_MAX, Some("-_.");
    /// The caller's own id of a message.
    EventId = "the event id", 1, limits::UID_CHARS_MAX, Some("-_.");
    EventTypeName = "the event type", 1, limits::EVENT_TYPE_CHARS_MAX, Some("-_.");
    Channel = "the channel", 1, limits::CHANNEL_CHARS_MAX, Some("-_.:+");
    Tag = "the tag", 1, limits::TAG_CHARS_MAX, Some("-_./\\#");
    GroupName = "the group name", 1, limits::EVENT_TYPE_CHARS_MAX, Some("-_.");
    FeatureFlag = "the feature flag", 1, limits::FEATURE_FLAG_CHARS_MAX, Some("-_.");
    SessionId = "the session id", 1, limits::SESSION_ID_CHARS_MAX, Some("@_-");
    Name = "the name", 1, limits::NAME_CHARS_MAX, None;
    ApiKeyName = "the name", 1, limits::API_KEY_NAME_CHARS_MAX, None;
    Description = "the description", 0, limits::DESCRIPTION_CHARS_MAX, None;
    /// Judged further by the egress policy.
    EndpointUrl = "the url", 1, limits::URL_BYTES_MAX, None, shown "^[hH][tT][tT][pP][sS]?://";
    /// `whsec_` (HMAC-SHA256) or `whsk_` (Ed25519) and base64; judged further by `bellwire-verify`.
    SecretText = "the secret", 32, 106, None, shown "^(whsec_|whsk_|whsk1_)?[a-zA-Z0-9+/]{32,98}={0,2}$";
}

/// A date-time, RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime(pub bellwire_core::Timestamp);

impl Serialize for DateTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DateTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        bellwire_core::Timestamp::parse_rfc3339(&text).map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            serde::de::Error::custom(format!("{shown:?} is not a date-time such as 2026-11-20T10:00:00Z (RFC 3339)"))
        })
    }
}

impl PartialSchema for DateTime {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into()
    }
}

impl ToSchema for DateTime {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_characters_and_bounds_are_named() {
        assert!(Uid::check("a").is_ok() && Uid::check(&"a".repeat(256)).is_ok());
        assert!(Uid::check("").unwrap_err().contains("1 to 256"));
        assert!(Uid::check(&"a".repeat(257)).unwrap_err().contains("1 to 256"));
        assert!(Name::check(&"é".repeat(limits::NAME_CHARS_MAX)).is_ok(), "characters are counted, not bytes");
        assert!(Name::check("a\0b").unwrap_err().contains("NUL") && Description::check("\0").is_err());
        assert!(Uid::check("a/b").is_err() && Uid::check("a b").is_err() && Uid::check("é").is_err());
        assert!(Tag::check(r"a/b\c#d").is_ok() && Channel::check("a:b+c").is_ok());
    }
}
