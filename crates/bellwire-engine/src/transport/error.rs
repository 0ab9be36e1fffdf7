//! What can keep a request from getting an answer. Each has a stable code and a text that tenants may read; what only
//! operators may know is kept apart.

use std::io;

use bellwire_core::egress::{EgressError, Refusal, UNREACHABLE_HOST};

/// Why there is no HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The URL is not one that we send to.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The request's own head is not valid: a header with a line break, for example.
    #[error("the request cannot be written: {0}")]
    Request(&'static str),
    /// The destination is forbidden.
    #[error("{UNREACHABLE_HOST}")]
    Refused(Refusal),
    /// The name has no address, or no resolver answered. The text is for operators.
    #[error("{UNREACHABLE_HOST}")]
    Unresolvable(String),
    #[error("{0}")]
    Connect(ConnectFailure),
    #[error("the TLS handshake failed: {0}")]
    Tls(TlsFailure),
    #[error("no answer in time: {0}")]
    Timeout(Phase),
    #[error("the answer is not valid HTTP/1.1: {0}")]
    Protocol(&'static str),
    /// `is_reused`: the connection had served a request before, so the receiver may have closed it before it saw this one.
    #[error("the connection was closed {}", if *.response_started { "in the middle of the answer" } else { "without an answer" })]
    Closed { response_started: bool, is_reused: bool },
    #[error("the head of the answer is too large")]
    HeadTooLarge,
    /// The egress proxy did not open a tunnel: its status, or 0 when it did not answer properly.
    #[error("the egress proxy could not reach the receiver")]
    Proxy { status: u16 },
    /// Our own fault, not the receiver's (out of file descriptors, no certificates, …). The text is for operators.
    #[error("the request could not be sent because of a fault on the sending side")]
    Local(String),
}

/// How far a request came before its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Resolve,
    Connect,
    TlsHandshake,
    Write,
    Head,
    Body,
}

/// Why no TCP connection came about, at the last address tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    #[error("the connection was refused")]
    Refused,
    #[error("the connection attempt was not answered in time")]
    Timeout,
    #[error("the host or its network is unreachable")]
    Unreachable,
    #[error("the connection could not be made")]
    Other,
}

/// Why no TLS connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFailure {
    #[error("the certificate has expired or is not yet valid")]
    Expired,
    #[error("the certificate is not valid for this host name")]
    WrongName,
    #[error("the certificate is signed by an authority that is not trusted")]
    UnknownIssuer,
    #[error("the certificate is not acceptable")]
    Certificate,
    #[error("the receiver sent an alert")]
    Alert,
    #[error("no TLS version or cipher suite in common")]
    Incompatible,
    #[error("the connection was closed")]
    Closed,
    #[error("the receiver does not speak TLS properly")]
    Protocol,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the host name was still being resolved",
            Self::Connect => "the connection was still being made",
            Self::TlsHandshake => "the TLS handshake was still going on",
            Self::Write => "the request was still being sent",
            Self::Head => "the request was sent, the answer did not begin or its head did not end",
            Self::Body => "the body of the answer did not end",
        })
    }
}

impl TransportError {
    /// A short code for records, metrics and programs; never renamed. Equal for "refused" and "unresolvable", so that it is
    /// no oracle for the operator's network.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url(_) => "invalid_url",
            Self::Request(_) => "invalid_request",
            Self::Refused(_) | Self::Unresolvable(_) => "host_unreachable",
            Self::Connect(ConnectFailure::Refused) => "connect_refused",
            Self::Connect(ConnectFailure::Timeout) => "connect_timeout",
            Self::Connect(ConnectFailure::Unreachable) => "connect_unreachable",
            Self::Connect(ConnectFailure::Other) => "connect_failed",
            Self::Tls(_) => "tls_failed",
            Self::Timeout(_) => "timeout",
            Self::Protocol(_) => "protocol_error",
            Self::Closed { .. } => "connection_closed",
            Self::HeadTooLarge => "response_too_large",
            Self::Proxy { .. } => "proxy_failed",
            Self::Local(_) => "local_error",
        }
    }

    /// What an operator should read beside the text: why a destination was refused, what the resolver said.
    pub fn operator_reason(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason()),
            Self::Unresolvable(text) | Self::Local(text) => Some(text.clone()),
            Self::Proxy { status } => Some(format!("the proxy answered CONNECT with status {status}")),
            _ => None,
        }
    }

    /// A kept-alive connection turned out to be closed and nothing was received: the request may go out once more on a
    /// fresh connection.
    pub fn is_stale_connection(&self) -> bool {
        matches!(self, Self::Closed { response_started: false, is_reused: true })
    }

    /// The failure of a TCP connect: the receiver's, or ours when we are out of something.
    pub(super) fn from_connect(error: &io::Error) -> Self {
        // EMFILE and ENFILE have no stable `ErrorKind`.
        const OUT_OF_FILES: [i32; 2] = [23, 24];
        Self::Connect(match error.kind() {
            io::ErrorKind::ConnectionRefused => ConnectFailure::Refused,
            io::ErrorKind::TimedOut => ConnectFailure::Timeout,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => ConnectFailure::Unreachable,
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => return Self::Local(error.to_string()),
            _ if error.raw_os_error().is_some_and(|code| OUT_OF_FILES.contains(&code)) => {
                return Self::Local(error.to_string());
            }
            _ => ConnectFailure::Other,
        })
    }

    /// The failure of a TLS handshake.
    pub(super) fn from_handshake(error: &io::Error) -> Self {
        use rustls::{CertificateError as C, Error as E};
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<E>());
        Self::Tls(match tls {
            Some(E::InvalidCertificate(certificate)) => match certificate {
                C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => TlsFailure::Expired,
                C::NotValidForName | C::NotValidForNameContext { .. } => TlsFailure::WrongName,
                C::UnknownIssuer => TlsFailure::UnknownIssuer,
                _ => TlsFailure::Certificate,
            },
            Some(E::AlertReceived(_)) => TlsFailure::Alert,
            Some(E::PeerIncompatible(_)) => TlsFailure::Incompatible,
            Some(_) => TlsFailure::Protocol,
            None => TlsFailure::Closed,
        })
    }
}

impl From<EgressError> for TransportError {
    fn from(error: EgressError) -> Self {
        match error {
            EgressError::Malformed(text) => Self::Url(text),
            EgressError::Refused(refusal) => Self::Refused(refusal),
        }
    }
}
