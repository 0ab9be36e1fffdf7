//! Whether a message has company here: others on their way to the same shards, with which it shares what is handed over to their owner.
//!
//! Alone it would cost the database a row written, read and deleted, so it is passed on to its owner, which costs a way there and back. In
//! company the row costs next to nothing, and the way would be all that is left.

use std::sync::atomic::{AtomicU32, Ordering};

use bellwire_core::{EndpointId, SHARDS, Shard};

/// So many messages are company for each row that they share.
const ENOUGH: u32 = 8;
/// Messages to more endpoints are passed on: there are not as many at a time as their rows would need.
const ENDPOINTS_MAX: usize = 4;
/// A crowd that has gone is forgotten within about so many messages.
const MEMORY: u32 = 64;

#[derive(Default)]
struct Crowd {
    /// On their way at this moment.
    now: AtomicU32,
    /// The most that were on their way at the same time, lately, times [`MEMORY`].
    lately: AtomicU32,
}

/// The messages that are on their way here, by shard.
pub struct Company([Crowd; SHARDS]);

impl Default for Company {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Crowd::default()))
    }
}

/// One of them, until it is dropped.
pub struct Joined<'a> {
    company: &'a Company,
    shards: [Option<Shard>; ENDPOINTS_MAX],
    is_enough: bool,
}

impl Company {
    /// Counts a message for these endpoints.
    pub fn join(&self, endpoints: &[EndpointId]) -> Joined<'_> {
        let mut joined = Joined { company: self, shards: [None; ENDPOINTS_MAX], is_enough: false };
        if endpoints.is_empty() || endpoints.len() > ENDPOINTS_MAX {
            return joined;
        }
        let mut least = u32::MAX;
        let mut rows = 0;
        for (place, endpoint) in joined.shards.iter_mut().zip(endpoints) {
            let shard = Shard::of(*endpoint);
            *place = Some(shard);
            rows += 1;
            least = least.min(self.0[shard.index()].join());
        }
        joined.is_enough = least / MEMORY >= ENOUGH * rows;
        joined
    }
}

impl Crowd {
    /// Two that join at once may count as one in what is remembered: it is an estimate.
    fn join(&self) -> u32 {
        let now = self.now.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let before = self.lately.load(Ordering::Relaxed);
        let lately = now.saturating_mul(MEMORY).max(before - before.div_ceil(MEMORY));
        self.lately.store(lately, Ordering::Relaxed);
        lately
    }
}

impl Joined<'_> {
    /// Whether so many go the same way that they share their rows.
    pub fn is_enough(&self) -> bool {
        self.is_enough
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        for shard in self.shards.iter().flatten() {
            self.company.0[shard.index()].now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use bellwire_core::IdKind as _;

    use super::*;

    fn endpoint(number: u8) -> EndpointId {
        EndpointId::from_bytes([number; 20])
    }

    /// How many have to be on their way until one more is company enough.
    fn needed(endpoints: &[EndpointId]) -> usize {
        let company = Company::default();
        let mut joined = Vec::new();
        while joined.len() < 1_000 {
            joined.push(company.join(endpoints));
            if joined.last().is_some_and(Joined::is_enough) {
                break;
            }
        }
        joined.len()
    }

    /// Broken: each of a few messages costs the database a row of its own, or those of a busy endpoint are sent to and fro all the same.
    #[test]
    fn many_for_one_endpoint_are_company_and_for_several_more_are_needed() {
        let of = |endpoints: u8| (0..endpoints).map(endpoint).collect::<Vec<_>>();
        assert_eq!([1, 2, 4].map(|endpoints| needed(&of(endpoints))), [8, 16, 32]);
        assert_eq!([0, 5].map(|endpoints| needed(&of(endpoints))), [1_000, 1_000], "never");
    }

    /// Broken: of a busy endpoint's messages every other one goes another way, as answers come in crowds.
    #[test]
    fn a_crowd_is_remembered_for_a_while_and_forgotten() {
        let company = Company::default();
        let crowd: Vec<_> = (0..32).map(|_| company.join(&[endpoint(1)])).collect();
        assert!(crowd.last().unwrap().is_enough());
        drop(crowd);
        assert!(!company.join(&[endpoint(2)]).is_enough(), "another one's");
        let remembered = (0..1_000).take_while(|_| company.join(&[endpoint(1)]).is_enough()).count();
        assert!((32..200).contains(&remembered), "for {remembered} messages");
        assert_eq!(company.0[Shard::of(endpoint(1)).index()].now.load(Ordering::Relaxed), 0);
    }
}
