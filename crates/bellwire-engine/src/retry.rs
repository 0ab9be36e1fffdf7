//! Bringing deliveries back from the store: when their time comes, when there is room again. (Those of shards just gained, and
//! all at the start: `shards/moving.rs`.)
//! Invariant: nothing unfinished is forgotten, however little of it is in memory.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{IdKind, MessageId};
use bellwire_store::{DueCursor, StoreError};

use crate::Engine;
use crate::retries::LoadRetries;
use crate::scheduler::ReadBack;
use crate::shards::{self, Next};

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
            if !load.shards.is_empty() {
                load_retries(&engine, load).await;
            }
            engine.queue.end_load(&load);
            continue;
        }
        let sleep = next.map_or(TICK, |at| at.since(now)).clamp(Duration::from_millis(1), TICK);
        let _ = tokio::time::timeout(sleep, engine.queue.retry_changed.notified()).await;
    }
}

async fn load_retries(engine: &Engine, load: LoadRetries) {
    let mut after: Option<DueCursor> = None;
    loop {
        match engine.store.load_retries(load.shards, after, load.until, PAGE).await {
            Ok(page) => {
                let Some(last) = page.last() else { return };
                after = Some(DueCursor { due_at: last.due_at, message: last.message, endpoint: last.endpoint });
                let is_last = page.len() < PAGE;
                if !engine.queue.take_loaded_retries(&page) || is_last {
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

/// First tries that did not fit into memory, once they do.
pub async fn run_first_tries(engine: Arc<Engine>) {
    while !engine.is_stopping() {
        match engine.queue.begin_read_back() {
            Some(begun) => read_back(&engine, &begun).await,
            None => tokio::time::sleep(TICK).await,
        }
    }
}

async fn read_back(engine: &Engine, begun: &ReadBack) {
    // The first one itself is wanted: start one key before it.
    let mut after = Some(MessageId::from_key_and_tail(begun.from.key() - 1, [0xff; 12]));
    loop {
        match read_page(engine, begun, after).await {
            Ok(Some(next)) => after = Some(next),
            Ok(None) => return,
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

/// Where to go on.
async fn read_page(engine: &Engine, begun: &ReadBack, after: Option<MessageId>) -> Result<Option<MessageId>, StoreError> {
    let (due, next) = engine.store.load_first_tries(Some(begun.endpoint), after, PAGE).await?;
    let fresh = due.into_iter().filter(|delivery| !begun.known.contains(&delivery.message));
    if !engine.queue.offer_read_back(begun, fresh) {
        return Ok(None);
    }
    if next.is_none() {
        // What was read may have been handed over too, and not fetched yet: as long as the endpoint overflows, that is not
        // taken in.
        fetch_all(engine).await;
        engine.queue.end_read_back(begun);
    }
    Ok(next)
}

async fn fetch_all(engine: &Engine) {
    while engine.shards.is_shared() {
        match shards::fetch(engine, false).await {
            Ok(Next::WhenTold) => return,
            Ok(_) => {}
            Err(error) if is_closing(engine, &error) => return,
            Err(_) => tokio::time::sleep(STORE_RETRY).await,
        }
    }
}

fn is_closing(engine: &Engine, error: &StoreError) -> bool {
    engine.is_stopping() || matches!(error, StoreError::Closed)
}
