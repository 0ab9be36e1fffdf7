//! Counters for `/metrics`; names follow the steps of the pipe.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds; receivers answer within milliseconds or run into the timeout.
const LATENCY_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

pub struct Metrics {
    registry: Registry,
    pub messages_accepted: Counter,
    pub attempts_recorded: Counter,
    pub deliveries_cancelled: Counter,
    pub endpoints_disabled: Counter,
    pub operational_dropped: Counter,
    pub attempts_fenced: Counter,
    pub lease_losses: Counter,
    pub nodes_declared_dead: Counter,
    pub handed_over: Counter,
    pub told: Counter,
    pub forwarded: Counter,
    pub forwards_unanswered: Counter,
    attempts_succeeded: Counter,
    attempts_failed: Counter,
    attempt_seconds: Histogram,
    pub queued: Gauge,
    pub queued_quick: Gauge,
    pub in_flight: Gauge,
    pub retries_waiting: Gauge,
    pub store_bytes: Gauge,
    pub store_segments: Gauge,
    pub store_commits: Gauge,
    pub store_commit_items: Gauge,
    pub store_full: Gauge,
    pub shards_owned: Gauge,
    pub nodes: Gauge,
    pub links: Gauge,
    pub epoch: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("bellwire");
        macro_rules! register {
            ($kind:ty, $name:literal, $help:literal) => {{
                let metric = <$kind>::default();
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        let attempt_seconds = Histogram::new(LATENCY_BUCKETS);
        registry.register("deliver_attempt_seconds", "Time from sending to the end of the answer", attempt_seconds.clone());
        Self {
            messages_accepted: register!(Counter, "ingest_messages", "Messages accepted durably"),
            attempts_recorded: register!(Counter, "record_attempts", "Attempts recorded durably"),
            deliveries_cancelled: register!(Counter, "deliver_cancelled", "Deliveries ended without an attempt"),
            endpoints_disabled: register!(Counter, "endpoints_disabled", "Endpoints disabled by Bellwire"),
            operational_dropped: register!(Counter, "operational_dropped", "Operational events dropped because too many waited"),
            attempts_fenced: register!(
                Counter,
                "record_attempts_fenced",
                "Attempts that counted for nothing: the node had lost its lease"
            ),
            lease_losses: register!(
                Counter,
                "shard_lease_losses",
                "Times this node lost all its shards: declared dead by another, or the database had forgotten"
            ),
            nodes_declared_dead: register!(Counter, "shard_nodes_declared_dead", "Nodes this one declared dead"),
            handed_over: register!(
                Counter,
                "shard_deliveries_handed_over",
                "Deliveries accepted by other nodes and taken over from them"
            ),
            told: register!(
                Counter,
                "shard_deliveries_told",
                "Of these, deliveries whose message the other node had sent along over a link"
            ),
            forwarded: register!(
                Counter,
                "link_messages_forwarded",
                "Messages accepted by the node that delivers them, over a link"
            ),
            forwards_unanswered: register!(
                Counter,
                "link_messages_unanswered",
                "Messages sent over a link and not answered: this node accepted them itself"
            ),
            attempts_succeeded: register!(Counter, "deliver_attempts_succeeded", "Attempts answered with 2xx"),
            attempts_failed: register!(Counter, "deliver_attempts_failed", "Attempts answered with anything else, or not at all"),
            queued: register!(Gauge, "queue_deliveries", "Deliveries queued in memory"),
            queued_quick: register!(Gauge, "queue_deliveries_quick", "Of these, for endpoints that answer quickly"),
            in_flight: register!(Gauge, "deliver_in_flight", "Attempts running or not yet recorded"),
            retries_waiting: register!(Gauge, "retry_waiting", "Retries waiting in memory for their time"),
            store_bytes: register!(Gauge, "store_bytes", "Size of the store on disk"),
            store_segments: register!(Gauge, "store_segments", "Segment files"),
            store_commits: register!(Gauge, "store_commits", "Commits since the start"),
            store_commit_items: register!(Gauge, "store_commit_items", "Items in these commits"),
            store_full: register!(Gauge, "store_full", "1 while the disk is full and writing waits"),
            shards_owned: register!(Gauge, "shard_owned", "Shards whose deliveries this node makes"),
            links: register!(Gauge, "link_peers", "Other nodes with whom there is a direct link"),
            nodes: register!(Gauge, "shard_nodes", "Nodes alive, this one included"),
            epoch: register!(Gauge, "shard_epoch", "This node's membership; larger than all before it"),
            attempt_seconds,
            registry,
        }
    }

    pub fn attempt(&self, is_success: bool, duration: Duration) {
        if is_success {
            self.attempts_succeeded.inc();
        } else {
            self.attempts_failed.inc();
        }
        self.attempt_seconds.observe(duration.as_secs_f64());
    }

    /// Prometheus text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
