//! Reading request bodies: bounded in bytes and in time, and as JSON whose faults are named by their place.

use std::time::Duration;

use axum::body::Body;
use bellwire_core::limits;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::Deserialize;

use crate::error::{ApiError, Code, Invalid};

/// Of a place or a text about a fault, in characters: both quote what was sent, which may be a megabyte.
const PLACE_CHARS_MAX: usize = 64;
const PLACES_MAX: usize = 16;
const TEXT_CHARS_MAX: usize = 512;

/// Reads a whole body of at most `max` bytes. What is announced as larger is refused before it is read.
///
/// # Errors
/// 413, 408 after [`limits::SERVER_BODY_SECONDS_MAX`], 400 when it breaks off.
pub async fn read(mut body: Body, headers: &HeaderMap, max: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let text = format!("the body is larger than the {max} bytes allowed here; nothing was stored");
        ApiError::new(Code::PayloadTooLarge, text)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let whole = async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| ApiError::new(Code::BadRequest, "the body broke off; send the request again, whole"))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + rest.len() + data.len() > max {
                return Err(too_large());
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    };
    tokio::time::timeout(Duration::from_secs(limits::SERVER_BODY_SECONDS_MAX), whole).await.unwrap_or_else(|_| {
        let text = format!("the body did not arrive within {} seconds", limits::SERVER_BODY_SECONDS_MAX);
        Err(ApiError::new(Code::RequestTimeout, text))
    })
}

/// Refuses bodies that say they are something else than JSON. None said: JSON.
///
/// # Errors
/// 415.
pub fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    if text == "application/json" {
        return Ok(());
    }
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let shown: String = text.chars().take(64).collect();
    Err(ApiError::new(Code::UnsupportedMediaType, format!("the body is {shown:?}; send `Content-Type: application/json`")))
}

/// Refuses bodies that say they are compressed: taken as they stand, they would be called broken JSON.
///
/// # Errors
/// 415.
pub fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let is_plain = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
        if !text.split(',').all(|coding| is_plain(coding.trim())) {
            let shown: String = text.chars().take(64).collect();
            let text = format!("the body is encoded as {shown:?}; send it as plain JSON, without a Content-Encoding");
            return Err(ApiError::new(Code::UnsupportedMediaType, text));
        }
    }
    Ok(())
}

/// Reads JSON into a wire type.
///
/// # Errors
/// 422 with the place of the fault (`["body", "url"]`).
pub fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, ApiError> {
    // Without this an array would be taken for an object's fields in their order.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let msg = "invalid type: an array, expected a JSON object".to_owned();
        return Err(invalid(vec!["body".to_owned()], msg, "type_error"));
    }
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        // Only a fault is worth the bookkeeping of paths.
        Err(error) => Err(locate::<T>(bytes, &error)),
    }
}

fn locate<'de, T: Deserialize<'de>>(bytes: &'de [u8], error: &serde_json::Error) -> ApiError {
    let mut loc = vec!["body".to_owned()];
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return invalid(loc, "the body is empty; a JSON object is expected".into(), "value_error.missing");
    }
    if !error.is_data() {
        return invalid(loc, format!("the body is not valid JSON: {error}"), "value_error.jsondecode");
    }
    let mut text = error.to_string();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    if let Err(located) = serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        for segment in located.path().iter() {
            match segment {
                serde_path_to_error::Segment::Map { key } => loc.push(key.clone()),
                serde_path_to_error::Segment::Seq { index } => loc.push(index.to_string()),
                serde_path_to_error::Segment::Enum { variant } => loc.push(variant.clone()),
                serde_path_to_error::Segment::Unknown => {}
            }
        }
        text = located.into_inner().to_string();
    }
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    // The name of a missing or repeated field belongs to the place.
    let named = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| text.strip_prefix(start))
        .map(|rest| rest.trim_end_matches('`').to_owned());
    let kind = match () {
        () if text.starts_with("missing field") => "value_error.missing",
        () if text.starts_with("invalid type") => "type_error",
        () => "value_error",
    };
    if let Some(field) = named
        && loc.last() != Some(&field)
    {
        loc.push(field);
    }
    invalid(loc, text, kind)
}

fn invalid(mut loc: Vec<String>, mut msg: String, kind: &'static str) -> ApiError {
    loc.truncate(PLACES_MAX);
    loc.iter_mut().for_each(|place| shorten(place, PLACE_CHARS_MAX));
    shorten(&mut msg, TEXT_CHARS_MAX);
    ApiError::Invalid(vec![Invalid { loc, msg, kind: kind.into() }])
}

/// Cuts a text after so many characters, and says so.
fn shorten(text: &mut String, chars_max: usize) {
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::endpoint::EndpointIn;
    use crate::wire::endpoint_part::{EndpointHeadersIn, EndpointHeadersPatchIn};

    fn finding(json: &str) -> Invalid {
        match parse::<EndpointIn>(json.as_bytes()) {
            Err(ApiError::Invalid(mut findings)) => findings.remove(0),
            other => panic!("{json} gave {other:?}"),
        }
    }

    /// Broken: a fault in a megabyte of text is told with all of it.
    #[test]
    fn faults_are_told_in_few_words() {
        let long = "x".repeat(100_000);
        let found = finding(&format!(r#"{{"url": "https://a.example", "throttleRate": "{long}"}}"#));
        assert_eq!((found.loc.len(), found.msg.chars().count()), (2, TEXT_CHARS_MAX + 1));
        let found = finding(&format!(r#"{{"url": "https://a.example", "metadata": {{"{long}": 5}}}}"#));
        assert!(found.loc.iter().all(|place| place.len() <= PLACE_CHARS_MAX + 3), "{:?}", found.loc.last());
    }

    /// Broken: an endpoint has one header twice, or tens of thousands of them are compared with each other.
    #[test]
    fn two_spellings_of_a_header_are_one_and_many_headers_are_refused_by_their_number() {
        let json = br#"{"headers": {"X-A": "1", "x-a": null, "x-b": "2"}}"#;
        let patch: EndpointHeadersPatchIn = parse(json).unwrap();
        assert_eq!(patch.headers.into_iter().collect::<Vec<_>>(), [("x-a".into(), None), ("x-b".into(), Some("2".into()))]);
        let many: Vec<String> = (0..80_000).map(|number| format!("\"x{number:07}\": \"\"")).collect();
        let json = format!("{{\"headers\": {{{}}}}}", many.join(","));
        for found in [parse::<EndpointHeadersIn>(json.as_bytes()).err(), parse::<EndpointHeadersPatchIn>(json.as_bytes()).err()] {
            assert!(found.is_some_and(|error| error.to_string().contains("80000 headers are too many")));
        }
    }

    #[test]
    fn faults_are_named_by_their_place() {
        let found = finding(r#"{"url": 5}"#);
        assert_eq!((found.loc, &*found.kind), (vec!["body".to_owned(), "url".into()], "type_error"));
        let found = finding(r#"{}"#);
        assert_eq!((found.loc, &*found.kind), (vec!["body".to_owned(), "url".into()], "value_error.missing"));
        let found = finding(r#"{"url": "https://a.example", "channels": ["ok", "not ok"]}"#);
        assert_eq!(found.loc, ["body", "channels", "1"]);
        let found = finding(r#"{"url": "https://a.example", "url": "https://b.example"}"#);
        assert_eq!(found.loc, ["body", "url"]);
        assert_eq!(&*finding("{").kind, "value_error.jsondecode");
        assert_eq!(&*finding(" ").kind, "value_error.missing");
        assert_eq!(finding(r#"["https://a.example"]"#).loc, ["body"], "an array passes for an object");
        assert_eq!(&*finding(&"[".repeat(1_000_000)).kind, "type_error", "deep nesting must not use up the stack");
    }
}
