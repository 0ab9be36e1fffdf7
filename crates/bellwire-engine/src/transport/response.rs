//! What a receiver answered, and reading the answer's head: status, framing of the body (RFC 9112, section 6.3), keep-alive.

use std::mem::MaybeUninit;

use bellwire_core::limits;
use bytes::Bytes;

use super::TransportError;

/// A receiver's answer. Redirects are answers like any other: they are never followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// `Retry-After`, as it came.
    pub retry_after: Option<Box<str>>,
    /// `Content-Type`, as it came; only kept when there is a body.
    pub content_type: Option<Box<str>>,
    /// The first bytes of the body (see [`ResponseLimits`]); never decompressed.
    pub body: Bytes,
    /// The body was longer than what is kept.
    pub is_truncated: bool,
    /// The head came, the rest of the body did not: why. The status is the receiver's word all the same.
    pub interrupted: Option<TransportError>,
    /// The request was sent a second time, because the kept-alive connection had been closed before a byte came back.
    pub is_resent: bool,
}

/// How much of an answer's body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Bytes kept.
    pub kept_bytes: usize,
    /// Bytes read and thrown away beyond those kept, so that the connection stays usable. A longer body ends the connection.
    pub drained_bytes: usize,
}

impl Default for ResponseLimits {
    fn default() -> Self {
        Self { kept_bytes: limits::RESPONSE_BODY_KEPT_BYTES, drained_bytes: limits::RESPONSE_BODY_DRAINED_BYTES }
    }
}

/// Where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A parsed response head.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub status: u16,
    pub framing: Framing,
    pub is_keep_alive: bool,
    pub retry_after: Option<Box<str>>,
    pub content_type: Option<Box<str>>,
    /// Bytes that the head took.
    pub bytes: usize,
}

/// Parses a head at the start of `input`; `None`: more bytes are needed. `is_head`: the request's method was HEAD.
pub(super) fn parse_head(input: &[u8], is_head: bool) -> Result<Option<ResponseHead>, TransportError> {
    let mut headers = [const { MaybeUninit::uninit() }; limits::RESPONSE_HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, input, &mut headers);
    let bytes = match status {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(TransportError::HeadTooLarge),
        Err(httparse::Error::HeaderName) => return Err(TransportError::Protocol("a header name is not valid")),
        Err(httparse::Error::HeaderValue) => return Err(TransportError::Protocol("a header value is not valid")),
        Err(httparse::Error::NewLine) => return Err(TransportError::Protocol("a line of the head does not end properly")),
        Err(_) => return Err(TransportError::Protocol("the status line is not valid")),
    };
    let code = parsed.code.unwrap_or_default();
    if !(100..=599).contains(&code) {
        return Err(TransportError::Protocol("the status is not between 100 and 599"));
    }
    let is_1_1 = parsed.version == Some(1);

    let (mut length, mut coding, mut close, mut keep_alive) = (None, Coding::None, false, false);
    let (mut retry_after, mut content_type) = (None, None);
    for header in parsed.headers.iter() {
        // Lengths first: most headers are told apart without comparing letters.
        match header.name.len() {
            10 if header.name.eq_ignore_ascii_case("connection") => {
                for token in tokens(header.value) {
                    close |= token.eq_ignore_ascii_case(b"close");
                    keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            11 if header.name.eq_ignore_ascii_case("retry-after") => retry_after = Some(kept(header.value)),
            12 if header.name.eq_ignore_ascii_case("content-type") => content_type = Some(header.value),
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                for token in tokens(header.value) {
                    let value = parse_length(token)?;
                    if length.is_some_and(|other| other != value) {
                        return Err(TransportError::Protocol("there are two different Content-Length values"));
                    }
                    length = Some(value);
                }
                if length.is_none() {
                    return Err(TransportError::Protocol("the Content-Length is empty"));
                }
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                for token in tokens(header.value) {
                    coding = coding.then(token);
                }
            }
            _ => {}
        }
    }

    let mut is_keep_alive = if is_1_1 { !close } else { keep_alive && !close };
    let framing = if is_head || (100..200).contains(&code) || matches!(code, 204 | 304) {
        Framing::Length(0)
    } else {
        match coding {
            Coding::None => length.map_or(Framing::UntilClose, Framing::Length),
            // Transfer-Encoding wins over Content-Length, but a sender of both (or of a coding to HTTP/1.0) is not to be
            // trusted with the next answer's beginning.
            Coding::Chunked => {
                is_keep_alive &= length.is_none() && is_1_1;
                Framing::Chunked
            }
            Coding::Other => Framing::UntilClose,
        }
    };
    is_keep_alive &= framing != Framing::UntilClose;
    let has_body = framing != Framing::Length(0);
    Ok(Some(ResponseHead {
        status: code,
        framing,
        is_keep_alive,
        retry_after,
        content_type: content_type.filter(|_| has_body).map(kept),
        bytes,
    }))
}

/// What the Transfer-Encoding header says, read from left to right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    /// `chunked`, once, and last.
    Chunked,
    /// Anything that does not end in a single `chunked`.
    Other,
}

impl Coding {
    fn then(self, token: &[u8]) -> Self {
        match (self, token.eq_ignore_ascii_case(b"chunked")) {
            (Self::None, true) => Self::Chunked,
            // Answers are never decoded beyond their chunks, but their end is still clear.
            (Self::Other, true) => Self::Chunked,
            _ => Self::Other,
        }
    }
}

/// The members of a comma-separated list.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|c| *c == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

fn parse_length(digits: &[u8]) -> Result<u64, TransportError> {
    const FAULT: TransportError = TransportError::Protocol("the Content-Length is not a number");
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0')).ok_or(FAULT)?;
        value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(FAULT)
    })
}

fn kept(value: &[u8]) -> Box<str> {
    String::from_utf8_lossy(&value[..value.len().min(limits::RESPONSE_HEADER_KEPT_BYTES)]).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<ResponseHead, TransportError> {
        parse_head(head.as_bytes(), false).map(|head| head.unwrap())
    }

    /// Broken: the end of an answer is found in the wrong place, so that a connection's next answer is garbage.
    #[test]
    fn framing_follows_the_rfc() {
        for (head, framing, is_keep_alive) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: Close\r\n\r\n", Framing::Length(5), false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: upgrade, close\r\n\r\n", Framing::Length(5), false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", Framing::Length(5), false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", Framing::Chunked, true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n", Framing::Chunked, true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n", Framing::Chunked, false),
            ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n", Framing::Chunked, false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\ncontent-length: 5\r\n\r\n", Framing::UntilClose, false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n", Framing::UntilClose, false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n", Framing::UntilClose, false),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.1 102 Processing\r\n\r\n", Framing::Length(0), true),
        ] {
            let parsed = parse(head).unwrap();
            assert_eq!((parsed.framing, parsed.is_keep_alive), (framing, is_keep_alive), "{head:?}");
            assert_eq!(parsed.bytes, head.len());
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(parse_head(head.as_bytes(), true).unwrap().unwrap().framing, Framing::Length(0));
    }

    /// Broken: an answer that two programs can read differently is taken as good.
    #[test]
    fn ambiguous_or_broken_heads_are_errors() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 No\r\n\r\n",
            "HTTP/1.1 999 No\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : a\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
            "<html>\r\n\r\n",
            "\0\0\0\r\n\r\n",
        ] {
            assert!(parse_head(head.as_bytes(), false).is_err(), "{head:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(limits::RESPONSE_HEADERS_MAX + 1));
        assert_eq!(parse(&many).unwrap_err(), TransportError::HeadTooLarge);
    }
}
