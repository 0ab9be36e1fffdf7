//! Taking in a body: bounded in bytes, in time, and together with all others in memory. Never decompressed.

use std::time::Duration;

use axum::body::Body;
use bellwire_core::limits;
use bytes::{Bytes, BytesMut};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::{Refused, Stop, Visit};
use crate::error::{ApiError, Code};

/// A body, and its place among all that are in memory.
pub struct Taken {
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Reads the whole body, at most `max` bytes.
pub async fn read(visit: &Visit<'_>, body: Body, max: usize) -> Result<Taken, Stop> {
    check_encoding(visit)?;
    let too_large = || {
        let detail = format!("the body is larger than the {max} bytes allowed (bodyBytesMax)");
        Stop::Refused(Refused { is_cut: true, ..Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail) })
    };
    let announced =
        visit.parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let whole = collect(visit, body, max, &too_large);
    tokio::time::timeout(Duration::from_secs(limits::SERVER_BODY_SECONDS_MAX), whole).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} seconds", limits::SERVER_BODY_SECONDS_MAX);
        Err(Refused { is_cut: true, ..Refused::new(StatusCode::REQUEST_TIMEOUT, "slow", detail) }.into())
    })
}

async fn collect(visit: &Visit<'_>, mut body: Body, max: usize, too_large: &impl Fn() -> Stop) -> Result<Taken, Stop> {
    let mut room: Option<OwnedSemaphorePermit> = None;
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let broken = |_| {
            Stop::Refused(Refused { is_cut: true, ..Refused::new(StatusCode::BAD_REQUEST, "broken_off", "the body broke off") })
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > max {
            return Err(too_large());
        }
        make_room(visit, &mut room, length)?;
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(Taken { bytes: if rest.is_empty() { first } else { rest.freeze() }, _room: room })
}

/// Room is taken as bytes come in, so that announcing much takes none from others.
fn make_room(visit: &Visit<'_>, room: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), Stop> {
    let wanted = length.div_ceil(1024);
    let has = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let Ok(more) = u32::try_from(wanted.saturating_sub(has)) else { return Err(busy()) };
    if more == 0 {
        return Ok(());
    }
    match visit.api.receive().room.clone().try_acquire_many_owned(more) {
        Ok(permit) => {
            match room {
                Some(room) => room.merge(permit),
                None => *room = Some(permit),
            }
            Ok(())
        }
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(busy()),
    }
}

fn busy() -> Stop {
    Stop::Fault(ApiError::new(Code::Busy, "too many bodies are being received; nothing was stored; retry"))
}

/// A compressed body may be a thousand times as large as it looks, and no provider signs what is inside.
fn check_encoding(visit: &Visit<'_>) -> Result<(), Stop> {
    for value in visit.parts.headers.get_all(header::CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        if !text.split(',').all(|coding| coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case("identity")) {
            let shown: String = text.chars().take(64).collect();
            let detail = format!("the body is encoded as {shown:?}; bodies are taken as they are, and never decompressed");
            return Err(Refused { is_cut: true, ..Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed", detail) }.into());
        }
    }
    Ok(())
}
