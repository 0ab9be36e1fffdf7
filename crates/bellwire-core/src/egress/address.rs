//! Which addresses are special: the IANA special-purpose registries, cloud metadata services, and for IPv6 everything
//! that is not global unicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::RefusalKind::{self, *};

/// Most specific first: the first network that holds the address names the reason.
const V4: &[([u8; 4], u8, RefusalKind)] = &[
    // Metadata and credential services live all over 169.254/16 (AWS, GCP, Azure, ECS .170.2, EKS .170.23, Tencent .0.23).
    ([169, 254, 0, 0], 16, Metadata),
    // Alibaba Cloud; Oracle Cloud Classic; Azure WireServer, which is a public address.
    ([100, 100, 100, 200], 32, Metadata),
    ([192, 0, 0, 192], 32, Metadata),
    ([168, 63, 129, 16], 32, Metadata),
    ([0, 0, 0, 0], 8, Unspecified),
    ([10, 0, 0, 0], 8, Private),
    ([100, 64, 0, 0], 10, Private),
    ([127, 0, 0, 0], 8, Loopback),
    ([172, 16, 0, 0], 12, Private),
    ([192, 0, 0, 0], 24, Reserved),
    ([192, 0, 2, 0], 24, Documentation),
    ([192, 88, 99, 0], 24, Tunnel),
    ([192, 168, 0, 0], 16, Private),
    ([198, 18, 0, 0], 15, Documentation),
    ([198, 51, 100, 0], 24, Documentation),
    ([203, 0, 113, 0], 24, Documentation),
    ([224, 0, 0, 0], 4, Multicast),
    ([240, 0, 0, 0], 4, Reserved),
];

/// Groups of the network address, prefix length. Everything outside 2000::/3 that is not named here is `Reserved`.
const V6: &[([u16; 8], u8, RefusalKind)] = &[
    // AWS IMDS and EKS (fd00:ec2::/32), GCP (fd20:ce::254).
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, Metadata),
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0], 32, Metadata),
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, Unspecified),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Loopback),
    // The rest of ::/8 (IPv4-compatible, IPv4-translated, …); 64:ff9b::/96 is decoded before it comes here.
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 32, Tunnel),
    ([0, 0, 0, 0, 0, 0, 0, 0], 8, Tunnel),
    // IETF protocol assignments with Teredo, benchmarking, ORCHID.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Tunnel),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Documentation),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Tunnel),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Documentation),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Private),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LinkLocal),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Private),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Multicast),
];

/// The address that a packet really goes to: the IPv4 address inside `::ffff:0:0/96` and the NAT64 prefix `64:ff9b::/96`.
pub(super) fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => ip,
    }
}

/// Why an address is special; `None` for public unicast. Expects a [`canonical`] address.
pub(super) fn classify(ip: IpAddr) -> Option<RefusalKind> {
    match ip {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits();
            let holds = |net: [u8; 4], prefix: u8| (bits ^ Ipv4Addr::from(net).to_bits()) >> (32 - u32::from(prefix)) == 0;
            V4.iter().find(|(net, prefix, _)| holds(*net, *prefix)).map(|(_, _, kind)| *kind)
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let holds = |net: [u16; 8], prefix: u8| (bits ^ Ipv6Addr::from(net).to_bits()) >> (128 - u32::from(prefix)) == 0;
            V6.iter().find(|(net, prefix, _)| holds(*net, *prefix)).map(|(_, _, kind)| *kind).or_else(|| {
                let is_global_unicast = holds([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
                (!is_global_unicast).then_some(Reserved)
            })
        }
    }
}
