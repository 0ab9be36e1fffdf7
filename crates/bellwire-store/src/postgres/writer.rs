//! The lanes that write: each takes what waits, commits it as a batch on its own connection, tells the sink, answers all waiters.
//!
//! Two lanes accept, so that one batch is gathered and sent while the other commits. Two record (one, on a node with no more than half of the
//! shards), each the attempts of its endpoints, so that those of one delivery stay in order. While the database is away accepts are refused at once and records are kept.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bellwire_core::{SHARDS, Shard, Timestamp, limits};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::accept::Accept;
use super::accept_lane::AcceptLane;
use super::connection::{Conn, Db};
use super::doubt::DOUBTS_MAX;
use super::fault::Fault;
use super::inbox::{Company, Inbox};
use super::local::Local;
pub use super::local::LocalGuard;
use super::record_lane::RecordLane;
use super::row::StoredPayload;
use crate::pace::{Pace, Patience};
use crate::{Accepted, AttemptRecord, CommitSink, Membership, NewMessage, Result, StoreError, StoreReport};

/// Lanes are the numbers of a node's fences. These write batches:
pub const ACCEPT_LANES: i16 = 2;
pub const RECORD_LANES: i16 = 2;
/// Requeueing deliveries of local shards.
pub const REQUEUE_LANE: i16 = ACCEPT_LANES + RECORD_LANES;
/// Fetching what was handed over, and reading what stands in shards just claimed.
pub const TAKE_LANE: i16 = REQUEUE_LANE + 1;
pub const ADOPT_LANE: i16 = REQUEUE_LANE + 2;
/// So many fences a node has.
pub const LANES: i16 = REQUEUE_LANE + 3;
/// Connections the lanes keep to themselves, beside the pool's.
pub const CONNECTIONS: usize = 4;
/// Closing waits so long for what is queued.
const CLOSE_MAX: Duration = Duration::from_secs(15);
/// Between attempts to reach the database again, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// How long accepts wait for company.
const PATIENCE: Patience = Patience {
    costs: limits::BATCH_COSTS_BETWEEN,
    wait_max: Duration::from_micros(limits::BATCH_WAIT_US_MAX),
    messages: limits::BATCH_ITEMS_ENOUGH_MIN..=limits::BATCH_ITEMS_ENOUGH_MAX,
};

/// What the lanes have in common.
pub struct Shared {
    /// For looking things up.
    pub db: Db,
    /// For the lanes alone: whoever reads cannot keep them from writing.
    pub lanes: Db,
    pub sink: Arc<OnceLock<Arc<dyn CommitSink>>>,
    pub retention: Duration,
    pub local: Local,
    pub accepts: Inbox<Accept>,
    /// Of the batches of both lanes that accept.
    pace: Mutex<Pace>,
    /// Messages in batches that are not committed yet.
    unanswered: AtomicUsize,
    pub records: [Inbox<AttemptRecord>; RECORD_LANES as usize],
    /// So many of the lanes that record are given attempts.
    recording: AtomicUsize,
    pub doubts: Arc<Semaphore>,
    permits: Semaphore,
    /// Accept lanes that have no connection; if that is all of them, the database is away.
    disconnected: AtomicUsize,
    away_because: Mutex<String>,
    is_full: AtomicBool,
    /// The latest time anything written carried, in milliseconds.
    latest: AtomicI64,
    commits: AtomicU64,
    items: AtomicU64,
    micros: AtomicU64,
}

impl Shared {
    pub fn is_closed(&self) -> bool {
        self.accepts.is_closed()
    }

    /// Why nothing can be accepted, if so.
    pub fn away(&self) -> Option<StoreError> {
        let is_away = self.disconnected.load(Ordering::Relaxed) >= ACCEPT_LANES as usize;
        is_away.then(|| StoreError::Unavailable(self.away_because.lock().clone()))
    }

    pub fn set_full(&self, is_full: bool) {
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            match is_full {
                true => tracing::error!("the database's disk is full: writes are refused until there is space"),
                false => tracing::info!("the database has space again"),
            }
        }
    }

    /// What accepts that wait wait for.
    pub fn company(&self, messages: usize, since: tokio::time::Instant) -> Company {
        let pace = self.pace.lock();
        Company { until: pace.until(messages).map_or(since, tokio::time::Instant::from_std), enough: pace.enough() }
    }

    /// A lane has taken a batch of so many messages.
    pub fn began(&self, messages: usize) -> Instant {
        let unanswered = self.unanswered.fetch_add(messages, Ordering::Relaxed) + messages;
        // Before the pace is locked: whoever waits for company has locked the inbox first.
        let messages = unanswered + self.accepts.len();
        let now = Instant::now();
        self.pace.lock().begin(now, messages);
        now
    }

    /// That batch is committed, or is not.
    pub fn ended(&self, messages: usize, began: Instant) {
        self.unanswered.fetch_sub(messages, Ordering::Relaxed);
        self.pace.lock().end(began.elapsed());
    }

    /// Waiters whose accept was taken out of the queue make room.
    pub fn release(&self, accepts: usize) {
        self.permits.add_permits(accepts);
    }

    pub fn count(&self, items: usize, since: Instant) {
        self.set_full(false);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.items.fetch_add(items as u64, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn latest(&self) -> Timestamp {
        Timestamp(self.latest.load(Ordering::Relaxed))
    }

    pub fn saw(&self, at: Timestamp) {
        self.latest.fetch_max(at.as_millis(), Ordering::Relaxed);
    }

    /// A connection that answers, however long it takes to get one; the wait doubles up to a bound. An accept lane counts as gone from
    /// its loss, or from the first failure, until there is one. `None`: closing meanwhile.
    pub async fn connect(&self, is_accepting: bool, lost: Option<&StoreError>, mut while_away: impl FnMut()) -> Option<Conn> {
        let mut is_gone = false;
        let mut gone = |error: &StoreError| {
            *self.away_because.lock() = match error {
                StoreError::Unavailable(why) => why.clone(),
                other => other.to_string(),
            };
            if is_accepting && !std::mem::replace(&mut is_gone, true) {
                self.disconnected.fetch_add(1, Ordering::Relaxed);
            }
        };
        if let Some(error) = lost {
            gone(error);
            while_away();
        }
        let mut pause = PAUSE_MIN;
        loop {
            let connected = async {
                let conn = self.lanes.get().await?;
                // The pool may still have connections that broke unnoticed.
                conn.batch("").await.map(|()| conn)
            };
            match connected.await {
                Ok(conn) => {
                    if is_gone {
                        self.disconnected.fetch_sub(1, Ordering::Relaxed);
                    }
                    return Some(conn);
                }
                Err(_) if self.is_closed() => return None,
                Err(fault) => gone(&fault.into()),
            }
            while_away();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// What is to be done about a batch that failed.
pub enum Remedy {
    /// Make these days' partitions, then again.
    Partitions,
    /// Again: another transaction was in the way.
    Again,
    /// The connection is of no use any more.
    Reconnect,
    /// The disk is full: later.
    Later,
    /// Something in it cannot be written: in halves, until it is found.
    Halve,
}

pub fn remedy(fault: &Fault) -> Remedy {
    if fault.is_no_partition() {
        Remedy::Partitions
    } else if super::delivery::is_in_the_way(fault) || fault.is_statement_elsewhere() {
        Remedy::Again
    } else if fault.code().is_some_and(|code| *code == tokio_postgres::error::SqlState::DISK_FULL) {
        Remedy::Later
    } else if fault.is_outcome_unknown() || fault.code().is_some_and(|code| code.code() == "25006") {
        Remedy::Reconnect
    } else {
        Remedy::Halve
    }
}

/// The same error for each who waits.
pub fn same(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
        StoreError::Busy(what) => StoreError::Busy(what),
        StoreError::Full => StoreError::Full,
        StoreError::Closed => StoreError::Closed,
        StoreError::Corrupt(what) => StoreError::Corrupt(what.clone()),
        StoreError::Conflict { what, value } => StoreError::Conflict { what, value: value.clone() },
        other => StoreError::Io(other.to_string()),
    }
}

/// How many lanes record on a node with so many shards: as many for all shards together, whoever has them, since the database pays for
/// every batch of all nodes.
fn lanes_for(shards: usize) -> usize {
    let lanes = RECORD_LANES as usize;
    ((lanes * shards + SHARDS / 2) / SHARDS).clamp(1, lanes)
}

/// How long accepts wait for company at most, on a node with so many shards.
fn wait_max_for(shards: usize) -> Duration {
    let others = SHARDS.saturating_sub(shards);
    PATIENCE.wait_max + PATIENCE.wait_max.mul_f64(others as f64 / SHARDS as f64)
}

/// The writing half of the store.
pub struct Writer {
    shared: Arc<Shared>,
    lanes: Mutex<Vec<JoinHandle<()>>>,
}

impl Writer {
    /// Begins to write, on the current runtime.
    pub fn start(db: Db, lanes: Db, sink: Arc<OnceLock<Arc<dyn CommitSink>>>, retention: Duration) -> Arc<Self> {
        let shared = Arc::new(Shared {
            db,
            lanes,
            sink,
            retention,
            local: Local::new(),
            accepts: Inbox::new(),
            pace: Mutex::new(Pace::new(PATIENCE)),
            unanswered: AtomicUsize::new(0),
            records: std::array::from_fn(|_| Inbox::new()),
            recording: AtomicUsize::new(1),
            doubts: Arc::new(Semaphore::new(DOUBTS_MAX)),
            permits: Semaphore::new(limits::WRITER_QUEUE_MAX),
            disconnected: AtomicUsize::new(0),
            away_because: Mutex::new(String::new()),
            is_full: AtomicBool::new(false),
            latest: AtomicI64::new(0),
            commits: AtomicU64::new(0),
            items: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        });
        let mut lanes = Vec::new();
        for lane in 0..ACCEPT_LANES {
            lanes.push(tokio::spawn(AcceptLane::new(shared.clone(), lane).run()));
        }
        for lane in 0..RECORD_LANES {
            lanes.push(tokio::spawn(RecordLane::new(shared.clone(), lane).run()));
        }
        Arc::new(Self { shared, lanes: Mutex::new(lanes) })
    }

    /// Group commit: returns when the message is durable and the sink has been told.
    pub async fn accept(&self, new: Arc<NewMessage>) -> Result<Accepted> {
        if let Some(away) = self.shared.away() {
            return Err(away);
        }
        let payload = StoredPayload::of(new.message.payload.as_ref());
        self.reserve().await?;
        let (reply, answer) = oneshot::channel();
        if !self.shared.accepts.push(Accept { new, payload, reply }) {
            self.shared.release(1);
            return Err(StoreError::Closed);
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn reserve(&self) -> Result<()> {
        let wait = Duration::from_millis(limits::WRITER_WAIT_MS_MAX);
        tokio::time::timeout(wait, self.shared.permits.acquire())
            .await
            .map_err(|_| StoreError::Busy("too many writes are waiting"))?
            .map_err(|_| StoreError::Closed)?
            .forget();
        Ok(())
    }

    /// Keeps it until it is written; the caller bounds how many there are.
    pub fn record(&self, record: AttemptRecord) {
        let lane = usize::from(Shard::of(record.endpoint).0) % self.shared.recording.load(Ordering::Relaxed);
        if !self.shared.records[lane].push(record) {
            tracing::warn!("an attempt ended after the store was closed; it will be repeated");
        }
    }

    /// What is local, held steady until the guard is dropped.
    #[expect(clippy::unused_async, reason = "callers need not know that it never waits")]
    pub async fn local(&self) -> LocalGuard {
        self.shared.local.hold()
    }

    pub fn membership(&self) -> Option<Membership> {
        self.shared.local.membership()
    }

    pub async fn set_local(&self, shards: bellwire_core::ShardSet) {
        self.shared.recording.store(lanes_for(shards.len()), Ordering::Relaxed);
        self.shared.pace.lock().set_wait_max(wait_max_for(shards.len()));
        self.shared.local.set(shards).await;
    }

    pub async fn become_member(&self, membership: Option<Membership>) {
        self.shared.local.become_member(membership).await;
    }

    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// For finding out about a commit of unknown outcome; held meanwhile. `None`: too many are being found out about.
    pub fn doubt_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.shared.doubts.clone().try_acquire_owned().ok()
    }

    /// An error while nothing can be accepted.
    pub fn ping(&self) -> Result<()> {
        match self.shared.away() {
            Some(away) => Err(away),
            None if self.shared.is_closed() => Err(StoreError::Closed),
            None if self.shared.is_full.load(Ordering::Relaxed) => Err(StoreError::Full),
            None => Ok(()),
        }
    }

    /// Adds the writer's figures.
    pub fn report(&self, report: StoreReport) -> StoreReport {
        let shared = &self.shared;
        let mut report = report;
        report.commits_total = shared.commits.load(Ordering::Relaxed);
        report.commit_items_total = shared.items.load(Ordering::Relaxed);
        report.commit_seconds_total = Duration::from_micros(shared.micros.load(Ordering::Relaxed)).as_secs_f64();
        report.writer_queue = limits::WRITER_QUEUE_MAX.saturating_sub(shared.permits.available_permits()) as u64;
        report.is_full = shared.is_full.load(Ordering::Relaxed);
        let waiting: usize = shared.records.iter().map(Inbox::len).sum();
        report.notes.push(format!("attempts waiting to be recorded: {waiting}"));
        let in_doubt = DOUBTS_MAX.saturating_sub(shared.doubts.available_permits());
        if in_doubt > 0 {
            report.notes.push(format!("batches in doubt: {in_doubt}"));
        }
        report
    }

    /// Writes what is queued and ends. While the database is away: gives up, and what was not recorded is repeated.
    pub async fn close(&self) {
        self.stop();
        let lanes = std::mem::take(&mut *self.lanes.lock());
        let deadline = tokio::time::Instant::now() + CLOSE_MAX;
        for mut lane in lanes {
            if tokio::time::timeout_at(deadline, &mut lane).await.is_err() {
                lane.abort();
            }
        }
        self.shared.lanes.close();
    }

    fn stop(&self) {
        self.shared.permits.close();
        self.shared.accepts.close();
        self.shared.records.iter().for_each(Inbox::close);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes from the front up to the limits of a batch, and nothing that stands in it already.
pub struct BatchBounds<K> {
    seen: HashSet<K>,
    items: usize,
    bytes: usize,
    deliveries: usize,
}

impl<K: std::hash::Hash + Eq> BatchBounds<K> {
    pub fn new() -> Self {
        Self { seen: HashSet::new(), items: 0, bytes: 0, deliveries: 0 }
    }

    /// `deliveries`: how many it begins. The first one fits, whatever its size.
    pub fn fits(&mut self, key: Option<K>, bytes: usize, deliveries: usize) -> bool {
        if self.items >= limits::GROUP_ITEMS_MAX || self.bytes >= limits::GROUP_BYTES_MAX {
            return false;
        }
        if self.items > 0 && self.deliveries.saturating_add(deliveries) > limits::GROUP_DELIVERIES_MAX {
            return false;
        }
        if let Some(key) = key
            && !self.seen.insert(key)
        {
            return false;
        }
        self.items += 1;
        self.bytes += bytes;
        self.deliveries += deliveries;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: of several nodes, each sends small batches from as many lanes as if it were alone; or one without shards has no lane.
    #[test]
    fn nodes_share_the_lanes_that_record_as_they_share_the_shards() {
        for (shards, lanes) in [(0, 1), (85, 1), (128, 1), (130, 1), (200, 2), (SHARDS, 2)] {
            assert_eq!(lanes_for(shards), lanes, "{shards}");
        }
    }

    /// Broken: the database pays for twice as many batches when there are two nodes; or one alone waits as long as if there were others.
    #[test]
    fn a_node_with_few_shards_waits_longer_for_company() {
        for (shards, wait_us) in [(SHARDS, 4_000), (SHARDS / 2, 6_000), (0, 8_000)] {
            assert_eq!(wait_max_for(shards), Duration::from_micros(wait_us), "{shards}");
        }
    }

    /// Broken: messages to a thousand endpoints each go to the server in one statement of half a million rows.
    #[test]
    fn a_batch_ends_before_it_begins_too_many_deliveries_but_one_message_always_fits() {
        let batch_of = |deliveries: usize| {
            let mut bounds = BatchBounds::<u8>::new();
            (0..).take_while(|_: &usize| bounds.fits(None, 1, deliveries)).count()
        };
        assert_eq!(batch_of(limits::ENDPOINTS_PER_APPLICATION_MAX), 8);
        assert_eq!(batch_of(limits::GROUP_DELIVERIES_MAX), 1);
        assert_eq!(batch_of(limits::GROUP_DELIVERIES_MAX + 1), 1);
        assert_eq!(batch_of(1), limits::GROUP_ITEMS_MAX);
        assert_eq!(batch_of(0), limits::GROUP_ITEMS_MAX);
    }
}
