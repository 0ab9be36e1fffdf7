//! What other nodes have for this one: deliveries they accepted for its shards, and applications they changed.

use std::sync::Arc;
use std::time::Duration;

use bellwire_store::{Changes, Known, NewMessage, StoreError};
use tokio::time::Instant;

use crate::Engine;

/// While there are other nodes: what a delivery accepted elsewhere waits at most, on top of the rest.
const POLL: Duration = Duration::from_millis(25);
/// While all of them say when there is something: what was delivered by their word is deleted, and what no word came of is found.
const POLL_TOLD: Duration = Duration::from_millis(250);
/// While there are none. What this node accepted while it was gaining the shard comes this way too, and is asked for at once
/// when it has.
const POLL_ALONE: Duration = Duration::from_secs(1);
/// Between two fetches of deliveries that peers told of: as long as the last one took and as long again, within these bounds.
const GATHER_MIN: Duration = Duration::from_millis(5);
const GATHER_MAX: Duration = Duration::from_millis(25);
const AFTER_ERROR: Duration = Duration::from_millis(250);

/// When to fetch again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    AtOnce,
    Soon,
    WhenTold,
}

pub async fn run_exchange(engine: Arc<Engine>) {
    let mut looked_at: Option<Instant> = None;
    // Only deliveries of messages that peers told of.
    let mut is_told = false;
    while !engine.is_stopping() {
        let gained = engine.shards.gained.notified();
        let began = Instant::now();
        let result = if is_told && looked_at.is_some_and(|at| began - at < POLL_TOLD) {
            Ok(())
        } else {
            looked_at = Some(began);
            forget_changed(&engine).await
        };
        let result = match result {
            Ok(()) => fetch(&engine, engine.links.is_told()).await,
            Err(error) => Err(error),
        };
        engine.links.forget_old();
        let gather = (began.elapsed() * 2).clamp(GATHER_MIN, GATHER_MAX);
        let pause = match result {
            Ok(Next::AtOnce) => continue,
            Ok(Next::Soon) => gather,
            Ok(Next::WhenTold) if engine.shards.others() > 0 && engine.links.is_told() => POLL_TOLD,
            Ok(Next::WhenTold) if engine.shards.others() > 0 => POLL,
            Ok(Next::WhenTold) => POLL_ALONE,
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::debug!(%error, "other nodes' deliveries and changes could not be read; trying again");
                AFTER_ERROR
            }
        };
        is_told = false;
        // What comes steadily is fetched in batches.
        tokio::select! {
            () = engine.sleep(pause) => {}
            () = gained => {}
            () = engine.links.nudged.notified() => engine.sleep(POLL.saturating_sub(began.elapsed())).await,
            () = engine.links.told.notified() => {
                is_told = true;
                engine.sleep(gather.saturating_sub(began.elapsed())).await;
            }
        }
    }
}

/// Takes in what was handed over for shards that stay: all of it, or without what peers may be about to tell of.
pub async fn fetch(engine: &Engine, is_told: bool) -> Result<Next, StoreError> {
    // What was fetched is in memory before its shard can be given up, and so before anybody else reads it.
    let _turn = engine.shards.turn.lock().await;
    let holdings = engine.shards.holdings();
    let shards = holdings.local.without(&holdings.leaving);
    if shards.is_empty() {
        return Ok(Next::WhenTold);
    }
    let known = Known { message: &|key| engine.links.heard(key), is_told };
    let handed = engine.store.take_handed_over(shards, known).await?;
    let next = match (handed.more, handed.left) {
        (true, _) => Next::AtOnce,
        (false, true) => Next::Soon,
        (false, false) => Next::WhenTold,
    };
    engine.metrics.told.inc_by(handed.told as u64);
    let count = engine.queue.offer_handed_over(handed);
    if count > 0 {
        engine.metrics.handed_over.inc_by(count as u64);
        engine.pump();
    }
    Ok(next)
}

/// Takes in what a peer has just accepted for this node. What that is not certain of is looked for.
pub fn take_by_word(engine: &Engine, told: Vec<Arc<NewMessage>>) {
    if told.is_empty() {
        return;
    }
    let (local, settled) = engine.shards.local_and_settled();
    let mut deliveries = Vec::new();
    for new in told {
        for endpoint in new.endpoints.iter().filter(|endpoint| settled.has(**endpoint)) {
            if engine.store.take_by_word(new.message.id, *endpoint) {
                deliveries.push((*endpoint, new.clone()));
            }
        }
        if new.endpoints.iter().any(|endpoint| local.has(*endpoint) && !settled.has(*endpoint)) {
            engine.links.hear(new);
        }
    }
    if deliveries.is_empty() {
        return;
    }
    engine.metrics.told.inc_by(deliveries.len() as u64);
    engine.metrics.handed_over.inc_by(deliveries.len() as u64);
    engine.queue.offer_by_word(deliveries);
    engine.pump();
}

async fn forget_changed(engine: &Engine) -> Result<(), StoreError> {
    match engine.store.changes().await? {
        Changes::All => engine.forget_caches(),
        Changes::Some(apps) if apps.is_empty() => {}
        Changes::Some(apps) => engine.applications_changed(&apps),
    }
    Ok(())
}
