//! Serialising request heads: the part that is the same for every request to an endpoint is written once and copied.

use std::io::Write;

use bellwire_core::egress::Target;

use super::TransportError;

/// The constant part of an endpoint's requests: request line, `host`, `user-agent`, and the endpoint's own headers.
#[derive(Clone, Debug)]
pub struct RequestHead {
    prefix: Vec<u8>,
    has_body: bool,
}

impl RequestHead {
    /// Starts a head. `method` is a token such as `POST`; the request target and host are those of the judged URL.
    ///
    /// # Errors
    /// [`TransportError::Request`] if method or user agent hold anything that HTTP does not allow there.
    pub fn new(method: &str, target: &Target, user_agent: &str) -> Result<Self, TransportError> {
        if !is_token(method) {
            return Err(TransportError::Request("the method is not a token"));
        }
        let mut head = Self { prefix: Vec::with_capacity(256), has_body: !matches!(method, "GET" | "HEAD") };
        // Writing to a Vec cannot fail. The target's parts come out of the URL parser, percent-encoded.
        let _ = write!(head.prefix, "{method} {} HTTP/1.1\r\nhost: {}\r\n", target.path_and_query, target.authority);
        head.header("user-agent", user_agent)?;
        head.header("accept", "*/*")?;
        // Answers are never decompressed, so ask for none that are compressed.
        head.header("accept-encoding", "identity")?;
        Ok(head)
    }

    /// Adds a header that every request carries.
    ///
    /// # Errors
    /// [`TransportError::Request`] for a name that is no token or a value with control characters.
    pub fn header(&mut self, name: &str, value: &str) -> Result<(), TransportError> {
        write_header(&mut self.prefix, name, value)
    }

    /// Writes the whole head into `out`, replacing what was there: the constant part, `headers`, `content-length`, blank line.
    ///
    /// # Errors
    /// As [`RequestHead::header`].
    pub fn write(&self, out: &mut Vec<u8>, headers: &[(&str, &str)], body_bytes: usize) -> Result<(), TransportError> {
        out.clear();
        out.extend_from_slice(&self.prefix);
        for (name, value) in headers {
            write_header(out, name, value)?;
        }
        if self.has_body || body_bytes > 0 {
            let _ = write!(out, "content-length: {body_bytes}\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &str) -> Result<(), TransportError> {
    if !is_token(name) {
        return Err(TransportError::Request("a header name is not a token"));
    }
    if !value.bytes().all(|c| c == b'\t' || (c >= b' ' && c != 0x7f)) {
        return Err(TransportError::Request("a header value has control characters"));
    }
    for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use bellwire_core::egress::EgressPolicy;

    use super::*;

    /// Broken: a header value or method smuggles a second request to the receiver.
    #[test]
    fn heads_are_written_exactly_and_take_no_line_breaks() {
        let target = EgressPolicy::default().judge_url("https://example.com:8443/%0d%0ax?y=%20").unwrap();
        let mut head = RequestHead::new("POST", &target, "Bellwire/0.1").unwrap();
        head.header("x-team", "a b").unwrap();
        let mut out = b"old".to_vec();
        head.write(&mut out, &[("webhook-id", "msg_1")], 3).unwrap();
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            "POST /%0d%0ax?y=%20 HTTP/1.1\r\nhost: example.com:8443\r\nuser-agent: Bellwire/0.1\r\naccept: */*\r\n\
             accept-encoding: identity\r\nx-team: a b\r\nwebhook-id: msg_1\r\ncontent-length: 3\r\n\r\n"
        );
        assert!(head.header("x", "a\r\nhost: evil").is_err());
        assert!(head.header("x: y\r\nz", "a").is_err());
        assert!(head.write(&mut out, &[("content-type", "a\nb")], 0).is_err());
        assert!(RequestHead::new("GET / HTTP/1.1\r\n", &target, "x").is_err());

        RequestHead::new("GET", &target, "x").unwrap().write(&mut out, &[], 0).unwrap();
        assert!(!String::from_utf8(out).unwrap().contains("content-length"));
    }
}
