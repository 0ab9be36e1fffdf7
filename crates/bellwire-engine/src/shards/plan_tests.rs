//! The plan as a table, and random histories of nodes that come, go, hang and see the past.

use std::collections::HashMap;
use std::time::Duration;

use bellwire_core::{SHARDS, Shard, ShardSet};
use bellwire_store::{Cluster, Node, NodeInfo};

use super::plan::{Plan, Watch, lost, plan, share};

fn range(from: usize, to: usize) -> ShardSet {
    (from..to).map(|shard| Shard(u8::try_from(shard).unwrap())).collect()
}

/// (epoch, shards) in order; what is left over is free.
fn owners(of: &[(i64, usize)]) -> Vec<Option<i64>> {
    let mut owners: Vec<Option<i64>> = of.iter().flat_map(|(epoch, count)| vec![Some(*epoch); *count]).collect();
    owners.resize(SHARDS, None);
    owners
}

#[test]
fn shares_are_even_and_together_everything() {
    for workers in 1..=300 {
        let shares: Vec<_> = (0..workers).map(|place| share(place, workers)).collect();
        assert_eq!(shares.iter().sum::<usize>(), SHARDS, "{workers} workers");
        assert!(shares[0] - shares[workers - 1] <= 1);
    }
}

#[test]
fn what_each_of_the_usual_situations_asks_for() {
    let none = ShardSet::EMPTY;
    for (name, own, workers, owned, leaving, claim, give_up) in [
        ("alone it takes everything", 1, vec![1], vec![], none, ShardSet::ALL, none),
        ("the first of two takes its half", 1, vec![1, 2], vec![], none, range(0, 128), none),
        ("and the second the other half", 2, vec![1, 2], vec![], none, range(128, 256), none),
        ("one joins: the first gives up half", 1, vec![1, 2], vec![(1, 256)], none, none, range(128, 256)),
        ("and only once", 1, vec![1, 2], vec![(1, 256)], range(128, 256), none, none),
        ("the one who joined waits until something is free", 2, vec![1, 2], vec![(1, 256)], none, none, none),
        ("and takes what is", 2, vec![1, 2], vec![(1, 200)], none, range(200, 256), none),
        ("one died: the others share what was its", 2, vec![2, 3], vec![(2, 85), (3, 85)], none, range(170, 213), none),
        ("each its own part of it", 3, vec![2, 3], vec![(2, 85), (3, 85)], none, range(213, 256), none),
        ("even as can be: nothing", 2, vec![1, 2, 3], vec![(1, 86), (2, 85), (3, 85)], none, none, none),
        ("who is not counted does nothing", 9, vec![1, 2], vec![(1, 10)], none, none, none),
    ] {
        let expected = Plan { claim, give_up };
        assert_eq!(plan(own, &workers, &owners(&owned), &leaving), expected, "{name}");
    }
}

#[test]
fn a_shard_held_throughout_that_the_store_gives_to_nobody_or_another_is_lost_and_one_given_up_meanwhile_is_not() {
    let owned = owners(&[(1, 100), (2, 100)]);
    let none = ShardSet::EMPTY;
    for (name, before, now, expected) in [
        ("all is well", range(0, 100), range(0, 100), none),
        ("another's", range(0, 110), range(0, 110), range(100, 110)),
        ("nobody's", range(0, 100).union(&range(240, 256)), ShardSet::ALL, range(240, 256)),
        ("given up since it was asked", range(0, 110), range(0, 100), none),
        ("claimed since it was asked", range(0, 100), range(0, 100).union(&range(200, 210)), none),
    ] {
        assert_eq!(lost(1, &owned, &before, &now), expected, "{name}");
    }
}

fn node(epoch: i64, beat: i64) -> Node {
    let info = NodeInfo { name: format!("n{epoch}"), is_worker: true, version: String::new(), address: String::new() };
    Node { epoch, slot: u16::try_from(epoch).unwrap(), beat, info }
}

fn cluster(beats: &[(i64, i64)], owned: &[(i64, usize)]) -> Cluster {
    Cluster { nodes: beats.iter().map(|(epoch, beat)| node(*epoch, *beat)).collect(), owners: owners(owned) }
}

const LEASE: Duration = Duration::from_secs(3);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_node_is_dead_when_its_beat_stood_still_for_the_lease_and_not_before() {
    let mut watch = Watch::new(LEASE);
    for step in 0..6 {
        let look = watch.look(at(step * 500), 1, &cluster(&[(1, step as i64), (2, 7)], &[(1, 128), (2, 128)]));
        assert_eq!(look.dead, [], "after {} ms", step * 500);
    }
    let look = watch.look(at(3_000), 1, &cluster(&[(1, 6), (2, 7)], &[(1, 128), (2, 128)]));
    assert_eq!(look.dead, [(2, 7)]);
    let look = watch.look(at(3_500), 1, &cluster(&[(1, 7), (2, 8)], &[(1, 128), (2, 128)]));
    assert_eq!(look.dead, [], "it beats again");
}

#[test]
fn after_an_outage_of_our_own_everybody_has_a_whole_lease_again() {
    for is_told in [false, true] {
        let mut watch = Watch::new(LEASE);
        watch.look(at(0), 1, &cluster(&[(1, 0), (2, 7)], &[(1, 128), (2, 128)]));
        let (next, last) = if is_told { (1_000, 4_000) } else { (60_000, 63_000) };
        if is_told {
            watch.reset();
        }
        for step in (next..last).step_by(500) {
            let look = watch.look(at(step), 1, &cluster(&[(1, 1), (2, 7)], &[(1, 128), (2, 128)]));
            assert_eq!(look.dead, [], "told {is_told}, at {step}");
        }
        let look = watch.look(at(last), 1, &cluster(&[(1, 1), (2, 7)], &[(1, 128), (2, 128)]));
        assert_eq!(look.dead, [(2, 7)]);
    }
}

#[test]
fn who_leaves_and_takes_nothing_of_what_is_free_is_not_waited_for() {
    let mut watch = Watch::new(LEASE);
    let mut workers = vec![];
    for step in 0..6 {
        let now = at(step * 500);
        // The second has given up all but two shards, where somebody hangs.
        workers = watch.look(now, 1, &cluster(&[(1, step as i64), (2, step as i64)], &[(1, 128), (2, 2)])).workers;
        assert_eq!(workers == [1], step >= 5, "step {step}: {workers:?}");
    }
    assert_eq!(plan(1, &workers, &owners(&[(1, 128), (2, 2)]), &ShardSet::EMPTY).claim, range(130, 256));
    // With nothing free it stays so; it does not come back to be waited for again.
    let look = watch.look(at(3_000), 1, &cluster(&[(1, 9), (2, 9)], &[(1, 254), (2, 2)]));
    assert_eq!(look.workers, [1]);
    let look = watch.look(at(3_500), 1, &cluster(&[(1, 10), (2, 10)], &[(1, 250), (2, 6)]));
    assert_eq!(look.workers, [1, 2], "it takes shards: it is back");
}

/// A simulated node.
struct Simulated {
    epoch: i64,
    beat: i64,
    watch: Watch,
    leaving: ShardSet,
    is_hung: bool,
}

/// What the store does: the only place where owners change.
struct World {
    now: u64,
    owners: Vec<Option<i64>>,
    nodes: Vec<Simulated>,
    rows: HashMap<i64, i64>,
    epochs: i64,
    moves: usize,
    seed: u64,
}

impl World {
    fn random(&mut self, below: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % below as u64).unwrap()
    }

    fn join(&mut self) {
        self.epochs += 1;
        self.rows.insert(self.epochs, 0);
        let watch = Watch::new(LEASE);
        self.nodes.push(Simulated { epoch: self.epochs, beat: 0, watch, leaving: ShardSet::EMPTY, is_hung: false });
    }

    fn remove(&mut self, epoch: i64) {
        self.rows.remove(&epoch);
        for owner in self.owners.iter_mut().filter(|owner| **owner == Some(epoch)) {
            *owner = None;
        }
    }

    /// A node beats, and what it was giving up has drained, or some of it.
    fn tick(&mut self, at_node: usize) {
        let drained = self.random(3);
        let node = &mut self.nodes[at_node];
        if node.is_hung {
            return;
        }
        if !self.rows.contains_key(&node.epoch) {
            // Declared dead: anew.
            self.nodes.remove(at_node);
            self.join();
            return;
        }
        node.beat += 1;
        self.rows.insert(node.epoch, node.beat);
        let mut rows: Vec<_> = self.rows.iter().map(|(epoch, beat)| super::plan_tests::node(*epoch, *beat)).collect();
        rows.sort_by_key(|row| row.epoch);
        let cluster = Cluster { nodes: rows, owners: self.owners.clone() };
        let own = node.epoch;
        let look = node.watch.look(Duration::from_millis(self.now), own, &cluster);
        let decided = plan(own, &look.workers, &cluster.owners, &node.leaving);
        for shard in decided.give_up.iter() {
            assert_eq!(self.owners[shard.index()], Some(own), "gives up what is not its own");
            node.leaving.insert(shard);
        }
        for shard in decided.claim.iter() {
            assert_eq!(self.owners[shard.index()], None, "claims what somebody owns");
            self.owners[shard.index()] = Some(own);
            self.moves += 1;
        }
        let gone: Vec<_> = node.leaving.iter().enumerate().filter(|(at, _)| at % 3 <= drained).map(|(_, shard)| shard).collect();
        for shard in gone {
            node.leaving.remove(shard);
            self.owners[shard.index()] = None;
        }
        for (epoch, beat) in look.dead {
            if self.rows.get(&epoch) == Some(&beat) {
                self.remove(epoch);
            }
        }
    }

    fn round(&mut self) {
        self.now += 500;
        for _ in 0..self.nodes.len() {
            let at = self.random(self.nodes.len());
            self.tick(at);
        }
        // Everybody beats within a round, in whatever order.
        for at in (0..self.nodes.len()).rev() {
            self.tick(at);
        }
    }
}

#[test]
fn whatever_nodes_do_all_shards_get_evenly_owned_and_then_stay_where_they_are() {
    for seed in 1..=12u64 {
        let mut world = World {
            now: 0,
            owners: vec![None; SHARDS],
            nodes: vec![],
            rows: HashMap::new(),
            epochs: 0,
            moves: 0,
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        world.join();
        for _ in 0..60 {
            match world.random(12) {
                0 | 1 if world.nodes.len() < 9 => world.join(),
                2 if world.nodes.len() > 1 => {
                    let at = world.random(world.nodes.len());
                    let node = world.nodes.remove(at);
                    world.remove(node.epoch);
                }
                3 if world.nodes.len() > 1 => {
                    // Killed: its row stays.
                    let at = world.random(world.nodes.len());
                    world.nodes.remove(at);
                }
                4 => {
                    let at = world.random(world.nodes.len());
                    world.nodes[at].is_hung ^= true;
                }
                _ => {}
            }
            world.round();
        }
        for node in &mut world.nodes {
            node.is_hung = false;
        }
        // Time for the dead to be found and for who was not counted to be counted again.
        for _ in 0..160 {
            world.round();
        }
        let counts: Vec<_> =
            world.nodes.iter().map(|node| world.owners.iter().filter(|owner| **owner == Some(node.epoch)).count()).collect();
        assert_eq!(counts.iter().sum::<usize>(), SHARDS, "seed {seed}: {counts:?}");
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "seed {seed}: {counts:?}");
        let before = world.moves;
        for _ in 0..20 {
            world.round();
        }
        assert_eq!(world.moves, before, "seed {seed}: shards move though nothing happens");
    }
}
