//! Who sends: the address at the other end, or what trusted proxies say about it. Nobody else is believed.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;
use http::request::Parts;
use ipnet::IpNet;

/// The address at the other end of the connection, as the server saw it.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

/// Without a connection (a server of somebody else's) nothing is known, which no list of networks contains.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn peer(parts: &Parts) -> IpAddr {
    parts.extensions.get::<PeerAddress>().map_or(UNKNOWN, |peer| peer.0.to_canonical())
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Whether what the connection's other end adds to a request is believed.
pub fn is_from_trusted_proxy(parts: &Parts, trusted: &[IpNet]) -> bool {
    is_in(trusted, peer(parts))
}

/// The rightmost hop that is no trusted proxy: everything left of it could be the sender's invention.
pub fn client_address(parts: &Parts, trusted: &[IpNet]) -> IpAddr {
    let peer = peer(parts);
    if !is_in(trusted, peer) {
        return peer;
    }
    let mut last = peer;
    for hop in hops(&parts.headers).rev() {
        // What cannot be read was not written by a proxy of ours.
        let Some(address) = hop else { return last };
        last = address;
        if !is_in(trusted, address) {
            return address;
        }
    }
    last
}

/// Left to right, over all lines of the header.
fn hops(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = Option<IpAddr>> {
    let lines = headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?"));
    let parts: Vec<_> = lines.flat_map(|line| line.split(',')).map(|part| address_of(part.trim())).collect();
    parts.into_iter()
}

/// An address, also with a port or in brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    let plain = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    let parsed = plain.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    parsed.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let mut request = http::Request::builder().uri("/in/x");
        for line in forwarded {
            request = request.header("x-forwarded-for", *line);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(PeerAddress(peer.parse().unwrap()));
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().unwrap()).collect();
        client_address(&parts, &trusted).to_string()
    }

    /// Broken: whoever writes a header is let through a source's list of networks (T9).
    #[test]
    fn only_trusted_proxies_say_who_sends() {
        assert_eq!(seen("203.0.113.9", &["192.0.2.1"]), "203.0.113.9", "a stranger's header is believed");
        assert_eq!(seen("10.0.0.1", &["192.0.2.1, 203.0.113.9"]), "203.0.113.9", "what the sender wrote is believed");
        assert_eq!(seen("10.0.0.1", &["192.0.2.1, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["192.0.2.1", "203.0.113.9"]), "203.0.113.9", "lines are read in their order");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9:1234"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:443, fd00::1"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &["192.0.2.1, nonsense"]), "10.0.0.1", "nobody is taken for somebody else");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(seen("::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1", "IPv4 over an IPv6 socket");
    }
}
