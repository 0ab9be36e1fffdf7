//! HTTP/1.1 requests over one connection: write head and body in one go, read the answer into a buffer that is reused.
//!
//! A usual exchange costs one write, one read, one timer and, beyond the answer's body, no allocation. The exchange tracks
//! how far it came, so that an answer whose head arrived counts even when its body never ends.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bellwire_core::limits;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::chunked::ChunkDecoder;
use super::response::{Framing, ResponseHead, parse_head};
use super::{Phase, Response, ResponseLimits, TransportError};

/// One connection that speaks HTTP/1.1, one exchange at a time.
pub(super) struct Http1<S> {
    stream: S,
    /// Always as long as its room; the bytes from `start` to `end` are read but not yet used.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    is_reusable: bool,
    exchanges: u64,
    /// Bytes that heads were looked for in, those that were looked at again included: what receivers make us work.
    scanned_bytes: u64,
    limits: ResponseLimits,
}

/// How far an exchange has come: what is left of it when time is up or the connection breaks.
struct Progress {
    phase: Phase,
    head: Option<ResponseHead>,
    body: Body,
}

/// The kept part of a body.
struct Body {
    kept: Bytes,
    /// Used instead of `kept` when the body comes in several reads.
    parts: Vec<u8>,
    is_truncated: bool,
    is_complete: bool,
}

impl Body {
    fn push(&mut self, data: &[u8], kept_bytes: usize) {
        let room = kept_bytes.saturating_sub(self.parts.len()).min(data.len());
        self.parts.extend_from_slice(&data[..room]);
        self.is_truncated |= room < data.len();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1<S> {
    pub(super) fn new(stream: S, limits: ResponseLimits) -> Self {
        Self {
            stream,
            buffer: vec![0; limits::CONNECTION_BUFFER_BYTES],
            start: 0,
            end: 0,
            is_reusable: true,
            exchanges: 0,
            scanned_bytes: 0,
            limits,
        }
    }

    /// The last exchange ended cleanly and the receiver did not ask for the connection to be closed.
    pub(super) fn is_reusable(&self) -> bool {
        self.is_reusable
    }

    pub(super) fn scanned_bytes(&self) -> u64 {
        self.scanned_bytes
    }

    /// Sends one request and reads its answer, all before `deadline`. `head` ends with a blank line and announces `body`.
    pub(super) async fn exchange(&mut self, head: &[u8], body: &[u8], deadline: Instant) -> Result<Response, TransportError> {
        let is_reused = self.exchanges > 0;
        self.exchanges += 1;
        // Also when this future is dropped half-way: only a complete answer makes the connection usable again.
        if !std::mem::replace(&mut self.is_reusable, false) {
            return Err(TransportError::Closed { response_started: false, is_reused });
        }
        let mut progress = Progress {
            phase: Phase::Write,
            head: None,
            body: Body { kept: Bytes::new(), parts: Vec::new(), is_truncated: false, is_complete: false },
        };
        let failure = match timeout_at(deadline, self.run(head, body, is_reused, &mut progress)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(TransportError::Timeout(progress.phase)),
        };
        let Some(answer) = progress.head else {
            return Err(failure.unwrap_or(TransportError::Closed { response_started: false, is_reused }));
        };
        let Body { kept, parts, is_truncated, .. } = progress.body;
        Ok(Response {
            status: answer.status,
            retry_after: answer.retry_after,
            content_type: answer.content_type,
            body: if parts.is_empty() { kept } else { parts.into() },
            is_truncated,
            interrupted: failure,
            is_resent: false,
        })
    }

    async fn run(&mut self, head: &[u8], body: &[u8], is_reused: bool, progress: &mut Progress) -> Result<(), TransportError> {
        if is_reused && poll_fn(|cx| Poll::Ready(self.is_stale(cx))).await {
            return Err(TransportError::Closed { response_started: false, is_reused });
        }
        let is_sent = self.write(head, body).await;
        progress.phase = Phase::Head;
        let answer = self.read_head(head.starts_with(b"HEAD "), is_reused).await?;
        let (framing, is_keep_alive) = (answer.framing, answer.is_keep_alive);
        progress.head = Some(answer);
        progress.phase = Phase::Body;
        self.read_body(framing, &mut progress.body).await?;
        // Bytes beyond the answer belong to nothing that we asked for.
        self.is_reusable = is_keep_alive && is_sent && progress.body.is_complete && self.start == self.end;
        self.start = 0;
        self.end = 0;
        if self.buffer.len() > limits::CONNECTION_BUFFER_BYTES {
            self.buffer = vec![0; limits::CONNECTION_BUFFER_BYTES];
        }
        Ok(())
    }

    /// A kept-alive connection that has bytes to read before we asked, or its end, cannot be used. Costs no system call
    /// while the runtime knows that nothing came.
    fn is_stale(&mut self, cx: &mut Context<'_>) -> bool {
        let mut probe = ReadBuf::new(&mut self.buffer[..1]);
        Pin::new(&mut self.stream).poll_read(cx, &mut probe).is_ready()
    }

    /// Writes the request. `false`: the receiver answered, or hung up, before it had taken all; what it said is still to be
    /// read, and the connection is of no further use.
    async fn write(&mut self, head: &[u8], body: &[u8]) -> bool {
        let mut written = 0;
        while written < head.len() + body.len() {
            let slices = match head.get(written..) {
                Some(rest) if !rest.is_empty() => [IoSlice::new(rest), IoSlice::new(body)],
                _ => [IoSlice::new(&body[written - head.len()..]), IoSlice::new(&[])],
            };
            match poll_fn(|cx| self.poll_write(cx, &slices)).await {
                Some(count) if count > 0 => written += count,
                _ => return false,
            }
        }
        poll_fn(|cx| Pin::new(&mut self.stream).poll_flush(cx)).await.is_ok()
    }

    /// `None`: the write failed, or the receiver began to answer while it was not taking more.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>; 2]) -> Poll<Option<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, slices) {
            Poll::Ready(Ok(count)) => Poll::Ready(Some(count)),
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Pending => match self.poll_fill(cx) {
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(&mut self.buffer[self.end..]);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Reads more bytes behind those that are there; 0 at the end of the stream. There must be room.
    async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Reads the final head, passing over interim ones.
    async fn read_head(&mut self, is_head: bool, is_reused: bool) -> Result<ResponseHead, TransportError> {
        let (mut interim, mut skipped) = (0, 0);
        // Until the head's end is in sight only the first bytes are parsed, to recognise early what is not HTTP.
        let mut is_worth_parsing = true;
        loop {
            skipped += self.skip_empty_lines();
            if skipped > limits::RESPONSE_HEAD_BYTES_MAX {
                return Err(TransportError::HeadTooLarge);
            }
            let unread = &self.buffer[self.start..self.end];
            let parsed = if is_worth_parsing && !unread.is_empty() { parse_head(unread, is_head)? } else { None };
            if is_worth_parsing {
                self.scanned_bytes += parsed.as_ref().map_or(unread.len(), |head| head.bytes) as u64;
            }
            if let Some(head) = parsed {
                self.start += head.bytes;
                match head.status {
                    101 => return Err(TransportError::Protocol("the receiver switched protocols without being asked")),
                    100..200 => interim += 1,
                    _ => return Ok(head),
                }
                if interim > limits::INTERIM_RESPONSES_MAX {
                    return Err(TransportError::Protocol("too many interim (1xx) answers"));
                }
                continue;
            }
            self.make_room()?;
            let before = self.end;
            let response_started = interim > 0 || skipped > 0 || before > self.start;
            match self.fill().await {
                Ok(0) | Err(_) => return Err(TransportError::Closed { response_started, is_reused }),
                Ok(_) => {}
            }
            is_worth_parsing = before == self.start || has_head_end(&self.buffer[self.start..self.end], before - self.start);
        }
    }

    /// Passes over empty lines before a head, as the parser would: it would do so again with every piece that comes.
    fn skip_empty_lines(&mut self) -> usize {
        let before = self.start;
        loop {
            match self.buffer[self.start..self.end] {
                [b'\n', ..] => self.start += 1,
                [b'\r', b'\n', ..] => self.start += 2,
                _ => return self.start - before,
            }
        }
    }

    /// Makes room for more of the head: moves the unread bytes to the front, or grows, up to the limit.
    fn make_room(&mut self) -> Result<(), TransportError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            if self.end >= limits::RESPONSE_HEAD_BYTES_MAX {
                return Err(TransportError::HeadTooLarge);
            }
            self.buffer.resize((self.end * 2).min(limits::RESPONSE_HEAD_BYTES_MAX), 0);
        }
        Ok(())
    }

    async fn read_body(&mut self, framing: Framing, body: &mut Body) -> Result<(), TransportError> {
        match framing {
            Framing::Length(length) => self.read_length(length, body).await,
            Framing::Chunked => self.read_chunked(body).await,
            Framing::UntilClose => self.read_until_close(body).await,
        }
    }

    async fn read_length(&mut self, length: u64, body: &mut Body) -> Result<(), TransportError> {
        let ResponseLimits { kept_bytes, drained_bytes } = self.limits;
        let mut remaining = length;
        loop {
            let unread = &self.buffer[self.start..self.end];
            let take = usize::try_from(remaining).map_or(unread.len(), |remaining| remaining.min(unread.len()));
            if remaining == length && take as u64 == length && take <= kept_bytes {
                // The usual case: all of it is already here.
                body.kept = Bytes::copy_from_slice(&unread[..take]);
            } else {
                body.push(&unread[..take], kept_bytes);
            }
            self.start += take;
            remaining -= take as u64;
            if remaining == 0 {
                body.is_complete = true;
                return Ok(());
            }
            if length > (kept_bytes + drained_bytes) as u64 && length - remaining >= kept_bytes as u64 {
                body.is_truncated = true;
                return Ok(());
            }
            self.refill().await?;
        }
    }

    async fn read_chunked(&mut self, body: &mut Body) -> Result<(), TransportError> {
        let ResponseLimits { kept_bytes, drained_bytes } = self.limits;
        let mut decoder = ChunkDecoder::default();
        let mut wire_bytes = 0;
        loop {
            // Looked at up to the limit only, so that where a packet ends decides nothing.
            let room = (kept_bytes + drained_bytes + 1).saturating_sub(wire_bytes);
            let unread = &self.buffer[self.start..self.end.min(self.start + room)];
            let taken = decoder.decode(unread, |data| body.push(data, kept_bytes)).map_err(TransportError::Protocol)?;
            self.start += taken;
            wire_bytes += taken;
            if decoder.is_done() {
                body.is_complete = true;
                return Ok(());
            }
            if wire_bytes > kept_bytes + drained_bytes {
                body.is_truncated = true;
                return Ok(());
            }
            self.refill().await?;
        }
    }

    async fn read_until_close(&mut self, body: &mut Body) -> Result<(), TransportError> {
        let ResponseLimits { kept_bytes, .. } = self.limits;
        loop {
            let unread = &self.buffer[self.start..self.end];
            body.push(unread, kept_bytes);
            self.start = self.end;
            // The connection is lost anyway, so there is nothing to drain for.
            if body.is_truncated {
                return Ok(());
            }
            (self.start, self.end) = (0, 0);
            match self.fill().await {
                Ok(0) => {
                    body.is_complete = true;
                    return Ok(());
                }
                Ok(_) => {}
                Err(_) => return Err(TransportError::Closed { response_started: true, is_reused: false }),
            }
        }
    }

    /// Reads more of the body into the buffer, of which everything has been used.
    async fn refill(&mut self) -> Result<(), TransportError> {
        (self.start, self.end) = (0, 0);
        match self.fill().await {
            Ok(0) | Err(_) => Err(TransportError::Closed { response_started: true, is_reused: false }),
            Ok(_) => Ok(()),
        }
    }
}

/// Whether a blank line ends in `unread`, of which the bytes from `new` on have just come.
fn has_head_end(unread: &[u8], new: usize) -> bool {
    let seen = &unread[new.saturating_sub(3)..];
    seen.windows(2).any(|pair| pair == b"\n\n") || seen.windows(3).any(|three| three == b"\n\r\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "http1_tests.rs"]
mod tests;
