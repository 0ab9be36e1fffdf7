//! A client as lean as HTTP/1.1 with keep-alive allows: the load must cost little beside what it measures. It takes what the
//! servers under test answer (a length, or chunks), and nothing else.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::receiver::parse_decimal;

const HEADERS_MAX: usize = 48;
const BUFFER_BYTES: usize = 8 * 1024;
/// Answers of lists and statistics are far below.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One connection, one request at a time.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer's status, and where its body stands in what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    body: (usize, usize),
    is_chunked: bool,
}

impl Wire {
    /// # Errors
    /// What the socket says.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Sends a whole request and reads the whole answer.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` for what is not such an answer. The connection is then of no further use.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answered> {
        self.stream.write_all(request).await?;
        let mut end = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[end..]).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            end += count;
            if let Some(answered) = parse_answer(&self.buffer[..end])? {
                return Ok(answered);
            }
            if end == self.buffer.len() {
                if end >= ANSWER_BYTES_MAX {
                    return Err(invalid("the answer is too large"));
                }
                self.buffer.resize(end * 2, 0);
            }
        }
    }

    /// The body of the last answer.
    pub fn body(&self, answered: &Answered) -> Vec<u8> {
        body_of(&self.buffer, answered)
    }
}

/// The body of an answer that [`parse_answer`] found at the start of `input`.
pub fn body_of(input: &[u8], answered: &Answered) -> Vec<u8> {
    let (start, end) = answered.body;
    let raw = input.get(start..end).unwrap_or_default();
    if answered.is_chunked { unchunked(raw) } else { raw.to_vec() }
}

/// Parses the answer at the start of `input`; `None` until it is complete.
///
/// # Errors
/// `InvalidData`
pub fn parse_answer(input: &[u8]) -> io::Result<Option<Answered>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let head = match parsed.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(&error.to_string())),
    };
    let status = parsed.code.unwrap_or_default();
    let value =
        |name: &str| parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
    if let Some(length) = value("content-length") {
        let length = parse_decimal(length).ok_or_else(|| invalid("content-length is not a number"))?;
        let end = head + length;
        return Ok((input.len() >= end).then_some(Answered { status, body: (head, end), is_chunked: false }));
    }
    if value("transfer-encoding").is_some() {
        let is_complete = input[head..].ends_with(b"0\r\n\r\n");
        return Ok(is_complete.then_some(Answered { status, body: (head, input.len()), is_chunked: true }));
    }
    if status == 204 {
        return Ok(Some(Answered { status, body: (head, head), is_chunked: false }));
    }
    Err(invalid("an answer has neither a length nor chunks"))
}

fn unchunked(mut raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    while let Some(line) = raw.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&raw[..line]).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        match size.and_then(|size| raw.get(line + 2..line + 2 + size)) {
            Some(chunk) if !chunk.is_empty() => {
                out.extend_from_slice(chunk);
                raw = raw.get(line + 2 + chunk.len() + 2..).unwrap_or_default();
            }
            _ => break,
        }
    }
    out
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: an acknowledgement counts before it is complete, or an answer's end is missed and the load stands still.
    #[test]
    fn answers_end_where_their_length_or_last_chunk_says() {
        let plain = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..plain.len() {
            assert_eq!(parse_answer(&plain[..cut]).unwrap(), None);
        }
        let answered = parse_answer(plain).unwrap().unwrap();
        assert_eq!((answered.status, body_of(plain, &answered)), (202, b"{}".to_vec()));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
        let answered = parse_answer(chunked).unwrap().unwrap();
        assert_eq!(body_of(chunked, &answered), b"{}");
        assert_eq!(parse_answer(&chunked[..chunked.len() - 5]).unwrap(), None);
        assert!(parse_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err() && parse_answer(b"nonsense\r\n\r\n").is_err());
    }
}
