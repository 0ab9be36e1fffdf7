//! Chores: retention, sizes, health, closing.

use std::time::Duration;

use async_trait::async_trait;
use bellwire_core::Timestamp;

use crate::Result;

/// What one retention run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    pub segments_removed: u64,
    pub bytes_freed: u64,
    pub payloads_expired: u64,
    /// More to do: call again soon.
    pub more: bool,
}

/// For `/metrics`, `doctor` and `bench`.
#[derive(Clone, Debug, Default)]
pub struct StoreReport {
    pub bytes_on_disk: u64,
    pub segments: u64,
    pub commits_total: u64,
    pub commit_items_total: u64,
    pub commit_seconds_total: f64,
    pub writer_queue: u64,
    /// The disk is full and writing waits for space.
    pub is_full: bool,
    /// Library version, journal mode, file paths: one line each, no secrets.
    pub notes: Vec<String>,
}

#[async_trait]
pub trait MaintenanceStore {
    /// Cheap: a read and the writer's state. An error means not ready.
    async fn ping(&self) -> Result<()>;
    /// The largest id key the store has seen, for the id generator at start.
    async fn last_key(&self) -> Result<i64>;
    /// To be called before the first message is accepted: makes what retention makes ahead of time from then on, so that nobody who
    /// publishes waits for it.
    async fn prepare(&self, now: Timestamp) -> Result<()>;
    /// One bounded step: drops what is older than `retention`, deletes payloads past their own expiry, forgets expired
    /// idempotency keys and tokens, starts a new segment when it is time.
    async fn retain(&self, now: Timestamp, retention: Duration) -> Result<RetentionReport>;
    async fn report(&self) -> Result<StoreReport>;
    /// Thorough: integrity of every file, for `doctor`. One line per finding; empty means sound.
    async fn check(&self) -> Result<Vec<String>>;
    /// Commits what is queued, checkpoints and releases the lock.
    async fn close(&self) -> Result<()>;
}
