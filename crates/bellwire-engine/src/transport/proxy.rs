//! Going out through an HTTP proxy: CONNECT to the judged address, never to the name, so that the proxy cannot resolve it
//! to anything else. Only configuration names a proxy; the environment is not read.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwire_core::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::TransportError;

/// An HTTP proxy that tunnels (CONNECT), for every delivery.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Host and port. The operator chose it, so it is resolved by the system and not judged.
    pub(super) host: String,
    pub(super) port: u16,
    authorization: Option<String>,
}

impl Proxy {
    /// Reads `http://[user:password@]host:port`.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it (it may hold a password).
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "the proxy is not a URL (http://host:port)")?;
        if url.scheme() != "http" {
            return Err("the proxy URL must begin with http://");
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err("the proxy URL must end after the port");
        }
        let host = url.host_str().ok_or("the proxy URL has no host")?;
        let credentials =
            || Some(format!("{}:{}", percent_decode(url.username())?, percent_decode(url.password().unwrap_or_default())?));
        let authorization = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            let credentials = credentials().ok_or("the proxy's user name or password is not properly percent-encoded")?;
            Some(format!("proxy-authorization: Basic {}\r\n", STANDARD.encode(credentials)))
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port().unwrap_or(80), authorization })
    }

    /// Asks the proxy, on a fresh connection, for a tunnel to `address`.
    pub(super) async fn open_tunnel(&self, stream: &mut TcpStream, address: SocketAddr) -> Result<(), TransportError> {
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let request = format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n{authorization}\r\n");
        let fault = |_| TransportError::Proxy { status: 0 };
        stream.write_all(request.as_bytes()).await.map_err(fault)?;

        let mut answer = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut answer).await.map_err(fault)? == 0 || answer.len() > limits::PROXY_HEAD_BYTES_MAX {
                return Err(TransportError::Proxy { status: 0 });
            }
            let mut headers = [httparse::EMPTY_HEADER; limits::RESPONSE_HEADERS_MAX];
            let mut parsed = httparse::Response::new(&mut headers);
            let bytes = match parsed.parse(&answer) {
                Ok(httparse::Status::Complete(bytes)) => bytes,
                Ok(httparse::Status::Partial) => continue,
                Err(_) => return Err(TransportError::Proxy { status: 0 }),
            };
            return match parsed.code {
                // Receivers never speak first: bytes behind the head are not from ours.
                Some(200..300) if bytes == answer.len() => Ok(()),
                status => Err(TransportError::Proxy { status: status.unwrap_or_default() }),
            };
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let high = (rest.next()? as char).to_digit(16)?;
            let low = (rest.next()? as char).to_digit(16)?;
            (high * 16 + low) as u8
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: a proxy with a password is not usable, or its password lands in a log.
    #[test]
    fn proxies_are_read_from_urls_and_hide_their_password() {
        let proxy = Proxy::parse("http://bell:w%40re@proxy.example:3128").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("proxy-authorization: Basic YmVsbDp3QHJl\r\n"));
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example:3128)");
        assert_eq!(Proxy::parse("http://[::1]:3128").unwrap().host, "::1");
        for bad in ["proxy:3128", "https://proxy", "socks5://proxy", "http://proxy/path", ""] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }
}
