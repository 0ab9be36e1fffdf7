//! What an operator can set about the pipe. Filled by the binary; every field has a default that works.

use std::time::Duration;

use bellwire_core::egress::EgressPolicy;
use bellwire_core::{RetryPolicy, limits};

use crate::link::LinkConfig;

/// Names of the three signature headers: `webhook-id` … (Standard Webhooks) or `svix-id` ….
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeaderPrefix {
    #[default]
    Webhook,
    Svix,
}

impl HeaderPrefix {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Svix => "svix",
        }
    }
}

/// The kind of key a new endpoint gets when the caller brings none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SigningDefault {
    #[default]
    HmacSha256,
    Ed25519,
}

#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub retry: RetryPolicy,
    /// Connecting, sending and reading the answer of one attempt together.
    pub request_timeout: Duration,
    /// An endpoint that has done nothing but fail for this long is disabled; `None`: never.
    pub disable_after: Option<Duration>,
    pub egress: EgressPolicy,
    /// `http://host:port` of a forward proxy for deliveries.
    pub proxy: Option<String>,
    pub header_prefix: HeaderPrefix,
    pub signing_default: SigningDefault,
    pub user_agent: String,
    /// Attempts running (or not yet recorded) at once: what a crash may repeat.
    pub in_flight_max: usize,
    /// Attempts running at once for one endpoint at most.
    pub endpoint_window_max: usize,
    /// Messages older than this are removed.
    pub retention: Duration,
    /// What this node is called among several.
    pub node_name: String,
    /// Whether it delivers; else it only accepts what other nodes deliver. A node of a store of its own always delivers.
    pub is_worker: bool,
    /// A node that has not been heard of for this long has lost its work to the others. Several heartbeats (of half a second).
    pub lease: Duration,
    /// How other nodes of the database reach this one directly; `None`: everything between nodes goes through the database.
    pub link: Option<LinkConfig>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            request_timeout: Duration::from_secs(15),
            disable_after: Some(Duration::from_secs(5 * 86_400)),
            egress: EgressPolicy::default(),
            proxy: None,
            header_prefix: HeaderPrefix::default(),
            signing_default: SigningDefault::default(),
            user_agent: concat!("Bellwire/", env!("CARGO_PKG_VERSION")).to_owned(),
            in_flight_max: limits::IN_FLIGHT_MAX,
            endpoint_window_max: limits::ENDPOINT_WINDOW_MAX,
            retention: Duration::from_secs(90 * 86_400),
            node_name: "bellwire".to_owned(),
            is_worker: true,
            lease: Duration::from_secs(3),
            link: None,
        }
    }
}
