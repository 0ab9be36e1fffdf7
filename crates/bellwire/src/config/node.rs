//! `[node]`: what this process is among those that share a database.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;
use super::parse_duration_between;

/// `[node]`
#[derive(Clone, Debug)]
pub struct Node {
    /// For people: in logs and in the table of nodes.
    pub name: String,
    /// Serves the API; else only health and metrics.
    pub is_api: bool,
    /// Delivers; else it only accepts.
    pub is_worker: bool,
    /// A node that has shown no life for this long is declared dead.
    pub lease: Duration,
    /// Where it listens for the other nodes.
    pub listen: NodeListen,
    /// `host` or `host:port` by which they reach it, if that is another.
    pub advertise: Option<String>,
}

/// Where a node listens for the other ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeListen {
    /// At the address by which it reaches the database, on any free port.
    Auto,
    At(SocketAddr),
    /// Not at all: everything between nodes goes through the database.
    Off,
}

/// Host names are at most 253 bytes (RFC 1035); nobody reads longer ones.
const NAME_BYTES_MAX: usize = 253;

pub const KEYS: &[Key; 5] = &[
    Key {
        path: "node.roles",
        default: "api,worker",
        example: "worker",
        accepts: "api, worker, or both separated by a comma",
        about: "What this node does. `api`: it takes requests; `worker`: it delivers. A node that is only a worker serves nothing \
                but `/healthz`, `/readyz` and `/metrics`. The embedded store has a single node, which must do both.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "node.name",
        default: "",
        example: "hooks-1",
        accepts: "1 to 253 visible ASCII characters without spaces",
        about: "What this node is called in logs and in the table of nodes. Default: the host's name.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "node.lease",
        default: "3s",
        example: "10s",
        accepts: "a duration from 1s to 5m",
        about: "A node that has shown no life for this long is declared dead by another, which takes over its deliveries. Longer: \
                a node survives longer pauses of itself or its network; shorter: others take over sooner. The same on all nodes.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "node.listen",
        default: "auto",
        example: "10.0.0.5:8072",
        accepts: "auto, off, or an address and a port such as 10.0.0.5:8072",
        about: "PostgreSQL only: where this node listens for the other ones, which pass on what is for it to deliver. Connections are \
                encrypted, and taken only from who has the same `security.master_key`. `auto`: the address by which it reaches the \
                database, on any free port. `off`, or where nobody gets through: everything between nodes goes through the database, \
                which costs more and takes some milliseconds longer.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "node.advertise",
        default: "",
        example: "hooks-1.internal:8072",
        accepts: "a host name or address, with or without a port",
        about: "What the other nodes are told to connect to, where that is not the address of `node.listen` (containers, NAT).",
        secrecy: Secrecy::Open,
    },
];

impl Node {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [roles, name, lease, listen, advertise] = KEYS;
        let (is_api, is_worker) = layers.required(roles, parse_roles)?;
        Ok(Self {
            is_api,
            is_worker,
            name: layers.required(name, parse_name)?,
            lease: layers
                .required(lease, |text| parse_duration_between(text, Duration::from_secs(1), Duration::from_secs(300)))?,
            listen: layers.required(listen, parse_listen)?,
            advertise: layers.optional(advertise, parse_advertise)?,
        })
    }
}

fn parse_listen(text: &str) -> Result<NodeListen, String> {
    match text {
        "auto" => Ok(NodeListen::Auto),
        "off" => Ok(NodeListen::Off),
        _ => text.parse().map(NodeListen::At).map_err(|_| format!("{text:?} is neither auto nor off, nor an address and a port")),
    }
}

fn parse_advertise(text: &str) -> Result<String, String> {
    let name = text.rsplit_once(':').map_or(text, |(host, port)| if port.parse::<u16>().is_ok() { host } else { text });
    let is_bracketed = name.starts_with('[') && name.ends_with(']');
    let is_host =
        if is_bracketed { name[1..name.len() - 1].parse::<Ipv6Addr>().is_ok() } else { !name.contains([':', '/', '@']) };
    if !name.is_empty() && is_host && parse_name(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no host name or address, with or without a port (an IPv6 address in brackets)"))
    }
}

/// (api, worker)
fn parse_roles(text: &str) -> Result<(bool, bool), String> {
    let (mut is_api, mut is_worker) = (false, false);
    for role in text.split(',').map(str::trim) {
        match role {
            "api" => is_api = true,
            "worker" => is_worker = true,
            "" => return Err("names no role".to_owned()),
            _ => return Err(format!("{role:?} is not a role")),
        }
    }
    Ok((is_api, is_worker))
}

fn parse_name(text: &str) -> Result<String, String> {
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not 1 to {NAME_BYTES_MAX} visible ASCII characters"))
    }
}

/// What the machine calls itself.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    parse_name(&name).unwrap_or_else(|_| "unnamed".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: a node that should only deliver answers the API, or one that should only accept delivers.
    #[test]
    fn roles_are_one_or_both() {
        assert_eq!(parse_roles("api"), Ok((true, false)));
        assert_eq!(parse_roles("worker"), Ok((false, true)));
        assert_eq!(parse_roles("worker, api"), Ok((true, true)));
        for wrong in ["", "api,", "apis", "worker api"] {
            assert!(parse_roles(wrong).is_err(), "{wrong:?} is taken");
        }
    }

    /// Broken: other nodes are told to connect to something that no name or address is.
    #[test]
    fn where_other_nodes_reach_it_is_a_host_with_or_without_a_port() {
        assert_eq!(parse_listen("auto"), Ok(NodeListen::Auto));
        assert_eq!(parse_listen("off"), Ok(NodeListen::Off));
        assert_eq!(parse_listen("[::1]:7"), Ok(NodeListen::At("[::1]:7".parse().unwrap())));
        for wrong in ["", "on", "10.0.0.5", "host:7"] {
            assert!(parse_listen(wrong).is_err(), "{wrong:?} is taken");
        }
        for right in ["hooks-1", "hooks-1.internal:8072", "10.0.0.5", "[fd00::5]", "[fd00::5]:8072"] {
            assert_eq!(parse_advertise(right).as_deref(), Ok(right));
        }
        for wrong in ["", ":7", "http://hooks-1", "fd00::5", "two words", "a@b", "host:70000"] {
            assert!(parse_advertise(wrong).is_err(), "{wrong:?} is taken");
        }
    }

    #[test]
    fn a_node_without_a_name_has_its_hosts() {
        assert!(!host_name().is_empty());
        assert!(parse_name("two words").is_err() && parse_name("hooks-1").is_ok());
    }
}
