//! What commits tell this process's sink of: the local shards of its membership, held steady while a batch is written.

use std::sync::Arc;

use bellwire_core::{SHARDS, ShardSet};
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::Membership;

/// No node has this epoch: nothing is local, and what is recorded under it changes nothing.
const NOBODY: i64 = 0;

/// The state from one change of the local shards to the next.
#[derive(Clone)]
struct Generation {
    membership: Membership,
    shards: ShardSet,
    number: u64,
    /// Since which generation each of the shards has been local without a break.
    since: Arc<[u64; SHARDS]>,
    /// Read-locked by every batch begun in this generation.
    batches: Arc<RwLock<()>>,
}

pub struct Local {
    current: Mutex<Generation>,
}

/// Held by a batch until its sink has been told.
pub struct LocalGuard {
    generation: Generation,
    _held: OwnedRwLockReadGuard<()>,
}

impl LocalGuard {
    pub fn shards(&self) -> ShardSet {
        self.generation.shards
    }

    pub fn epoch(&self) -> i64 {
        self.generation.membership.epoch
    }

    pub fn generation(&self) -> u64 {
        self.generation.number
    }

    /// The shards that have been local ever since a generation of this membership.
    pub fn kept_since(&self, generation: u64) -> ShardSet {
        self.generation.shards.iter().filter(|shard| self.generation.since[shard.index()] <= generation).collect()
    }
}

impl Local {
    pub fn new() -> Self {
        let generation = Generation {
            membership: Membership { epoch: NOBODY, slot: None },
            shards: ShardSet::EMPTY,
            number: 0,
            since: Arc::new([0; SHARDS]),
            batches: Arc::new(RwLock::new(())),
        };
        Self { current: Mutex::new(generation) }
    }

    pub fn membership(&self) -> Option<Membership> {
        let membership = self.current.lock().membership;
        (membership.epoch != NOBODY).then_some(membership)
    }

    /// Begins a batch.
    pub fn hold(&self) -> LocalGuard {
        loop {
            let current = self.current.lock();
            // Locked for writing only after it has been replaced, so this succeeds at once.
            if let Ok(held) = current.batches.clone().try_read_owned() {
                return LocalGuard { generation: current.clone(), _held: held };
            }
        }
    }

    /// Changes the local shards for all batches from now on; returns when those begun before have ended.
    pub async fn set(&self, shards: ShardSet) {
        let old = self.replace(|generation| generation.shards = shards);
        drop(old.write().await);
    }

    /// Another membership, or none, with nothing local. Returns when batches begun under the former have ended.
    pub async fn become_member(&self, membership: Option<Membership>) {
        let old = self.replace(|generation| {
            generation.membership = membership.unwrap_or(Membership { epoch: NOBODY, slot: None });
            generation.shards = ShardSet::EMPTY;
        });
        drop(old.write().await);
    }

    fn replace(&self, change: impl FnOnce(&mut Generation)) -> Arc<RwLock<()>> {
        let mut current = self.current.lock();
        let before = current.shards;
        change(&mut current);
        current.number += 1;
        let number = current.number;
        let gained = current.shards.without(&before);
        let mut since = *current.since;
        for shard in gained.iter() {
            since[shard.index()] = number;
        }
        current.since = Arc::new(since);
        std::mem::replace(&mut current.batches, Arc::new(RwLock::new(())))
    }
}

#[cfg(test)]
mod tests {
    use bellwire_core::Shard;

    use super::*;

    #[tokio::test]
    async fn changing_the_local_shards_waits_for_batches_begun_before() {
        let local = Arc::new(Local::new());
        let batch = local.hold();
        let change = tokio::spawn({
            let local = local.clone();
            async move { local.set(ShardSet::ALL).await }
        });
        while local.hold().shards() != ShardSet::ALL {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert!(!change.is_finished() && batch.shards().is_empty(), "the batch keeps what it began with");
        drop(batch);
        change.await.unwrap();
    }

    #[tokio::test]
    async fn a_shard_given_up_and_taken_back_has_not_been_kept() {
        let local = Local::new();
        let one: ShardSet = [Shard(7)].into_iter().collect();
        local.set(ShardSet::ALL).await;
        let generation = local.hold().generation();
        local.set(ShardSet::ALL.without(&one)).await;
        local.set(ShardSet::ALL).await;
        assert_eq!(local.hold().kept_since(generation), ShardSet::ALL.without(&one));
    }
}
