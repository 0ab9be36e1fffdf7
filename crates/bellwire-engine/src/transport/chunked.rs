//! Decoding chunked bodies (RFC 9112, section 7.1), strictly: what two parsers could read differently is an error.

use bellwire_core::limits;

/// What remains to be read of a chunked body. Feed it bytes as they come.
#[derive(Debug, Default)]
pub(super) struct ChunkDecoder {
    state: State,
    /// Bytes left in the chunk, or its size while it is being read.
    size: u64,
    /// Bytes of the current size line, or of all trailers.
    line_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl ChunkDecoder {
    /// Takes from `input` what belongs to the body and hands the data to `sink`; returns how many bytes were taken.
    ///
    /// # Errors
    /// What is wrong with the encoding.
    pub(super) fn decode(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<usize, &'static str> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let available = &input[at..];
                let take = usize::try_from(self.size).map_or(available.len(), |size| size.min(available.len()));
                sink(&available[..take]);
                at += take;
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        self.line_bytes += 1;
        match self.state {
            State::SizeStart | State::Size => match (byte as char).to_digit(16) {
                Some(digit) => {
                    self.size = self
                        .size
                        .checked_mul(16)
                        .and_then(|size| size.checked_add(u64::from(digit)))
                        .ok_or("a chunk size is too large")?;
                    self.check_line(State::Size)
                }
                None if self.state == State::SizeStart => Err("a chunk does not begin with its size"),
                None => match byte {
                    b'\r' => Ok(State::SizeLf),
                    b';' | b' ' | b'\t' => Ok(State::Extension),
                    _ => Err("a chunk size is not a number"),
                },
            },
            State::Extension => match byte {
                b'\r' => Ok(State::SizeLf),
                b'\n' => Err("a chunk line ends without a carriage return"),
                _ => self.check_line(State::Extension),
            },
            State::SizeLf => {
                expect(byte, b'\n')?;
                self.line_bytes = 0;
                Ok(if self.size == 0 { State::TrailerStart } else { State::Data })
            }
            State::DataCr => expect(byte, b'\r').map(|()| State::DataLf),
            State::DataLf => {
                expect(byte, b'\n')?;
                self.line_bytes = 0;
                Ok(State::SizeStart)
            }
            State::TrailerStart if byte == b'\r' => Ok(State::EndLf),
            State::TrailerStart | State::Trailer => match byte {
                b'\r' => Ok(State::TrailerLf),
                b'\n' => Err("a trailer line ends without a carriage return"),
                _ if self.line_bytes > limits::RESPONSE_HEAD_BYTES_MAX => Err("the trailers are too large"),
                _ => Ok(State::Trailer),
            },
            State::TrailerLf => expect(byte, b'\n').map(|()| State::TrailerStart),
            State::EndLf => expect(byte, b'\n').map(|()| State::Done),
            // Handled by the caller.
            State::Data | State::Done => Ok(self.state),
        }
    }

    fn check_line(&self, next: State) -> Result<State, &'static str> {
        if self.line_bytes > limits::CHUNK_LINE_BYTES_MAX { Err("a chunk line is too long") } else { Ok(next) }
    }
}

fn expect(byte: u8, wanted: u8) -> Result<(), &'static str> {
    if byte == wanted { Ok(()) } else { Err("chunk lines and data are not separated as they must be") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Decodes in pieces of `step` bytes: the data and the bytes left over.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), &'static str> {
        let (mut decoder, mut data, mut taken) = (ChunkDecoder::default(), Vec::new(), 0);
        for piece in input.chunks(step) {
            let count = decoder.decode(piece, |bytes| data.extend_from_slice(bytes))?;
            taken += count;
            if count < piece.len() {
                break;
            }
        }
        Ok((data, input.len() - taken, decoder.is_done()))
    }

    /// Broken: a body is garbled when its packets are cut at an unlucky place.
    #[test]
    fn every_split_gives_the_same_body() {
        let input = b"5\r\nhello\r\n00a;name=\"v\"\r\n, world!!!\r\n0\r\nx-sum: 1\r\n\r\nHTTP/1.1";
        for step in 1..=input.len() {
            assert_eq!(decode(input, step), Ok((b"hello, world!!!".to_vec(), 8, true)), "in steps of {step}");
        }
    }

    /// Broken: bytes of one answer are taken for the next one (response smuggling), or a receiver keeps us busy for ever.
    #[test]
    fn malformed_chunks_are_errors() {
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloo\r\n",
            "5\r\nhello\n",
            "5\rhello",
            "5;a\nhello",
            "fffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "0\r\nx: 1\n\r\n",
            "0\r\n\rx",
            "5\r\nhello0\r\n\r\n",
        ] {
            assert!(decode(bad.as_bytes(), 1).is_err(), "{bad:?}");
        }
        assert!(decode(format!("{}5\r\n", "0".repeat(2_000)).as_bytes(), 64).is_err());
        assert!(decode(format!("5;{}", "x".repeat(2_000)).as_bytes(), 64).is_err());
        assert!(decode(format!("0\r\n{}", "x: y\r\n".repeat(10_000)).as_bytes(), 64).is_err());
        assert_eq!(decode(b"5\r\nhel", 100), Ok((b"hel".to_vec(), 0, false)));
    }
}
