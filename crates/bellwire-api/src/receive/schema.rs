//! What an operator asks of bodies beyond being genuine: JSON, and a JSON Schema. What does not fulfil the schema is quarantined:
//! the sender is told success, the body is kept in the log, and no message is made.

use axum::response::Response;
use bellwire_core::limits;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::{Refused, Stop, Visit, entry, view};

/// Of a place in a body or schema, and of what is wrong with a schema.
const SHOWN_CHARS_MAX: usize = 256;

/// A compiled schema, or why it could not be.
pub type Schema = Result<jsonschema::Validator, String>;

/// Compiles a schema; references to other documents are not followed.
pub fn compile(schema: &Value) -> Schema {
    // Patterns are matched in linear time: the texts come from strangers.
    let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
    options.build(schema).map_err(|error| shown(&error))
}

pub async fn check(visit: &Visit<'_>, body: &Bytes) -> Result<(), Stop> {
    let ready = visit.ready;
    if ready.source.settings.require_json && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
        let detail = "the body is no JSON, and the source takes nothing else (requireJson)";
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "not_json", detail).into());
    }
    let Some(schema) = &ready.schema else { return Ok(()) };
    match finding_of(schema, &visit.parts.headers, body) {
        None => Ok(()),
        Some(finding) => Err(Stop::Answered(Box::new(quarantine(visit, body, finding).await?))),
    }
}

/// What keeps a body from fulfilling a schema; `None`: nothing does.
pub fn finding_of(schema: &Schema, headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let validator = match schema {
        Err(error) => return Some(format!("the source's schema cannot be used: {error}")),
        Ok(validator) => validator,
    };
    let Some(value) = view::of(headers, body) else {
        return Some("the body is nothing that a schema could be applied to".to_owned());
    };
    let error = validator.validate(&value).err()?;
    // The error's text quotes the body; the place does not.
    Some(format!("the body does not fulfil the schema at {:?} ({})", shown(&error.instance_path()), shown(&error.schema_path())))
}

/// The beginning of a text that may quote a whole body or schema.
fn shown(text: &impl ToString) -> String {
    text.to_string().chars().take(SHOWN_CHARS_MAX).collect()
}

/// Success is told only when the body is in the log.
async fn quarantine(visit: &Visit<'_>, body: &Bytes, finding: String) -> Result<Response, Stop> {
    if body.len() > limits::QUARANTINED_BYTES_MAX {
        let detail = format!("{finding}; too large to be quarantined ({} bytes)", body.len());
        return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "schema", detail).into());
    }
    let response = visit.ready.success()?;
    let mut entry = entry(visit, response.status(), "schema".to_owned(), finding);
    entry.payload = Some(body.clone());
    visit.api.store().add_receipts(vec![entry.into_receipt(visit.api.engine())]).await?;
    Ok(response)
}
