//! Bringing deliveries back from the store: at start, when their time comes, when there is room again.
//! Invariant: nothing unfinished is forgotten, however little of it is in memory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{EndpointId, IdKind, MessageId};
use bellwire_store::{DueCursor, StoreError};

use crate::Engine;
use crate::retries::LoadRetries;

/// Rows read from the store at a time.
const PAGE: usize = 2_048;
/// The longest sleep between looks at the clock: wall clocks are set, and slow endpoints must be noticed.
const TICK: Duration = Duration::from_millis(250);
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Starts what became due and what commits brought in.
pub async fn run_pump(engine: Arc<Engine>) {
    loop {
        engine.queue.work.notified().await;
        if engine.is_stopping() {
            return;
        }
        engine.pump();
    }
}

/// Timers: pauses and rate limits of the scheduler, hanging endpoints.
pub async fn run_timers(engine: Arc<Engine>) {
    while !engine.is_stopping() {
        let wake = engine.queue.tick();
        let now = engine.queue.now();
        let sleep = wake.map_or(TICK, |at| at.saturating_sub(now)).clamp(Duration::from_millis(1), TICK);
        tokio::time::sleep(sleep).await;
        if engine.queue.next_wake().is_some_and(|at| at <= engine.queue.now()) {
            engine.pump();
        }
    }
}

/// Retries: from the store into memory some time ahead, from memory into the scheduler on time.
pub async fn run_retries(engine: Arc<Engine>) {
    while !engine.is_stopping() {
        let now = engine.now();
        let (next, load) = engine.queue.release_due(now);
        if let Some(load) = load {
            load_retries(&engine, load).await;
            engine.queue.end_load();
            continue;
        }
        let sleep = next.map_or(TICK, |at| at.since(now)).clamp(Duration::from_millis(1), TICK);
        let _ = tokio::time::timeout(sleep, engine.queue.retry_changed.notified()).await;
    }
}

async fn load_retries(engine: &Engine, load: LoadRetries) {
    let mut after: Option<DueCursor> = None;
    loop {
        match engine.store.load_retries(bellwire_core::ShardSet::ALL, after, load.until, PAGE).await {
            Ok(page) => {
                let Some(last) = page.last() else { return };
                after = Some(DueCursor { due_at: last.due_at, message: last.message, endpoint: last.endpoint });
                let is_last = page.len() < PAGE;
                engine.queue.take_loaded_retries(&page);
                if is_last {
                    return;
                }
                // The first ones may start while the rest is read.
                let _ = engine.queue.release_due(engine.now());
                engine.pump();
            }
            Err(error) => {
                if is_closing(engine, &error) {
                    return;
                }
                tracing::warn!(%error, "retries could not be read from the store; trying again");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

/// First tries that were outstanding when the process last ended: all messages up to `last`.
async fn resume_first_tries(engine: &Engine, last: i64) {
    let mut after = None;
    let mut resumed = 0usize;
    loop {
        match engine.store.load_first_tries(None, after, PAGE).await {
            Ok((mut due, next)) => {
                let seen = due.len();
                due.retain(|delivery| delivery.message.key() <= last);
                let is_end = due.len() < seen;
                resumed += due.len();
                engine.queue.offer_first_tries(due);
                after = next;
                if next.is_none_or(|next| next.key() > last) || is_end {
                    break;
                }
            }
            Err(error) => {
                if is_closing(engine, &error) {
                    return;
                }
                tracing::warn!(%error, "queued deliveries could not be read from the store; trying again");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
    if resumed > 0 {
        tracing::info!(deliveries = resumed, "deliveries resumed");
    }
}

/// First tries from the store: those outstanding at the start, then those that did not fit into memory, once they do.
pub async fn run_first_tries(engine: Arc<Engine>, last: i64) {
    resume_first_tries(&engine, last).await;
    while !engine.is_stopping() {
        match engine.queue.begin_read_back() {
            Some((endpoint, _, from, known)) => read_back(&engine, endpoint, from, known).await,
            None => tokio::time::sleep(TICK).await,
        }
    }
}

async fn read_back(engine: &Engine, endpoint: EndpointId, from: MessageId, known: HashSet<MessageId>) {
    // `from` itself is wanted: start one key before it.
    let mut after = Some(MessageId::from_key_and_tail(from.key() - 1, [0xff; 12]));
    loop {
        match engine.store.load_first_tries(Some(endpoint), after, PAGE).await {
            Ok((due, next)) => {
                let fresh = due.into_iter().filter(|delivery| !known.contains(&delivery.message));
                if !engine.queue.offer_first_tries(fresh) {
                    return;
                }
                if next.is_none() {
                    engine.queue.end_read_back(endpoint);
                    return;
                }
                after = next;
            }
            Err(error) => {
                if is_closing(engine, &error) {
                    return;
                }
                tracing::warn!(%error, "queued deliveries could not be read from the store; trying again");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

fn is_closing(engine: &Engine, error: &StoreError) -> bool {
    engine.is_stopping() || matches!(error, StoreError::Closed)
}
