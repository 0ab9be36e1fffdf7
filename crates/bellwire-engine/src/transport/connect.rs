//! Making connections: resolve, judge every answer, dial a judged address, check that it is the one that was reached, and
//! speak TLS where the URL says so. Every new connection goes through all of it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bellwire_core::egress::{EgressPolicy, Host, Target};
use bellwire_core::limits;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ConnectFailure;
use super::{Phase, Proxy, Resolve, TransportError};

/// A connection's bytes. Plain ones take no detour.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a dial needs; borrowed from the client.
pub(super) struct Dialer<'a> {
    pub policy: &'a EgressPolicy,
    pub resolver: &'a dyn Resolve,
    pub proxy: Option<&'a Proxy>,
    /// Or why there is none.
    pub tls: &'a Result<Arc<rustls::ClientConfig>, String>,
    pub connect_timeout: Duration,
    pub deadline: Instant,
}

/// A socket that cannot be asked anything any more: the receiver accepted the connection and reset it.
const CLOSED_AGAIN: TransportError = TransportError::Closed { response_started: false, is_reused: false };

impl Dialer<'_> {
    /// Connects to `target`; also returns the judged address that was dialled.
    pub(super) async fn dial(&self, target: &Target) -> Result<(Stream, SocketAddr), TransportError> {
        let addresses = self.judged_addresses(target).await?;
        let (stream, address) = match self.proxy {
            None => self.dial_any(&addresses).await?,
            Some(proxy) => self.dial_through(proxy, &addresses).await?,
        };
        if !target.tls {
            return Ok((Stream::Plain(stream), address));
        }
        let config = self.tls.as_ref().map_err(|text| TransportError::Local(text.clone()))?;
        let name = match &target.host {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|_| TransportError::Url("has a host that cannot be checked against a certificate"))?,
        };
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        match timeout_at(self.deadline, handshake).await {
            Ok(Ok(stream)) => Ok((Stream::Tls(Box::new(stream)), address)),
            Ok(Err(error)) => Err(TransportError::from_handshake(&error)),
            Err(_) => Err(TransportError::Timeout(Phase::TlsHandshake)),
        }
    }

    /// The addresses that may be dialled, in order. One lookup; nothing of it is used unless all of it is allowed.
    async fn judged_addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, TransportError> {
        let answers = match (&target.host, self.policy.localhost_answers(&target.host)) {
            (Host::Ip(ip), _) => vec![*ip],
            // Not allowed: judged below, for the reason.
            (_, Some(allowed)) if allowed.is_empty() => vec![IpAddr::from([127, 0, 0, 1])],
            (_, Some(allowed)) => allowed,
            (Host::Name(name), None) => self.resolve(name).await?,
        };
        self.policy.judge_answers(target, &answers).map_err(TransportError::Refused)?;
        if answers.is_empty() {
            return Err(TransportError::Unresolvable(format!("{} has no address", target.host)));
        }
        Ok(dial_order(&answers, target.port))
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, TransportError> {
        let budget = Instant::now() + Duration::from_millis(limits::RESOLVE_MS_MAX);
        match timeout_at(budget.min(self.deadline), self.resolver.resolve(name)).await {
            Ok(answers) => answers.map_err(TransportError::Unresolvable),
            Err(_) if budget < self.deadline => {
                Err(TransportError::Unresolvable(format!("no DNS server answered in time for {name}")))
            }
            Err(_) => Err(TransportError::Timeout(Phase::Resolve)),
        }
    }

    /// Tries the addresses one after another; the failure of the last one counts.
    async fn dial_any(&self, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), TransportError> {
        let mut failure = TransportError::Connect(ConnectFailure::Other);
        for address in addresses {
            match self.connect(*address).await {
                Ok(stream) => return Ok((stream, *address)),
                Err(error @ (TransportError::Timeout(_) | TransportError::Local(_))) => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn dial_through(&self, proxy: &Proxy, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), TransportError> {
        let lookup = tokio::net::lookup_host((proxy.host.as_str(), proxy.port));
        let found = match timeout_at(self.deadline, lookup).await {
            Ok(found) => found.map_err(|error| TransportError::Local(format!("the proxy's name does not resolve: {error}")))?,
            Err(_) => return Err(TransportError::Timeout(Phase::Connect)),
        };
        let proxies: Vec<_> = found.take(limits::DIAL_ADDRESSES_MAX).collect();
        let mut failure = TransportError::Proxy { status: 0 };
        for address in addresses {
            let (mut stream, _) = self.dial_any(&proxies).await.map_err(|error| match error {
                TransportError::Connect(_) | TransportError::Closed { .. } => TransportError::Proxy { status: 0 },
                other => other,
            })?;
            match timeout_at(self.deadline, proxy.open_tunnel(&mut stream, *address)).await {
                Ok(Ok(())) => return Ok((stream, *address)),
                Ok(Err(error)) => failure = error,
                Err(_) => return Err(TransportError::Timeout(Phase::Connect)),
            }
        }
        Err(failure)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the connector: what comes here has been judged")]
    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, TransportError> {
        let limit = Instant::now() + self.connect_timeout;
        let stream = match timeout_at(limit.min(self.deadline), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(TransportError::from_connect(&error)),
            Err(_) if limit < self.deadline => return Err(TransportError::Connect(ConnectFailure::Timeout)),
            Err(_) => return Err(TransportError::Timeout(Phase::Connect)),
        };
        // The last fence: whatever happened below us, only the judged address is spoken to.
        match stream.peer_addr() {
            Ok(peer) if peer == address => {}
            Ok(peer) => return Err(TransportError::Local(format!("dialled {address} but reached {peer}"))),
            Err(_) => return Err(CLOSED_AGAIN),
        }
        // A request is one write: waiting to join it with a next one would only delay it.
        stream.set_nodelay(true).map_err(|_| CLOSED_AGAIN)?;
        Ok(stream)
    }
}

/// The order of dialling: families take turns, so that a broken one costs one attempt. IPv4 comes first, because attempts
/// are made one after another and a silently dropped IPv6 packet, still the more frequent fault, costs a whole timeout.
fn dial_order(answers: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let (mut v4, mut v6): (Vec<IpAddr>, Vec<IpAddr>) = answers.iter().partition(|ip| ip.is_ipv4());
    for family in [&mut v4, &mut v6] {
        let mut seen = std::collections::HashSet::new();
        family.retain(|ip| seen.insert(*ip));
    }
    let longest = v4.len().max(v6.len());
    (0..longest)
        .flat_map(|at| [v4.get(at), v6.get(at)])
        .flatten()
        .take(limits::DIAL_ADDRESSES_MAX)
        .map(|ip| SocketAddr::new(*ip, port))
        .collect()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: a host whose first address is dead is never reached at its others, or one host is dialled without end.
    #[test]
    fn families_take_turns_and_the_number_is_bounded() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let order = dial_order(&ips(&["2606:4700::1", "2606:4700::2", "1.1.1.1", "1.1.1.1", "1.0.0.1", "8.8.8.8"]), 443);
        let shown: Vec<_> = order.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1.1.1.1:443", "[2606:4700::1]:443", "1.0.0.1:443", "[2606:4700::2]:443"]);
    }
}
