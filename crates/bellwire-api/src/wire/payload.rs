//! Payloads: JSON objects whose bytes are passed through as they came.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

/// What stands in the place of a payload that is not asked for.
pub const EMPTY: &str = "{}";
/// What stands in the place of a payload that was deleted or has expired (as Svix has it).
pub const EXPIRED: &str = r#"{"expired":true}"#;

/// A payload for an answer: shown as the exact bytes it has.
#[derive(Debug)]
pub enum PayloadOut<'a> {
    Raw(&'a RawValue),
    Kept(Bytes),
    Fixed(&'static str),
}

impl PayloadOut<'_> {
    pub fn of(payload: Option<Bytes>, with_content: bool) -> Self {
        match payload {
            _ if !with_content => Self::Fixed(EMPTY),
            Some(bytes) => Self::Kept(bytes),
            None => Self::Fixed(EXPIRED),
        }
    }
}

impl Serialize for PayloadOut<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Raw(raw) => raw.serialize(serializer),
            // Raw JSON must be known to be JSON: one pass over the bytes, without building anything.
            Self::Kept(bytes) => match serde_json::from_slice::<&RawValue>(bytes) {
                Ok(raw) => raw.serialize(serializer),
                Err(_) => serializer.collect_map([("raw", String::from_utf8_lossy(bytes))]),
            },
            Self::Fixed(text) => {
                serde_json::from_str::<&RawValue>(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
            }
        }
    }
}
