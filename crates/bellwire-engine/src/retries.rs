//! Retries waiting for their time, by due time, up to the watermark; the store has the later ones.
//!
//! Each endpoint has its share of the memory: what a dead one has due beyond it stays in the store (the endpoint is *parked*)
//! and is read again when the share has drained. So the due retries of one endpoint never keep out those of another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bellwire_core::{EndpointId, MessageId, Timestamp, limits};
use bellwire_store::{DueCursor, DueDelivery};

use crate::scheduler::Job;

/// Retries in memory, waiting, queued or running.
const IN_MEMORY_MAX: usize = 131_072;

type Key = (MessageId, EndpointId);

pub struct Retries {
    waiting: BTreeMap<DueCursor, Job>,
    /// Every retry in memory: waiting (with its due time), queued or running (without).
    known: HashMap<Key, Option<DueCursor>>,
    /// How many of them each endpoint has.
    of_endpoint: HashMap<EndpointId, usize>,
    /// Endpoints of which something due before the watermark was left in the store.
    parked: HashSet<EndpointId>,
    /// Retries due up to here are in memory, but for those of parked endpoints.
    watermark: Timestamp,
    is_rewind_wanted: bool,
    /// While the store is being read: what was settled meanwhile, and may still stand in a page that was read before.
    settled: Option<HashSet<Key>>,
}

/// Read the retries due up to `until` from the store, from the beginning.
pub struct LoadRetries {
    pub until: Timestamp,
}

impl Retries {
    pub fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            known: HashMap::new(),
            of_endpoint: HashMap::new(),
            parked: HashSet::new(),
            watermark: Timestamp(i64::MIN),
            is_rewind_wanted: false,
            settled: None,
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A retry whose row is durable. Whether it is now the next one due.
    pub fn offer(&mut self, delivery: &DueDelivery) -> bool {
        delivery.due_at <= self.watermark && self.insert(delivery)
    }

    /// A manual try begins: a waiting retry of the same delivery is taken out.
    pub fn begin_manual(&mut self, delivery: &DueDelivery) {
        self.put((delivery.message, delivery.endpoint), None);
    }

    /// An attempt is durable: what was known of its delivery is no more. Whether the store should be read again.
    pub fn settle(&mut self, message: MessageId, endpoint: EndpointId) -> bool {
        let key = (message, endpoint);
        if let Some(settled) = &mut self.settled {
            settled.insert(key);
        }
        let Some(cursor) = self.known.remove(&key) else { return false };
        if let Some(cursor) = cursor {
            self.waiting.remove(&cursor);
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
        if has_room && self.parked.remove(&endpoint) {
            self.is_rewind_wanted = true;
        }
        self.is_rewind_wanted
    }

    /// Those due at `now`, when the next one is, and what to read from the store if it is time to.
    pub fn release_due(&mut self, now: Timestamp) -> (Vec<Job>, Option<Timestamp>, Option<LoadRetries>) {
        let mut due = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().due_at > now {
                break;
            }
            let (_, job) = entry.remove_entry();
            self.known.insert((job.message, job.endpoint), None);
            due.push(job);
        }
        let next = self.waiting.first_key_value().map(|(cursor, _)| cursor.due_at);
        let is_near_end = self.watermark < now.plus(Duration::from_secs(limits::RETRY_HORIZON_SECONDS / 2));
        if self.settled.is_some() || !(is_near_end || self.is_rewind_wanted) {
            return (due, next, None);
        }
        self.is_rewind_wanted = false;
        self.settled = Some(HashSet::new());
        // From now on what commits with an earlier due time comes to memory by itself.
        let until = now.plus(Duration::from_secs(limits::RETRY_HORIZON_SECONDS));
        self.watermark = self.watermark.max(until);
        (due, next, Some(LoadRetries { until }))
    }

    /// A page read from the store.
    pub fn take_loaded(&mut self, page: &[DueDelivery]) {
        for delivery in page {
            let key = (delivery.message, delivery.endpoint);
            let is_settled = self.settled.as_ref().is_some_and(|settled| settled.contains(&key));
            if !is_settled && !self.known.contains_key(&key) {
                self.insert(delivery);
            }
        }
    }

    /// The store has been read to the end.
    pub fn end_load(&mut self) {
        self.settled = None;
    }

    /// Whether it is now the next one due.
    fn insert(&mut self, delivery: &DueDelivery) -> bool {
        let key = (delivery.message, delivery.endpoint);
        let count = self.of_endpoint.get(&delivery.endpoint).copied().unwrap_or(0);
        if count >= share(self.known.len()) && !self.known.contains_key(&key) {
            self.parked.insert(delivery.endpoint);
            return false;
        }
        let cursor = DueCursor { due_at: delivery.due_at, message: delivery.message, endpoint: delivery.endpoint };
        self.put(key, Some(cursor));
        self.waiting.insert(cursor, retry_job(delivery));
        self.waiting.first_key_value().is_some_and(|(first, _)| *first == cursor)
    }

    fn put(&mut self, key: Key, cursor: Option<DueCursor>) {
        match self.known.insert(key, cursor) {
            Some(Some(old)) => {
                self.waiting.remove(&old);
            }
            Some(None) => {}
            None => *self.of_endpoint.entry(key.1).or_default() += 1,
        }
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
        let mut retries = Retries::new();
        assert!(retries.release_due(Timestamp(0)).2.is_some(), "the store is read first");
        retries.end_load();
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
    fn what_was_settled_while_the_store_was_read_is_not_taken_from_the_old_page() {
        let mut retries = opened();
        assert!(retries.offer(&due(1, 7, 5)));
        assert_eq!(retries.release_due(Timestamp(10)).0.len(), 1);
        assert!(retries.release_due(Timestamp(70_000)).2.is_some(), "time to read on");
        let page = [due(1, 7, 5)];
        retries.settle(page[0].message, page[0].endpoint);
        retries.take_loaded(&page);
        retries.end_load();
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
}
