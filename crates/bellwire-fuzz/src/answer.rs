//! Target about what endpoints answer: the reader of HTTP/1.1 responses.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bellwire_core::limits;
use bellwire_engine::transport::fuzzing::Wire;
use bellwire_engine::transport::{Response, ResponseLimits, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::feature;
use crate::mutation::Random;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// Kept and drained bytes.
const LIMITS: [(usize, usize); 4] =
    [(0, 0), (64, 128), (1_024, 4_096), (limits::RESPONSE_BODY_KEPT_BYTES, limits::RESPONSE_BODY_DRAINED_BYTES)];

pub fn answers() -> Vec<Vec<u8>> {
    let whole = [
        "0\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nhello",
        "4\nHTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        "8\nHTTP/1.1 503 Busy\r\nretry-after: 120\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nx: y\r\n\r\n",
        "12\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.0 500 No\r\n\r\nuntil the end",
        "9\nHTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
        "6\nHTTP/1.1 413 Too large\nContent-Length: 3\nConnection: keep-alive, close\n\nno!HTTP/1.1 200 OK\r\n\r\n",
        "32\n\r\nHTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1/\r\n\r\n\r\n",
        "44\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x\r\ny\r\n",
        "36\nHTTP/1.1 200 OK\r\nx-filler: abcdefghijklmnopqrstuvwxyz\r\n",
    ];
    let mut seeds: Vec<Vec<u8>> = whole.map(|text| text.as_bytes().to_vec()).to_vec();
    seeds.push([b"8\n".as_slice(), &b"\n".repeat(limits::RESPONSE_HEAD_BYTES_MAX - 2)].concat());
    seeds.push([b"0\nHTTP/1.1 200 OK\r\n".as_slice(), &b"a: b\r\n".repeat(limits::RESPONSE_HEADERS_MAX), b"\r\n"].concat());
    seeds.push(
        [b"8\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &b"1;xxxxxxxxx\r\na\r\n".repeat(200)].concat(),
    );
    seeds
}

/// What can be chosen about an exchange; the rest of the input is what the receiver says.
#[derive(Clone, Copy)]
struct Exchange {
    is_head: bool,
    /// The receiver never takes the whole request.
    is_deaf: bool,
    /// When the receiver has said everything it begins again.
    is_endless: bool,
    limits: ResponseLimits,
    number: u64,
}

impl Exchange {
    fn new(number: u64) -> Self {
        let (kept_bytes, drained_bytes) = LIMITS[usize::try_from(number >> 2 & 3).unwrap_or_default()];
        Self {
            is_head: number & 1 == 1,
            is_deaf: number & 2 == 2,
            is_endless: number & 32 == 32,
            limits: ResponseLimits { kept_bytes, drained_bytes },
            number,
        }
    }

    /// More than this nobody reads of one answer: heads, the body, what came with their last read.
    fn bytes_max(&self) -> usize {
        let heads = (limits::INTERIM_RESPONSES_MAX + 2) * limits::RESPONSE_HEAD_BYTES_MAX;
        heads + self.limits.kept_bytes + self.limits.drained_bytes
    }
}

/// A receiver that says what it was given, in pieces.
struct Receiver<'a> {
    data: &'a [u8],
    exchange: Exchange,
    piece: Box<dyn FnMut() -> usize>,
    said: &'a Cell<usize>,
    room: usize,
}

impl AsyncRead for Receiver<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let said = self.said.get();
        assert!(said <= self.exchange.bytes_max(), "an answer is read without end");
        let at = if self.exchange.is_endless && !self.data.is_empty() { said % self.data.len() } else { said };
        let rest = &self.data[at.min(self.data.len())..];
        let count = rest.len().min(buffer.remaining()).min((self.piece)());
        buffer.put_slice(&rest[..count]);
        self.said.set(said + count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Receiver<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.room);
        self.room -= count;
        if count == 0 && !bytes.is_empty() { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One exchange; what holds for every one of them is checked here.
fn exchange(data: &[u8], exchange: Exchange, piece: impl FnMut() -> usize + 'static) -> Result<Response, TransportError> {
    let said = Cell::new(0);
    let room = if exchange.is_deaf { 7 } else { usize::MAX };
    let mut wire = Wire::new(Receiver { data, exchange, piece: Box::new(piece), said: &said, room }, exchange.limits);
    let head: &[u8] =
        if exchange.is_head { b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n" } else { b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n" };
    let (answer, again) = RUNTIME.block_on(async {
        let deadline = Instant::now() + Duration::from_secs(600);
        let answer = wire.exchange(head, b"{}", deadline).await;
        assert!(!(wire.is_reusable() && (answer.is_err() || exchange.is_deaf)), "a connection is used again after {answer:?}");
        // This receiver goes on talking, or hangs up: neither is an answer to what it was not yet asked.
        let scanned = wire.scanned_bytes();
        (answer, (wire.exchange(head, b"{}", deadline).await, scanned))
    });
    let (second, scanned) = again;
    assert!(matches!(second, Err(TransportError::Closed { .. })), "what was said before it was asked is an answer: {second:?}");
    assert!(scanned <= 4 * said.get() as u64 + 1_024, "{scanned} bytes are looked at for {} that came", said.get());
    if let Ok(response) = &answer {
        assert!((200..600).contains(&response.status), "{response:?}");
        assert!(response.body.len() <= exchange.limits.kept_bytes, "{} bytes are kept", response.body.len());
        assert!(!exchange.is_head || response.body.is_empty(), "a HEAD has a body");
        let texts = response.retry_after.iter().chain(&response.content_type);
        assert!(texts.into_iter().all(|text| text.len() <= 3 * limits::RESPONSE_HEADER_KEPT_BYTES));
    }
    answer
}

/// However an answer is cut into pieces, it is the same answer, read with bounded work and bounded memory.
pub fn answer(data: &[u8]) -> u64 {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let number = std::str::from_utf8(&data[..end]).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    let (of_input, data) = (Exchange::new(number), data.get(end + 1..).unwrap_or_default());
    let whole = exchange(data, of_input, || usize::MAX);
    let mut random = Random::new(of_input.number);
    let most = if of_input.is_endless || data.len() > 4_096 { 400 } else { 12 };
    let pieces = exchange(data, of_input, move || 1 + random.below(most));
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces, "the answer depends on how it was cut"),
        // What is no answer may be noticed sooner or later.
        (whole, pieces) => assert!(whole.is_err() && pieces.is_err(), "in one piece {whole:?}, in several {pieces:?}"),
    }
    let what = whole.map(|response| {
        let interrupted = response.interrupted.map(|error| error.to_string());
        let texts = (response.retry_after.is_some(), response.content_type.is_some());
        (response.status / 100, response.body.len().min(40), response.is_truncated, interrupted, texts)
    });
    feature(&(what.map_err(|error| error.to_string()), number & 63))
}
