//! Shards in the scheduler: whose deliveries it takes in, whose it starts, and forgetting those that others deliver from now on.

use bellwire_core::{EndpointId, SHARDS, Shard, ShardSet};

use super::{Lane, Scheduler, payload_len};

#[derive(Debug)]
pub(super) struct Ownership {
    /// Deliveries of these are taken in.
    pub mine: ShardSet,
    /// Of these, attempts may start.
    pub active: ShardSet,
    /// Of these, all that was unfinished when they were gained has been read: reading back may begin.
    pub complete: ShardSet,
    /// The membership every attempt begun now belongs to.
    pub epoch: i64,
    /// Attempts begun and not yet recorded, by shard.
    in_flight: Box<[u32; SHARDS]>,
    /// How often each was forgotten: what was being read from the store meanwhile is of the past.
    purges: Box<[u32; SHARDS]>,
}

impl Default for Ownership {
    fn default() -> Self {
        Self {
            mine: ShardSet::ALL,
            active: ShardSet::ALL,
            complete: ShardSet::ALL,
            epoch: 0,
            in_flight: Box::new([0; SHARDS]),
            purges: Box::new([0; SHARDS]),
        }
    }
}

impl Ownership {
    pub fn begun(&mut self, id: EndpointId) {
        self.in_flight[Shard::of(id).index()] += 1;
    }
}

impl Scheduler {
    /// Takes in deliveries of these shards from now on; they do not start yet.
    pub fn gain(&mut self, shards: &ShardSet) {
        self.own.mine = self.own.mine.union(shards);
        self.own.active = self.own.active.without(shards);
        self.own.complete = self.own.complete.without(shards);
    }

    /// Everything unfinished of these shards is in memory, or known to be in the store.
    pub fn complete(&mut self, shards: &ShardSet) {
        self.own.complete = self.own.complete.union(&shards.intersection(&self.own.mine));
    }

    /// Until then their jobs may be read but not back.
    pub fn incomplete(&mut self, shards: &ShardSet) {
        self.own.complete = self.own.complete.without(shards);
    }

    /// Attempts of these shards may start.
    pub fn activate(&mut self, shards: &ShardSet) {
        let fresh = shards.intersection(&self.own.mine).without(&self.own.active);
        self.own.active = self.own.active.union(&fresh);
        let waiting: Vec<_> = self.endpoints.keys().filter(|id| fresh.has(**id)).copied().collect();
        for id in waiting {
            self.offer(id);
        }
    }

    /// Attempts of these shards do not start any more; those running go on.
    pub fn hold(&mut self, shards: &ShardSet) {
        self.own.active = self.own.active.without(shards);
    }

    /// Those of `shards` of which nothing is in flight.
    pub fn drained(&self, shards: &ShardSet) -> ShardSet {
        shards.iter().filter(|shard| self.own.in_flight[shard.index()] == 0).collect()
    }

    /// An attempt of this endpoint is durable, or has come to nothing.
    pub fn ended(&mut self, id: EndpointId) {
        let count = &mut self.own.in_flight[Shard::of(id).index()];
        *count = count.saturating_sub(1);
    }

    /// Forgets everything that waits in these shards, and takes in nothing of them any more. What runs stays counted.
    pub fn purge(&mut self, shards: &ShardSet) {
        self.hold(shards);
        self.own.mine = self.own.mine.without(shards);
        self.own.complete = self.own.complete.without(shards);
        for shard in shards.iter() {
            let purges = &mut self.own.purges[shard.index()];
            *purges = purges.wrapping_add(1);
        }
        self.overflowing.retain(|id| !shards.has(*id));
        self.timers.retain(|(_, id)| !shards.has(*id));
        self.quick.remove(shards);
        self.slow.remove(shards);
        let (mut queued, mut bytes) = (0, 0);
        let backlog = &mut self.backlog;
        self.endpoints.retain(|id, queue| {
            if !shards.has(*id) {
                return true;
            }
            queued += queue.len();
            bytes += queue.first.iter().map(|first| payload_len(first.content.as_ref())).sum::<usize>();
            if !queue.is_slow {
                backlog.remove(queue.app, queue.len());
            }
            queue.forget_waiting();
            queue.in_flight > 0
        });
        self.queued -= queued;
        self.payload_bytes = self.payload_bytes.saturating_sub(bytes);
    }

    /// A new membership begins, with nothing.
    pub fn begin_epoch(&mut self, epoch: i64) {
        self.purge(&ShardSet::ALL);
        self.own.epoch = epoch;
    }

    pub fn epoch(&self) -> i64 {
        self.own.epoch
    }

    pub fn purges_of(&self, id: EndpointId) -> u32 {
        self.own.purges[Shard::of(id).index()]
    }
}

impl Lane {
    fn remove(&mut self, shards: &ShardSet) {
        for ring in self.rings.values_mut() {
            ring.retain(|id| !shards.has(*id));
        }
        self.rings.retain(|_, ring| !ring.is_empty());
        self.turn.retain(|app| self.rings.contains_key(app));
    }
}
