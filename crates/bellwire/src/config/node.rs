//! `[node]`: what this process is among those that share a database.

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
}

/// Host names are at most 253 bytes (RFC 1035); nobody reads longer ones.
const NAME_BYTES_MAX: usize = 253;

pub const KEYS: &[Key; 3] = &[
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
];

impl Node {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [roles, name, lease] = KEYS;
        let (is_api, is_worker) = layers.required(roles, parse_roles)?;
        Ok(Self {
            is_api,
            is_worker,
            name: layers.required(name, parse_name)?,
            lease: layers
                .required(lease, |text| parse_duration_between(text, Duration::from_secs(1), Duration::from_secs(300)))?,
        })
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

    #[test]
    fn a_node_without_a_name_has_its_hosts() {
        assert!(!host_name().is_empty());
        assert!(parse_name("two words").is_err() && parse_name("hooks-1").is_ok());
    }
}
