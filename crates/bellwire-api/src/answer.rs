//! Building answers: JSON bodies with a status.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::ApiError;

/// What every handler returns.
pub type Answer = Result<Response, ApiError>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Serializes an answer's body.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| ApiError::internal(format!("answer not serializable: {error}")))
}

/// An answer from ready JSON; an empty one is an answer without body.
pub fn from_bytes(status: StatusCode, bytes: Bytes) -> Response {
    let has_body = !bytes.is_empty();
    let mut response = Response::new(if has_body { Body::from(bytes) } else { Body::empty() });
    *response.status_mut() = status;
    if has_body {
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    }
    response
}

/// An answer with a JSON body.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    Ok(from_bytes(status, to_bytes(value)?))
}

/// 204.
pub fn no_content() -> Answer {
    Ok(from_bytes(StatusCode::NO_CONTENT, Bytes::new()))
}
