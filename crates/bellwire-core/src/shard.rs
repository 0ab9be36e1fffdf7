//! Shards: the parts into which all deliveries are divided, by endpoint, so that several nodes can share the work.
//!
//! One node owns a shard at a time and has the queues of its endpoints in memory: an endpoint's order, window and rate hold
//! because no other node delivers to it.

use std::fmt;

use crate::id::{EndpointId, IdKind};

/// How many there are. Far more than nodes, so that shares are even and a dead node's work spreads over all others; few enough
/// that a node can name all of its own in every statement.
pub const SHARDS: usize = 256;

/// One of the [`SHARDS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Shard(pub u8);

impl Shard {
    /// The shard of an endpoint, for ever: the last byte of its id, which is random.
    pub fn of(endpoint: EndpointId) -> Self {
        Self(endpoint.as_bytes()[19])
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Some of the shards.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ShardSet([u64; SHARDS / 64]);

impl ShardSet {
    pub const EMPTY: Self = Self([0; SHARDS / 64]);
    pub const ALL: Self = Self([u64::MAX; SHARDS / 64]);

    pub fn contains(&self, shard: Shard) -> bool {
        self.0[shard.index() / 64] & (1 << (shard.index() % 64)) != 0
    }

    /// Whether the deliveries of this endpoint are among them.
    pub fn has(&self, endpoint: EndpointId) -> bool {
        self.contains(Shard::of(endpoint))
    }

    pub fn insert(&mut self, shard: Shard) {
        self.0[shard.index() / 64] |= 1 << (shard.index() % 64);
    }

    pub fn remove(&mut self, shard: Shard) {
        self.0[shard.index() / 64] &= !(1 << (shard.index() % 64));
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Shard> + '_ {
        (0..=u8::MAX).map(Shard).filter(|shard| self.contains(*shard))
    }
}

impl FromIterator<Shard> for ShardSet {
    fn from_iter<I: IntoIterator<Item = Shard>>(shards: I) -> Self {
        let mut set = Self::EMPTY;
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|shard| shard.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in_and_nothing_else() {
        let mut set: ShardSet = [Shard(0), Shard(63), Shard(64), Shard(255)].into_iter().collect();
        assert_eq!((set.len(), set.contains(Shard(64)), set.contains(Shard(65))), (4, true, false));
        set.remove(Shard(64));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Shard(0), Shard(63), Shard(255)]);
        assert_eq!(ShardSet::ALL.len(), SHARDS);
        assert!(ShardSet::ALL.without(&set).intersection(&set).is_empty());
        assert_eq!(ShardSet::ALL.without(&set).union(&set), ShardSet::ALL);
    }

    #[test]
    fn an_endpoint_has_one_shard() {
        let mut raw = [7; 20];
        raw[19] = 200;
        assert_eq!(Shard::of(EndpointId::from_bytes(raw)), Shard(200));
        assert!(ShardSet::ALL.has(EndpointId::from_bytes(raw)) && !ShardSet::EMPTY.has(EndpointId::from_bytes(raw)));
    }
}
