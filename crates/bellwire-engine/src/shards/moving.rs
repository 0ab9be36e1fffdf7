//! Taking shards and giving them up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellwire_core::ShardSet;
use bellwire_store::{DueDelivery, StoreError};
use tokio::time::Instant;

use super::STORE_RETRY;
use crate::Engine;

/// Whether what was to be given up has drained is looked at this often.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// Announcing it is a courtesy.
const RETIRE_MAX: Duration = Duration::from_millis(500);
/// Ending the membership takes one statement; a database that is away ends it by itself after a lease.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// Everything unfinished in the store of this process alone: up to `last_key`, the last key before it accepted anything.
pub async fn adopt_alone(engine: Arc<Engine>, last_key: i64) {
    let mut resumed = 0;
    let mut last = None;
    loop {
        // In message order, and no message is divided: after an error, what was taken in is passed over.
        let mut feed = |due: Vec<DueDelivery>| {
            let fresh: Vec<_> = due.into_iter().filter(|due| last.is_none_or(|last| due.message > last)).collect();
            last = fresh.last().map(|due| due.message).or(last);
            resumed += fresh.len();
            engine.queue.offer_adopted(0, fresh);
        };
        match engine.store.adopt(ShardSet::ALL, last_key, &mut feed).await {
            Ok(()) => break,
            Err(StoreError::Closed) => return,
            Err(_) if engine.is_stopping() => return,
            Err(error) => {
                tracing::warn!(%error, "queued deliveries could not be read from the store; trying again");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
    engine.queue.complete(&ShardSet::ALL);
    if resumed > 0 {
        tracing::info!(deliveries = resumed, "deliveries resumed");
    }
}

/// Reads what is unfinished of shards claimed, and then starts it; and so on with those that were claimed meanwhile.
pub async fn adopt(engine: Arc<Engine>, epoch: i64) {
    loop {
        let mut next = None;
        engine.shards.change(|holdings| next = holdings.next_to_read());
        let Some(shards) = next else { return };
        // If it comes to nothing, the membership is over or the engine stops: nobody is to go on.
        if !adopt_these(&engine, epoch, shards).await {
            return;
        }
    }
}

/// False: the membership is over, or the engine stops.
async fn adopt_these(engine: &Engine, epoch: i64, shards: ShardSet) -> bool {
    let began = Instant::now();
    let resumed = loop {
        let mut resumed = 0usize;
        engine.queue.gain(&shards);
        let mut feed = |due: Vec<DueDelivery>| {
            resumed += due.len();
            engine.queue.offer_adopted(epoch, due);
        };
        match engine.store.adopt(shards, 0, &mut feed).await {
            Ok(()) => break resumed,
            Err(StoreError::Closed | StoreError::Fenced) => return false,
            Err(error) => {
                // From the beginning: nothing of it has started.
                engine.queue.purge(&shards);
                tracing::warn!(%error, "queued deliveries could not be read from the store; trying again");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
        if engine.is_stopping() || engine.shards.epoch() != epoch {
            return false;
        }
    };
    // What was cached of their endpoints is of the time before, if they were this node's once.
    engine.routes.clear();
    let turn = engine.shards.turn.lock().await;
    let local = engine.shards.holdings().local.union(&shards);
    if !set_local(engine, epoch, local).await {
        return false;
    }
    engine.shards.change(|holdings| {
        holdings.local = local;
        holdings.gained_at = engine.shards.clock.now();
        holdings.adopting = holdings.adopting.without(&shards);
    });
    drop(turn);
    engine.queue.activate(&shards);
    engine.shards.gained.notify_waiters();
    tracing::info!(
        gained = shards.len(),
        owned = local.len(),
        node.epoch = epoch,
        deliveries = resumed,
        duration_ms = began.elapsed().as_secs_f64() * 1e3,
        "shards gained"
    );
    true
}

/// Stops delivering of these shards and gives each up once nothing of it is in flight.
pub async fn give_up(engine: Arc<Engine>, epoch: i64, shards: ShardSet) {
    engine.queue.hold(&shards);
    // Shares of applications' rates are worked out again.
    engine.routes.clear();
    let mut left = shards;
    while !left.is_empty() && engine.shards.epoch() == epoch {
        let drained = engine.queue.drained(&left);
        if drained.is_empty() {
            tokio::time::sleep(DRAIN_LOOK).await;
            continue;
        }
        let _turn = engine.shards.turn.lock().await;
        let local = engine.shards.holdings().local.without(&drained);
        if !set_local(&engine, epoch, local).await {
            return;
        }
        engine.shards.change(|holdings| holdings.local = local);
        engine.queue.purge(&drained);
        if !release(&engine, epoch, drained).await {
            return;
        }
        engine.shards.change(|holdings| holdings.leaving = holdings.leaving.without(&drained));
        left = left.without(&drained);
        tracing::info!(given_up = drained.len(), owned = local.len(), node.epoch = epoch, "shards given up");
    }
}

/// False: the membership is over, and so is this.
async fn set_local(engine: &Engine, epoch: i64, local: ShardSet) -> bool {
    loop {
        if engine.shards.epoch() != epoch {
            return false;
        }
        match engine.store.set_local(local).await {
            Ok(()) => return true,
            Err(StoreError::Closed | StoreError::Fenced) => return false,
            Err(error) => retry_later("local shards not set", &error).await,
        }
    }
}

async fn release(engine: &Engine, epoch: i64, shards: ShardSet) -> bool {
    loop {
        if engine.shards.epoch() != epoch {
            return false;
        }
        match engine.store.release_shards(shards).await {
            Ok(()) => return true,
            Err(StoreError::Closed | StoreError::Fenced) => return false,
            Err(error) => retry_later("shards not given up yet", &error).await,
        }
    }
}

async fn retry_later(what: &'static str, error: &StoreError) {
    tracing::warn!(%error, "{what}; trying again");
    tokio::time::sleep(STORE_RETRY).await;
}

/// Gives everything up as it drains, until `deadline`, and ends the membership.
pub async fn leave(engine: &Engine, deadline: Instant) {
    let Some(engine) = engine.this.upgrade() else { return };
    let holdings = engine.shards.holdings();
    let rest = holdings.local.without(&holdings.leaving);
    engine.shards.change(|holdings| holdings.leaving = holdings.leaving.union(&rest));
    let epoch = engine.shards.epoch();
    // So that the others take each shard as it comes free, not when this node has left.
    match tokio::time::timeout(RETIRE_MAX, engine.store.retire()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "retirement not announced"),
        Err(_) => tracing::debug!("retirement not announced in time"),
    }
    let _ = tokio::time::timeout_at(deadline, give_up(engine.clone(), epoch, rest)).await;
    while engine.queue.in_flight() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    engine.shards.has_left.store(true, Ordering::Release);
    engine.shards.hurry.notify_one();
    match tokio::time::timeout(LEAVE_MAX, engine.store.leave()).await {
        Ok(Ok(())) => tracing::info!(node.epoch = epoch, "left"),
        Ok(Err(error)) => tracing::warn!(%error, "not left in order: others take over when the lease has run out"),
        Err(_) => tracing::warn!("not left in time: others take over when the lease has run out"),
    }
}
