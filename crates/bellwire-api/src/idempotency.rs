//! `idempotency-key`: the same key with the same request gives the same answer for 24 hours, also when sent many times at once.

use aws_lc_rs::digest::{Context, SHA256};
use axum::response::Response;
use bellwire_core::{OrgId, limits};
use bellwire_store::idempotency::WINDOW;
use bellwire_store::{Idempotency, IdempotencyRecord, Written};
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::MutexGuard;

use crate::answer;
use crate::call::Call;
use crate::error::ApiError;

pub const HEADER: &str = "idempotency-key";

/// Where a POST stands that may have been made before.
pub enum Begun<'a> {
    /// It was: this is the answer of that time.
    Replay(Response),
    Go(Pending<'a>),
}

/// A POST that is being made. While it lives, others with the same key wait.
pub struct Pending<'a> {
    org: OrgId,
    idempotency: Option<Idempotency>,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Pending<'_> {
    /// The record that must commit together with what the request does.
    pub fn record(&self, status: StatusCode, response: &Bytes) -> Option<IdempotencyRecord> {
        let idempotency = self.idempotency?;
        Some(IdempotencyRecord { org: self.org, idempotency, status: status.as_u16(), response: response.clone() })
    }
}

/// The answer after a write: what was just made, or what the key stands for.
pub fn answer_of<T>(written: Written<T>, status: StatusCode, bytes: Bytes) -> Response {
    match written {
        Written::Fresh(_) => answer::from_bytes(status, bytes),
        Written::Replayed { status, response } => replay(status, response),
    }
}

fn replay(status: u16, response: Bytes) -> Response {
    answer::from_bytes(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), response)
}

/// The key of this request, if it has one. `None` without.
///
/// # Errors
/// 422 for a key that is empty, too long or not visible ASCII.
pub fn key_of(call: &Call, body: &[u8]) -> Result<Option<Idempotency>, ApiError> {
    let Some(value) = call.headers().get(HEADER) else { return Ok(None) };
    let wrong = |msg: String| ApiError::invalid(&["header", HEADER], msg, "value_error");
    let key = value.as_bytes();
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(wrong(format!("the key has {} bytes; 1 to {} are allowed", key.len(), limits::IDEMPOTENCY_KEY_BYTES_MAX)));
    }
    if !key.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return Err(wrong("the key may hold visible ASCII characters and spaces only".into()));
    }
    let hash = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA256);
        for part in parts {
            // Lengths between the parts, so that no two different lists of parts hash alike.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; 16];
        out.copy_from_slice(&context.finish().as_ref()[..16]);
        out
    };
    let org = call.principal()?.org.to_string();
    Ok(Some(Idempotency {
        key: hash(&[org.as_bytes(), call.method().as_str().as_bytes(), call.path().as_bytes(), key]),
        request: hash(&[call.query_text().as_bytes(), body]),
        expires_at: call.now().plus(WINDOW),
        window: WINDOW,
    }))
}

/// Begins a POST (of anything but messages, whose keys live with them): replays, or takes the turn.
///
/// # Errors
/// 409 when the key was used with another request; those of the store.
pub async fn begin<'a>(call: &'a Call, body: &[u8]) -> Result<Begun<'a>, ApiError> {
    let org = call.principal()?.org;
    let Some(idempotency) = key_of(call, body)? else {
        return Ok(Begun::Go(Pending { org, idempotency: None, _turn: None }));
    };
    let turn = call.api().key_locks().lock(idempotency.key).await?;
    match call.api().store().find_idempotent(&idempotency, call.now()).await? {
        Some((status, response)) => Ok(Begun::Replay(replay(status, response))),
        None => Ok(Begun::Go(Pending { org, idempotency: Some(idempotency), _turn: Some(turn) })),
    }
}
