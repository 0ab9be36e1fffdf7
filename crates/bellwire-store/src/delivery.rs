//! Deliveries: message × endpoint. Unfinished ones are stored, finished ones are their attempts.
//!
//! State machine: `queued` (first try outstanding) → delivered | `retrying` (due at a time) → delivered | `exhausted` | `cancelled`.
//! Exhausted and cancelled ones stay visible and can be requeued.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bellwire_core::{AppId, Attempt, EndpointId, MessageId, ShardSet, Timestamp, Trigger};

use crate::{IdempotencyRecord, NewMessage, Result, Written};

/// An unfinished delivery as loaded for the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDelivery {
    pub message: MessageId,
    pub endpoint: EndpointId,
    pub app: AppId,
    /// Tries made so far.
    pub tries: u32,
    pub due_at: Timestamp,
    pub trigger: Trigger,
    /// A manual try interrupts the schedule: where the schedule goes on if it fails.
    pub resume_at: Option<Timestamp>,
}

/// Position in a scan of unfinished deliveries; opaque to callers but for its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueCursor {
    pub due_at: Timestamp,
    pub message: MessageId,
    pub endpoint: EndpointId,
}

/// What follows an attempt (or takes its place).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryNext {
    Delivered,
    RetryAt {
        at: Timestamp,
        tries: u32,
    },
    Exhausted {
        tries: u32,
    },
    /// Ended by a named actor, such as `endpoint disabled`.
    Cancelled {
        tries: u32,
        by: String,
    },
}

/// A completed attempt and its consequence, to be committed together. `attempt` is absent where nothing was sent (cancelled).
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    pub message: MessageId,
    pub endpoint: EndpointId,
    pub app: AppId,
    pub attempt: Option<Attempt>,
    pub next: DeliveryNext,
    /// `true`: this ended the first try, which stood in the message's queue row; `false`: a retry or a manual try.
    pub is_first_try: bool,
    /// The membership ([`crate::Membership`]) under which the attempt was begun. If that is over, the record changes nothing.
    pub epoch: i64,
}

/// Told on the writer's thread after each commit; must not block.
pub trait CommitSink: Send + Sync {
    /// These messages are durable: their deliveries in the `local` shards may start. In commit order. What commits them was sent at `begun`.
    fn accepted(&self, messages: &[Arc<NewMessage>], local: &ShardSet, begun: Instant);
    /// These deliveries in local shards were made due again: manual tries and recoveries. Durable.
    fn requeued(&self, deliveries: &[DueDelivery]);
    /// These attempts are durable.
    fn recorded(&self, attempts: &[AttemptRecord]);
    /// These attempts have changed nothing: the membership they were made under is over, and another node has their deliveries.
    fn fenced(&self, attempts: &[AttemptRecord]);
}

#[async_trait]
pub trait DeliveryStore {
    /// Who is told of commits; set once, before the first accept. Without one, nobody is told.
    fn set_sink(&self, sink: Arc<dyn CommitSink>);
    /// Hands a completed attempt to the writer and returns at once; [`CommitSink::recorded`] tells when it is durable.
    /// The caller bounds how many are outstanding. On a full disk the writer keeps it and tries again until there is space.
    fn record_attempt(&self, record: AttemptRecord);
    /// Deliveries whose first try is outstanding, in message order, after `after` (exclusive), at most about `limit`
    /// (a message's endpoints are never split). Optionally of one endpoint only. Empty: none left.
    /// `next` is where to go on even if the filter left this page empty; `None` when the scan is at its end.
    async fn load_first_tries(
        &self,
        endpoint: Option<EndpointId>,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<(Vec<DueDelivery>, Option<MessageId>)>;
    /// Pending retries and manual tries of these shards due at or before `until`, by due time, after `after` (exclusive), at most
    /// `limit`.
    async fn load_retries(
        &self,
        shards: ShardSet,
        after: Option<DueCursor>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueDelivery>>;
    /// Makes a finished or waiting delivery due now as a manual try (resend). A waiting schedule is remembered in `resume_at`. Before it
    /// returns, [`CommitSink::requeued`] is told if the shard is local; else the owner fetches it.
    async fn requeue(
        &self,
        app: AppId,
        message: MessageId,
        endpoint: EndpointId,
        now: Timestamp,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<DueDelivery>>;
    /// Unfinished deliveries: (first tries outstanding, retries waiting). Approximate on a large store is fine: a fan-out may
    /// count whole until the first try of its last endpoint is recorded.
    async fn count_unfinished(&self) -> Result<(u64, u64)>;
}
