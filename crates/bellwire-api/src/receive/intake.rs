//! Taking in a body: bounded in bytes, in time, and together with all others in memory. Never decompressed.

use std::time::Duration;

use axum::body::Body;
use bellwire_core::limits;
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::room::{Full, Held};
use super::{Refused, Stop, Visit};
use crate::error::{ApiError, Code};

/// Of a body of known length, the part (one in four) that must have come before memory for all of it is taken.
const ANNOUNCED_PART: usize = 4;
const PIECE_BYTES_MIN: usize = 1024;
/// Large enough that the allocator gives its pages back soon after it is freed; of pieces of 64 KiB it kept nearly all.
const PIECE_BYTES_MAX: usize = 1024 * 1024;

/// A body, and its place among all that are in memory.
pub struct Taken<'v> {
    pub bytes: Bytes,
    _held: Held<'v>,
}

/// How large the body is, if the head says so.
pub fn announced(visit: &Visit<'_>) -> Option<u64> {
    visit.parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok())
}

/// Reads the whole body, at most `max` bytes.
pub async fn read<'v>(visit: &Visit<'v>, body: Body, max: usize) -> Result<Taken<'v>, Stop> {
    check_encoding(visit)?;
    let too_large = || {
        let detail = format!("the body is larger than the {max} bytes allowed (bodyBytesMax)");
        Stop::Refused(Refused { is_cut: true, ..Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail) })
    };
    if announced(visit).is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let whole = collect(visit, body, max, &too_large);
    tokio::time::timeout(Duration::from_secs(limits::SERVER_BODY_SECONDS_MAX), whole).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} seconds", limits::SERVER_BODY_SECONDS_MAX);
        Err(Refused { is_cut: true, ..Refused::new(StatusCode::REQUEST_TIMEOUT, "slow", detail) }.into())
    })
}

async fn collect<'v>(visit: &Visit<'v>, mut body: Body, max: usize, too_large: &impl Fn() -> Stop) -> Result<Taken<'v>, Stop> {
    let mut held = Held::none(&visit.api.receive().room, &visit.ready.share);
    let mut first = Bytes::new();
    let mut pieces = Pieces::default();
    while let Some(frame) = body.frame().await {
        let broken = |_| {
            Stop::Refused(Refused { is_cut: true, ..Refused::new(StatusCode::BAD_REQUEST, "broken_off", "the body broke off") })
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if first.len() + pieces.len() + data.len() > max {
            return Err(too_large());
        }
        // What may still come, if that was announced.
        let rest = body.size_hint().exact().and_then(|rest| usize::try_from(rest).ok());
        if pieces.is_empty() && first.is_empty() && rest.is_none_or(|rest| rest == 0) {
            // The whole body, most likely: no copy. What it keeps of the connection's read buffer is the connection's.
            held.grow(data.len()).map_err(busy)?;
            first = data;
            if rest == Some(0) {
                break;
            }
            continue;
        }
        if !first.is_empty() {
            pieces
                .push(&mut held, &std::mem::take(&mut first), rest.map(|rest| rest.saturating_add(data.len())))
                .map_err(busy)?;
            held.shrink_to(pieces.allocated());
        }
        pieces.push(&mut held, &data, rest).map_err(busy)?;
    }
    let bytes = if pieces.is_empty() { first } else { pieces.join(&mut held).map_err(busy)? };
    Ok(Taken { bytes, _held: held })
}

/// A body on its way: what has come of it, in pieces that never move, so that no more is allocated than is counted.
#[derive(Default)]
struct Pieces {
    all: Vec<Vec<u8>>,
    length: usize,
}

impl Pieces {
    fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn len(&self) -> usize {
        self.length
    }

    fn allocated(&self) -> usize {
        self.all.iter().map(Vec::capacity).sum()
    }

    /// Takes more; `rest` is what comes after it, if that is known.
    fn push(&mut self, held: &mut Held<'_>, mut data: &[u8], rest: Option<usize>) -> Result<(), Full> {
        let come = self.length + data.len();
        if let Some(whole) = rest.map(|rest| rest.saturating_add(come))
            && whole > self.allocated()
            && come >= whole / ANNOUNCED_PART
        {
            // Most of it will come: it is put together at once. Earlier, announcing would take memory from others.
            self.gather(held, whole)?;
        }
        loop {
            if let Some(last) = self.all.last_mut() {
                let (now, later) = data.split_at(data.len().min(last.capacity() - last.len()));
                last.extend_from_slice(now);
                self.length += now.len();
                data = later;
            }
            if data.is_empty() {
                return Ok(());
            }
            // At most as much again as there is: a slow sender of little holds little. Powers of two are what allocators give out.
            let most = 1_usize << data.len().max(self.length).ilog2();
            let size = most.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
            held.grow(size)?;
            self.all.push(Vec::with_capacity(size));
        }
    }

    /// Moves everything into one piece of this size; each is freed when it has been copied.
    fn gather(&mut self, held: &mut Held<'_>, size: usize) -> Result<(), Full> {
        held.grow(size)?;
        let mut one = Vec::with_capacity(size);
        for piece in std::mem::take(&mut self.all) {
            one.extend_from_slice(&piece);
        }
        held.shrink_to(one.capacity());
        self.all.push(one);
        Ok(())
    }

    fn join(mut self, held: &mut Held<'_>) -> Result<Bytes, Full> {
        if self.all.len() > 1 {
            self.gather(held, self.length)?;
        }
        Ok(self.all.pop().unwrap_or_default().into())
    }
}

fn busy(_: Full) -> Stop {
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

#[cfg(test)]
mod tests {
    use super::super::room::Room;
    use super::*;

    const SHARE: usize = limits::RECEIVED_BODIES_OF_SOURCE_BYTES_MAX;

    /// Takes a body in frames of these sizes; the most that was held, and what came out.
    fn take(frames: impl IntoIterator<Item = usize>, announced: Option<usize>) -> (usize, Result<Bytes, Full>) {
        let (room, share) = (Room::new(), Room::share());
        let mut held = Held::none(&room, &share);
        let (mut pieces, mut most, mut sent) = (Pieces::default(), 0, 0);
        for size in frames {
            let frame: Vec<u8> = (sent..sent + size).map(|n| n as u8).collect();
            sent += size;
            if let Err(full) = pieces.push(&mut held, &frame, announced.map(|whole| whole - sent)) {
                assert!(pieces.allocated() <= held.bytes());
                return (held.bytes(), Err(full));
            }
            most = most.max(held.bytes());
            assert!(pieces.allocated() <= held.bytes(), "{} bytes are allocated, {} counted", pieces.allocated(), held.bytes());
            assert!(held.bytes() <= 2 * sent + 2 * PIECE_BYTES_MIN || announced.is_some(), "{} of {sent}", held.bytes());
            assert_eq!(limits::RECEIVED_BODIES_BYTES_MAX - room.free(), held.bytes());
        }
        let free = room.free();
        let whole = pieces.join(&mut held);
        if let Ok(bytes) = &whole {
            assert!(
                bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8) && bytes.len() == sent,
                "{sent} bytes came out wrong"
            );
            assert!(bytes.len() <= held.bytes());
        }
        assert!(room.free() <= free + sent, "more is given back than was taken");
        drop(held);
        assert_eq!(room.free(), limits::RECEIVED_BODIES_BYTES_MAX);
        (most, whole)
    }

    /// Broken: bodies hold more memory than is counted for them, or come out other than they came in.
    #[test]
    fn what_a_body_holds_is_counted_however_it_comes() {
        let mut seed = 7_u32;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        for round in 0..50 {
            let frames: Vec<usize> = (0..next(40)).map(|_| next([2, 100, 8_192, 32_768, 70_000][round % 5])).collect();
            let whole: usize = frames.iter().sum();
            for announced in [None, Some(whole), Some(whole + 10)] {
                let (_, taken) = take(frames.clone(), announced);
                assert_eq!(taken.unwrap().len(), whole);
            }
        }
    }

    /// Broken: the largest body is not taken though nothing else is in memory, or it takes more than it must.
    #[test]
    fn the_largest_body_fits_and_is_copied_once_at_most() {
        let whole = limits::RECEIVED_BODY_BYTES_MAX;
        let frames = || std::iter::repeat_n(32 * 1024, whole / (32 * 1024));
        let (most, taken) = take(frames(), Some(whole));
        assert_eq!(taken.map(|bytes| bytes.len()), Ok(whole));
        assert!(most <= whole + 1024, "{most} are held for {whole}");
        assert_eq!(take(frames(), None).1.map(|bytes| bytes.len()), Ok(whole));
    }

    /// Broken: announcing much takes memory from others.
    #[test]
    fn who_announces_much_and_sends_little_holds_little() {
        for sent in [1, 1_000, 60_000] {
            let (most, _) = take([sent], Some(26 * 1024 * 1024));
            assert!(most <= 2 * sent + 2 * PIECE_BYTES_MIN, "{most} for {sent}");
        }
    }

    /// Broken: a body without an end takes everything.
    #[test]
    fn one_source_ends_at_its_share() {
        let (held, taken) = take(std::iter::repeat_n(32 * 1024, 1 << 20), None);
        assert_eq!(taken, Err(Full));
        assert!(held <= SHARE && held > SHARE - PIECE_BYTES_MAX, "{held}");
    }
}
