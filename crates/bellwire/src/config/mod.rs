//! The configuration: one struct and one file a section, read from flag > environment > file > default.
//!
//! `key` is the table's row, `layer` gathers the rows' values with their origin, the section files parse them, `show` prints
//! them, `reference` writes the documentation. No configuration at all starts and works.

pub mod auth;
pub mod delivery;
pub mod egress;
pub mod error;
pub mod key;
pub mod layer;
pub mod log;
pub mod node;
pub mod reference;
pub mod security;
pub mod server;
pub mod show;
pub mod signing;
pub mod storage;
mod suggest;
#[cfg(test)]
mod tests;

use bellwire_engine::config::EngineConfig;

use auth::Auth;
use delivery::Delivery;
use egress::Egress;
pub use error::ConfigError;
use key::Key;
pub use layer::{Layers, Sources};
use log::Log;
use node::Node;
use security::Security;
use server::Server;
use signing::Signing;
use storage::{Backend, Storage};

/// All sections.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub storage: Storage,
    pub node: Node,
    pub auth: Auth,
    pub security: Security,
    pub egress: Egress,
    pub delivery: Delivery,
    pub signing: Signing,
    pub log: Log,
}

/// The sections in the order of the reference: title, one sentence, keys.
pub const SECTIONS: &[(&str, &str, &[Key])] = &[
    ("", "Where the server listens and keeps its data.", server::KEYS),
    ("storage", "What is kept, where, and for how long.", storage::KEYS),
    ("node", "What this process is among those that share a PostgreSQL database.", node::KEYS),
    ("auth", "Who may call the API, beside the keys made with `bellwire key create`.", auth::KEYS),
    ("security", "Secrets at rest.", security::KEYS),
    ("egress", "Where requests may go beyond the public internet.", egress::KEYS),
    ("delivery", "How deliveries are made and repeated.", delivery::KEYS),
    ("signing", "How deliveries are signed.", signing::KEYS),
    ("log", "What is logged, and in which form. Logs go to standard error.", log::KEYS),
];

/// Every key, in the order of the reference.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|(_, _, keys)| keys.iter())
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`], complete with place, key, value and what is accepted.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::read(&Layers::gather(sources)?)
    }

    /// Parses gathered layers.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let config = Self {
            server: Server::read(layers)?,
            storage: Storage::read(layers)?,
            node: Node::read(layers)?,
            auth: Auth::read(layers)?,
            security: Security::read(layers)?,
            egress: Egress::read(layers)?,
            delivery: Delivery::read(layers)?,
            signing: Signing::read(layers)?,
            log: Log::read(layers)?,
        };
        if config.delivery.endpoint_in_flight_max > config.delivery.in_flight_max {
            return Err(ConfigError::Together(format!(
                "delivery.endpoint_in_flight_max = {} is above delivery.in_flight_max = {}; lower the one or raise the other",
                config.delivery.endpoint_in_flight_max, config.delivery.in_flight_max
            )));
        }
        if matches!(config.storage.backend, Backend::Sqlite(_)) && !(config.node.is_api && config.node.is_worker) {
            return Err(ConfigError::Together(
                "node.roles must be api,worker on the embedded store, which has a single node; name a PostgreSQL database with \
                 storage.url (--database) to divide the roles"
                    .to_owned(),
            ));
        }
        Ok(config)
    }

    /// What the engine is started with. Our own listener is refused as a destination.
    pub fn engine(&self) -> EngineConfig {
        let mut egress = self.egress.policy.clone();
        egress.own.push(self.server.listen);
        EngineConfig {
            retry: self.delivery.retry.clone(),
            request_timeout: self.delivery.request_timeout,
            disable_after: self.delivery.disable_after,
            egress,
            proxy: self.delivery.proxy.clone(),
            header_prefix: self.delivery.header_prefix,
            signing_default: self.signing.default,
            user_agent: self.delivery.user_agent.clone(),
            in_flight_max: self.delivery.in_flight_max,
            endpoint_window_max: self.delivery.endpoint_in_flight_max,
            retention: self.storage.retention,
            node_name: self.node.name.clone(),
            is_worker: self.node.is_worker,
            lease: self.node.lease,
            // Needs the master key, and to know the way to the database.
            link: None,
        }
    }
}

/// `true` and its synonyms; the error says what is accepted.
fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// A whole number within bounds.
fn parse_count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    match digits.parse::<usize>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(number) => Err(format!("{number} is not between {min} and {max}")),
        Err(_) => Err(format!("{text:?} is not a whole number")),
    }
}

/// A duration within bounds.
fn parse_duration_between(text: &str, min: std::time::Duration, max: std::time::Duration) -> Result<std::time::Duration, String> {
    use bellwire_core::time::{format_duration, parse_duration};
    let duration = parse_duration(text)?;
    if (min..=max).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("{text} is not between {} and {}", format_duration(min), format_duration(max)))
    }
}
