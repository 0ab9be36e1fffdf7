//! Who should have which shards: pure decisions. Every node decides for itself from what it sees; the store sees to it that a
//! shard has one owner however differently they see it.

use std::collections::HashMap;
use std::time::Duration;

use bellwire_core::{SHARDS, Shard, ShardSet};
use bellwire_store::Cluster;

/// What a node should do about its shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub claim: ShardSet,
    pub give_up: ShardSet,
}

/// How many shards the worker at `place` of `workers` should have.
pub fn share(place: usize, workers: usize) -> usize {
    if workers == 0 {
        return 0;
    }
    SHARDS / workers + usize::from(place < SHARDS % workers)
}

/// What the worker `own` should claim and give up. `workers`: all that count, by epoch; `leaving`: what it is giving up already.
pub fn plan(own: i64, workers: &[i64], owners: &[Option<i64>], leaving: &ShardSet) -> Plan {
    let Some(place) = workers.iter().position(|epoch| *epoch == own) else { return Plan::default() };
    let shards = || owners.iter().zip(0..=u8::MAX).map(|(owner, number)| (*owner, Shard(number)));
    let owned_by = |epoch: i64| owners.iter().filter(|owner| **owner == Some(epoch)).count();
    let mine: ShardSet = shards().filter(|(owner, _)| *owner == Some(own)).map(|(_, shard)| shard).collect();
    let kept = mine.without(leaving);
    let wanted = share(place, workers.len());
    if kept.len() > wanted {
        let excess = kept.len() - wanted;
        let skip = kept.len() - excess;
        return Plan { claim: ShardSet::EMPTY, give_up: kept.iter().skip(skip).collect() };
    }
    // Free shards go to those who lack some in the order of their epochs: nodes that see the same do not get in each other's way.
    let before: usize =
        workers[..place].iter().enumerate().map(|(at, epoch)| share(at, workers.len()).saturating_sub(owned_by(*epoch))).sum();
    let free = shards().filter(|(owner, _)| owner.is_none()).map(|(_, shard)| shard);
    Plan { claim: free.skip(before).take(wanted - kept.len()).collect(), give_up: ShardSet::EMPTY }
}

/// Shards that the store does not say are `own`'s, though they were held before it was asked and still are: what is given up
/// meanwhile is not held any more before the store is told.
pub fn lost(own: i64, owners: &[Option<i64>], before: &ShardSet, now: &ShardSet) -> ShardSet {
    before.intersection(now).iter().filter(|shard| owners.get(shard.index()).copied().flatten() != Some(own)).collect()
}

/// A worker that lacks shards and takes none of those that are free for this long is not counted: it is leaving, and what it
/// has given up is for the others; or it is stuck.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// It is counted again when it takes a shard, or after this.
const UNCOUNTED_FOR: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Seen {
    beat: i64,
    /// Since when the beat stands there, on our clock.
    since: Duration,
    owned: usize,
    idle_since: Option<Duration>,
    uncounted_since: Option<Duration>,
}

/// What one look at the cluster says about the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Epochs of the workers that count, this one's among them, ascending.
    pub workers: Vec<i64>,
    /// (epoch, beat) of nodes that have not beaten for the lease.
    pub dead: Vec<(i64, i64)>,
}

/// Watches the others by this node's own monotonic clock.
#[derive(Debug)]
pub struct Watch {
    lease: Duration,
    seen: HashMap<i64, Seen>,
    last: Option<Duration>,
}

impl Watch {
    pub fn new(lease: Duration) -> Self {
        Self { lease, seen: HashMap::new(), last: None }
    }

    /// This node could not beat itself: whether others could in that time cannot be told.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// The answer to a beat of `own` at `now`.
    pub fn look(&mut self, now: Duration, own: i64, cluster: &Cluster) -> Look {
        // After a gap of our own (an outage, a pause of this process) everybody gets a whole lease again.
        let is_fresh = self.last.is_none_or(|last| now.saturating_sub(last) > self.lease / 2);
        self.last = Some(now);
        let mut look = Look::default();
        let mut owned: HashMap<i64, usize> = HashMap::new();
        for owner in cluster.owners.iter().flatten() {
            *owned.entry(*owner).or_default() += 1;
        }
        let is_any_free = cluster.owners.iter().any(Option::is_none);
        let mut workers: Vec<i64> = cluster.nodes.iter().filter(|node| node.info.is_worker).map(|node| node.epoch).collect();
        workers.sort_unstable();
        self.seen.retain(|epoch, _| cluster.nodes.iter().any(|node| node.epoch == *epoch));
        for node in &cluster.nodes {
            let count = owned.get(&node.epoch).copied().unwrap_or(0);
            let new = Seen { beat: node.beat, since: now, owned: count, idle_since: None, uncounted_since: None };
            let seen = self.seen.entry(node.epoch).or_insert(new);
            if seen.beat != node.beat || is_fresh {
                (seen.beat, seen.since) = (node.beat, now);
            }
            if node.epoch == own {
                continue;
            }
            if now.saturating_sub(seen.since) >= self.lease {
                look.dead.push((node.epoch, node.beat));
            }
            let place = workers.binary_search(&node.epoch).unwrap_or(usize::MAX);
            let is_idle = node.info.is_worker && is_any_free && count < share(place, workers.len()) && count <= seen.owned;
            if count > seen.owned || seen.uncounted_since.is_some_and(|at| now.saturating_sub(at) >= UNCOUNTED_FOR) {
                seen.uncounted_since = None;
            }
            seen.owned = count;
            seen.idle_since = if is_idle && !is_fresh { seen.idle_since.or(Some(now)) } else { None };
            if seen.uncounted_since.is_none() && seen.idle_since.is_some_and(|at| now.saturating_sub(at) >= IDLE_MAX) {
                seen.uncounted_since = Some(now);
                seen.idle_since = None;
            }
        }
        workers.retain(|epoch| *epoch == own || self.seen.get(epoch).is_none_or(|seen| seen.uncounted_since.is_none()));
        look.workers = workers;
        look
    }
}
