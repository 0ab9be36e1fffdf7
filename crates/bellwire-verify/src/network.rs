//! Ranges of addresses, for providers that sign nothing but send from known addresses.

use std::net::IpAddr;

/// An address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    address: IpAddr,
    bits: u8,
}

impl Range {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    /// IPv4 addresses that came in over an IPv6 socket count as what they are.
    pub(crate) fn contains(&self, peer: IpAddr) -> bool {
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => {
                let shift = 32 - u32::from(self.bits);
                own.to_bits().checked_shr(shift).unwrap_or(0) == peer.to_bits().checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(own), IpAddr::V6(peer)) => {
                let shift = 128 - u32::from(self.bits);
                own.to_bits().checked_shr(shift).unwrap_or(0) == peer.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: an address outside of the provider's ranges counts as inside.
    #[test]
    fn ranges_hold_their_own_addresses_only() {
        let is_in = |range: &str, peer: &str| Range::parse(range).unwrap().contains(peer.parse().unwrap());
        assert!(is_in("192.0.2.0/24", "192.0.2.255") && is_in("192.0.2.7", "192.0.2.7") && is_in("0.0.0.0/0", "8.8.8.8"));
        assert!(is_in("192.0.2.0/24", "::ffff:192.0.2.1") && is_in("2001:db8::/32", "2001:db8::1"));
        assert!(!is_in("192.0.2.0/24", "192.0.3.0") && !is_in("192.0.2.0/24", "2001:db8::1") && !is_in("0.0.0.0/0", "::1"));
        for bad in ["", "192.0.2.0/33", "192.0.2", "192.0.2.0/-1", "a/8", "::/129", "1.2.3.4/"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }
}
