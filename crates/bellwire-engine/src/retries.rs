//! Retries waiting for their time, by due time, up to the watermark; the store has the later ones.
//!
//! Each endpoint has its share of the memory: what a dead one has due beyond it stays in the store (the endpoint is *parked*)
//! and is read again when the share has drained. So the due retries of one endpoint never keep out those of another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bellwire_core::{EndpointId, MessageId, Shard, ShardSet, Timestamp, limits};
use bellwire_store::{DueCursor, DueDelivery};

use crate::scheduler::Job;

/// Retries in memory, waiting, queued or running.
const IN_MEMORY_MAX: usize = 131_072;

/// What was left in the store for want of room is read at most this often: each time it is all that is due, from the beginning.
const UNPARK_EVERY: Duration = Duration::from_secs(1);

type Key = (MessageId, EndpointId);

/// A retry in memory.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Says which one it is: what comes a second time (read from the store, and told) is known by it.
    due_at: Timestamp,
    /// Waiting for its time; else queued or running.
    is_waiting: bool,
}

pub struct Retries {
    waiting: BTreeMap<DueCursor, Job>,
    known: HashMap<Key, Known>,
    /// How many of them each endpoint has.
    of_endpoint: HashMap<EndpointId, usize>,
    /// Endpoints of which something due before the watermark was left in the store.
    parked: HashSet<EndpointId>,
    /// The shards whose retries are taken in.
    mine: ShardSet,
    /// Retries of `mine` due up to here are in memory, but for those of parked endpoints and of shards that are to be read again.
    watermark: Timestamp,
    /// Shards of which everything up to the watermark is to be read (again).
    rewind: ShardSet,
    /// Shards of endpoints that were parked and have room again: to be read when [`UNPARK_EVERY`] has passed.
    unparked: ShardSet,
    unparked_at: Option<Timestamp>,
    /// While the store is being read: what was settled or told anew meanwhile; a page that was read before may have it as it was.
    changed: Option<HashSet<Key>>,
    /// A shard was forgotten since reading began: the rest of what is read may be of the past.
    is_stale: bool,
}

/// Read the retries of these shards due up to `until` from the store, from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadRetries {
    pub shards: ShardSet,
    pub until: Timestamp,
}

impl Retries {
    /// Takes in those of `mine`.
    pub fn new(mine: ShardSet) -> Self {
        Self {
            waiting: BTreeMap::new(),
            known: HashMap::new(),
            of_endpoint: HashMap::new(),
            parked: HashSet::new(),
            mine,
            watermark: Timestamp(i64::MIN),
            rewind: ShardSet::EMPTY,
            unparked: ShardSet::EMPTY,
            unparked_at: None,
            changed: None,
            is_stale: false,
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes in retries of these shards from now on.
    pub fn gain(&mut self, shards: &ShardSet) {
        self.mine = self.mine.union(shards);
    }

    /// What the store has of these shards is to be read from the beginning.
    pub fn rewind(&mut self, shards: &ShardSet) {
        self.rewind = self.rewind.union(&shards.intersection(&self.mine));
    }

    /// Forgets everything of these shards: another node has them.
    pub fn purge(&mut self, shards: &ShardSet) {
        self.mine = self.mine.without(shards);
        self.rewind = self.rewind.without(shards);
        self.unparked = self.unparked.without(shards);
        self.waiting.retain(|cursor, _| !shards.has(cursor.endpoint));
        self.known.retain(|(_, endpoint), _| !shards.has(*endpoint));
        self.of_endpoint.retain(|endpoint, _| !shards.has(*endpoint));
        self.parked.retain(|endpoint| !shards.has(*endpoint));
        self.is_stale |= self.changed.is_some();
    }

    /// A retry whose row is durable. Whether it is now the next one due.
    pub fn offer(&mut self, delivery: &DueDelivery) -> bool {
        if delivery.due_at > self.watermark || self.is_known(delivery) || !self.mine.has(delivery.endpoint) {
            return false;
        }
        self.note_change((delivery.message, delivery.endpoint));
        self.insert(delivery)
    }

    /// A manual try begins: a waiting retry of the same delivery is taken out. False: it has begun already, or is another node's.
    pub fn begin_manual(&mut self, delivery: &DueDelivery) -> bool {
        if self.is_known(delivery) || !self.mine.has(delivery.endpoint) {
            return false;
        }
        self.note_change((delivery.message, delivery.endpoint));
        self.put(delivery, false);
        true
    }

    fn note_change(&mut self, key: Key) {
        if let Some(changed) = &mut self.changed {
            changed.insert(key);
        }
    }

    /// An attempt is durable: what was known of its delivery is no more. Whether the store should be read for what was left in it.
    pub fn settle(&mut self, message: MessageId, endpoint: EndpointId) -> bool {
        let key = (message, endpoint);
        self.note_change(key);
        let Some(known) = self.known.remove(&key) else { return false };
        if known.is_waiting {
            self.waiting.remove(&DueCursor { due_at: known.due_at, message, endpoint });
        }
        let left = match self.of_endpoint.get_mut(&endpoint) {
            Some(count) => {
                *count -= 1;
                *count
            }
            None => 0,
        };
        if left == 0 {
            self.of_endpoint.remove(&endpoint);
        }
        let has_room = left <= share(self.known.len()) / 2;
        let is_unparked = has_room && self.parked.remove(&endpoint);
        if is_unparked {
            self.unparked.insert(Shard::of(endpoint));
        }
        is_unparked
    }

    /// Those due at `now`, when the next one is, and what to read from the store if it is time to.
    pub fn release_due(&mut self, now: Timestamp) -> (Vec<Job>, Option<Timestamp>, Option<LoadRetries>) {
        let mut due = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().due_at > now {
                break;
            }
            let (cursor, job) = entry.remove_entry();
            self.known.insert((job.message, job.endpoint), Known { due_at: cursor.due_at, is_waiting: false });
            due.push(job);
        }
        let next = self.waiting.first_key_value().map(|(cursor, _)| cursor.due_at);
        let is_near_end = self.watermark < now.plus(Duration::from_secs(limits::RETRY_HORIZON_SECONDS / 2));
        if self.changed.is_some() {
            return (due, next, None);
        }
        // A clock that was set back has no say in it.
        let may_unpark = self.unparked_at.is_none_or(|at| now < at || now >= at.plus(UNPARK_EVERY));
        if !self.unparked.is_empty() && (may_unpark || is_near_end) {
            self.unparked_at = Some(now);
            self.rewind = self.rewind.union(&std::mem::take(&mut self.unparked));
        }
        if !is_near_end && self.rewind.is_empty() {
            return (due, next, None);
        }
        self.changed = Some(HashSet::new());
        self.is_stale = false;
        let shards = if is_near_end {
            // From now on what commits with an earlier due time comes to memory by itself.
            self.watermark = self.watermark.max(now.plus(Duration::from_secs(limits::RETRY_HORIZON_SECONDS)));
            self.mine
        } else {
            self.rewind
        };
        self.rewind = ShardSet::EMPTY;
        (due, next, Some(LoadRetries { shards, until: self.watermark }))
    }

    /// A page read from the store. False: reading on is of no use, a shard was forgotten meanwhile.
    pub fn take_loaded(&mut self, page: &[DueDelivery]) -> bool {
        if self.is_stale {
            return false;
        }
        for delivery in page {
            let key = (delivery.message, delivery.endpoint);
            let has_changed = self.changed.as_ref().is_some_and(|changed| changed.contains(&key));
            // One that waits for another time than its row says was made due by somebody else, and nobody could tell us.
            let is_current = self.known.get(&key).is_some_and(|known| !known.is_waiting || known.due_at == delivery.due_at);
            if !has_changed && !is_current {
                self.insert(delivery);
            }
        }
        true
    }

    /// The store has been read to the end, or is to be read again.
    pub fn end_load(&mut self, load: &LoadRetries) {
        self.changed = None;
        if std::mem::take(&mut self.is_stale) {
            self.rewind(&load.shards);
        }
    }

    /// Whether this very try is in memory already.
    fn is_known(&self, delivery: &DueDelivery) -> bool {
        self.known.get(&(delivery.message, delivery.endpoint)).is_some_and(|known| known.due_at == delivery.due_at)
    }

    /// Whether it is now the next one due.
    fn insert(&mut self, delivery: &DueDelivery) -> bool {
        if !self.mine.has(delivery.endpoint) {
            return false;
        }
        let key = (delivery.message, delivery.endpoint);
        let count = self.of_endpoint.get(&delivery.endpoint).copied().unwrap_or(0);
        if count >= share(self.known.len()) && !self.known.contains_key(&key) {
            self.parked.insert(delivery.endpoint);
            return false;
        }
        let cursor = self.put(delivery, true);
        self.waiting.insert(cursor, retry_job(delivery));
        self.waiting.first_key_value().is_some_and(|(first, _)| *first == cursor)
    }

    fn put(&mut self, delivery: &DueDelivery, is_waiting: bool) -> DueCursor {
        let (message, endpoint) = (delivery.message, delivery.endpoint);
        match self.known.insert((message, endpoint), Known { due_at: delivery.due_at, is_waiting }) {
            Some(old) if old.is_waiting => {
                self.waiting.remove(&DueCursor { due_at: old.due_at, message, endpoint });
            }
            Some(_) => {}
            None => *self.of_endpoint.entry(endpoint).or_default() += 1,
        }
        DueCursor { due_at: delivery.due_at, message, endpoint }
    }
}

/// Retries one endpoint may have in memory when there are `known` in all: the fuller, the fewer.
fn share(known: usize) -> usize {
    match known {
        _ if known < IN_MEMORY_MAX / 4 => 4_096,
        _ if known < IN_MEMORY_MAX / 2 => 512,
        _ if known < IN_MEMORY_MAX => 64,
        _ => 0,
    }
}

pub fn retry_job(delivery: &DueDelivery) -> Job {
    Job {
        message: delivery.message,
        endpoint: delivery.endpoint,
        app: delivery.app,
        tries: delivery.tries,
        trigger: delivery.trigger,
        resume_at: delivery.resume_at,
        is_first_try: false,
        content: None,
        epoch: 0,
    }
}

#[cfg(test)]
mod tests {
    use bellwire_core::id::IdKind;
    use bellwire_core::{AppId, Trigger};

    use super::*;

    fn due(e: u8, m: i64, at: i64) -> DueDelivery {
        DueDelivery {
            message: MessageId::from_key_and_tail(m, [0; 12]),
            endpoint: EndpointId::from_bytes([e; 20]),
            app: AppId::from_bytes([1; 20]),
            tries: 1,
            due_at: Timestamp(at),
            trigger: Trigger::Scheduled,
            resume_at: None,
        }
    }

    /// A queue that has read an empty store at time 0.
    fn opened() -> Retries {
        let mut retries = Retries::new(ShardSet::ALL);
        let load = retries.release_due(Timestamp(0)).2.expect("the store is read first");
        retries.end_load(&load);
        retries
    }

    #[test]
    fn the_due_retries_of_a_dead_endpoint_keep_nobody_elses_out() {
        let mut retries = opened();
        let page: Vec<_> = (0..200_000).map(|m| due(1, m, 5)).chain([due(2, 900_000, 6)]).collect();
        retries.take_loaded(&page);
        let released = retries.release_due(Timestamp(10)).0;
        assert!(released.iter().any(|job| job.endpoint == EndpointId::from_bytes([2; 20])));
        assert!(released.len() <= 4_097, "{} in memory", released.len());
        // The dead one drains: the rest is read again once there is room, not before.
        let mut rewinds = 0;
        for job in released.iter().filter(|job| job.endpoint == EndpointId::from_bytes([1; 20])) {
            if retries.settle(job.message, job.endpoint) && rewinds == 0 {
                rewinds += 1;
                assert!(retries.release_due(Timestamp(10)).2.is_some());
            }
        }
        assert_eq!(rewinds, 1);
    }

    #[test]
    fn endpoints_that_get_room_one_after_another_make_the_store_be_read_once_a_second_and_only_their_shards() {
        let mut retries = opened();
        let page: Vec<_> = (1..=3).flat_map(|e| (0..5_000).map(move |m| due(e, i64::from(e) * 10_000 + m, 5))).collect();
        retries.take_loaded(&page);
        let mut released = retries.release_due(Timestamp(10)).0;
        let mut loads = vec![];
        for e in 1..=3u8 {
            let (of_e, rest): (Vec<_>, _) = released.into_iter().partition(|job| job.endpoint == EndpointId::from_bytes([e; 20]));
            released = rest;
            let unparked = of_e.iter().filter(|job| retries.settle(job.message, job.endpoint)).count();
            assert_eq!(unparked, 1, "endpoint {e}");
            if let Some(load) = retries.release_due(Timestamp(10 + i64::from(e))).2 {
                retries.end_load(&load);
                loads.push(load.shards);
            }
        }
        assert_eq!(loads, [[Shard(1)].into_iter().collect()], "three within three milliseconds");
        assert!(retries.release_due(Timestamp(1_010)).2.is_none());
        let load = retries.release_due(Timestamp(1_011)).2.expect("a second later");
        assert_eq!(load.shards, [Shard(2), Shard(3)].into_iter().collect());
    }

    #[test]
    fn a_waiting_retry_whose_row_was_made_due_by_somebody_else_takes_the_time_of_its_row() {
        let mut retries = opened();
        retries.offer(&due(1, 7, 50_000));
        retries.rewind(&ShardSet::ALL);
        let load = retries.release_due(Timestamp(30_001)).2.expect("it is read again");
        assert!(retries.take_loaded(&[due(1, 7, 30_000)]));
        retries.end_load(&load);
        assert_eq!(retries.release_due(Timestamp(30_002)).0.len(), 1);
        assert_eq!(retries.release_due(Timestamp(50_001)).0.len(), 0, "once");
    }

    #[test]
    fn a_page_read_before_a_retry_was_told_anew_does_not_bring_back_its_former_time() {
        let mut retries = opened();
        retries.offer(&due(1, 7, 50_000));
        retries.rewind(&ShardSet::ALL);
        let load = retries.release_due(Timestamp(30_001)).2.expect("it is read again");
        let page = [due(1, 7, 50_000)];
        retries.offer(&due(1, 7, 30_005));
        retries.take_loaded(&page);
        retries.end_load(&load);
        assert_eq!(retries.release_due(Timestamp(30_006)).0.len(), 1);
    }

    #[test]
    fn what_was_settled_while_the_store_was_read_is_not_taken_from_the_old_page() {
        let mut retries = opened();
        assert!(retries.offer(&due(1, 7, 5)));
        assert_eq!(retries.release_due(Timestamp(10)).0.len(), 1);
        let load = retries.release_due(Timestamp(70_000)).2.expect("time to read on");
        let page = [due(1, 7, 5)];
        retries.settle(page[0].message, page[0].endpoint);
        retries.take_loaded(&page);
        retries.end_load(&load);
        assert_eq!(retries.release_due(Timestamp(80_000)).0.len(), 0, "it would be sent a second time");
    }

    #[test]
    fn a_delivery_settled_by_a_manual_try_leaves_no_waiting_retry_behind() {
        let mut retries = opened();
        retries.begin_manual(&due(1, 7, 1));
        retries.offer(&due(1, 7, 5_000));
        retries.settle(due(1, 7, 0).message, due(1, 7, 0).endpoint);
        assert_eq!(retries.release_due(Timestamp(6_000)).0.len(), 0);
        assert_eq!(retries.waiting(), 0);
    }

    #[test]
    fn retries_beyond_the_watermark_are_left_to_the_store() {
        let mut retries = opened();
        retries.offer(&due(1, 7, 10_000_000));
        assert_eq!(retries.waiting(), 0);
    }

    #[test]
    fn a_try_that_is_read_from_the_store_and_told_too_is_made_once() {
        let mut retries = opened();
        assert!(retries.offer(&due(1, 7, 5)));
        assert_eq!(retries.release_due(Timestamp(10)).0.len(), 1);
        assert!(!retries.offer(&due(1, 7, 5)), "it runs");
        assert!(!retries.begin_manual(&due(1, 7, 5)));
        assert!(retries.begin_manual(&due(1, 7, 9)), "another try of the same delivery");
        assert_eq!(retries.release_due(Timestamp(20)).0.len(), 0);
    }

    #[test]
    fn of_a_forgotten_shard_nothing_waits_and_no_page_read_before_brings_it_back() {
        let mut retries = opened();
        retries.offer(&due(1, 7, 5));
        retries.offer(&due(2, 8, 5));
        let load = retries.release_due(Timestamp(-70_000 + 140_000)).2.expect("time to read on");
        let gone: ShardSet = [Shard(1)].into_iter().collect();
        retries.purge(&gone);
        assert!(!retries.take_loaded(&[due(1, 9, 6), due(2, 9, 6)]));
        retries.end_load(&load);
        let again = retries.release_due(Timestamp(70_001)).2.expect("what was not taken is read again");
        assert_eq!(again.shards, ShardSet::ALL.without(&gone));
        retries.take_loaded(&[due(1, 9, 6), due(2, 9, 6)]);
        retries.end_load(&again);
        let released = retries.release_due(Timestamp(70_002)).0;
        assert_eq!(released.len(), 1);
        assert_eq!(released[0].endpoint, due(2, 9, 6).endpoint);
        assert!(!retries.offer(&due(1, 10, 70_003)), "another node's");
    }

    #[test]
    fn of_shards_gained_only_theirs_is_read_and_only_up_to_where_the_others_are() {
        let mut retries = Retries::new(ShardSet::EMPTY);
        let first = retries.release_due(Timestamp(0)).2.expect("the store is read first");
        retries.end_load(&first);
        let gained: ShardSet = [Shard(1)].into_iter().collect();
        retries.gain(&gained);
        assert!(retries.release_due(Timestamp(1_000)).2.is_none());
        retries.rewind(&gained);
        assert_eq!(retries.release_due(Timestamp(1_000)).2, Some(LoadRetries { shards: gained, until: first.until }));
    }
}
