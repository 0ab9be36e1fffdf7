//! When the next group is begun. A commit costs much the same whatever is in it: where more is to be expected, a group waits a moment for
//! it. Begun at once whenever nobody else commits, groups are small, and keep a processor busy that requests could have.
//!
//! Who comes alone never waits, and a group that everybody is in who was there lately, or half of a crowd, does not either.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How long a store's groups may wait.
#[derive(Clone, Debug)]
pub struct Patience {
    /// From the beginning of one group to the next: so often what a group costs.
    pub costs: u32,
    /// … and never longer than this.
    pub wait_max: Duration,
    /// Messages that make a group large enough: half of those who were there lately, so that one half is served while the other one is
    /// committed, within these bounds.
    pub messages: RangeInclusive<usize>,
}

/// What was seen of the groups so far.
#[derive(Debug)]
pub struct Pace {
    patience: Patience,
    /// When the last one was taken.
    began_at: Option<Instant>,
    /// How long the last one that is durable took.
    cost: Duration,
    /// The most messages that were on their way at the same time, lately.
    most: usize,
}

impl Pace {
    pub fn new(patience: Patience) -> Self {
        Self { patience, began_at: None, cost: Duration::ZERO, most: 0 }
    }

    /// From now on, groups never wait longer than this.
    pub fn set_wait_max(&mut self, wait_max: Duration) {
        self.patience.wait_max = wait_max;
    }

    /// Until when a group of so many messages waits for more; `None`: it does not.
    pub fn until(&self, messages: usize) -> Option<Instant> {
        if messages >= self.enough() {
            return None;
        }
        let wait = (self.cost * self.patience.costs).min(self.patience.wait_max);
        self.began_at.map(|at| at + wait)
    }

    /// So many messages make a group that waits for nobody.
    pub fn enough(&self) -> usize {
        let (least, most) = (*self.patience.messages.start(), *self.patience.messages.end());
        (self.most / 2).clamp(least, most).min(self.most)
    }

    /// A group is taken; with those that are not answered yet, so many messages are on their way.
    pub fn begin(&mut self, now: Instant, messages: usize) {
        self.began_at = Some(now);
        // A crowd is forgotten within some groups.
        self.most = messages.max(self.most - self.most.div_ceil(8));
    }

    /// A group has become durable that long after it was taken.
    pub fn end(&mut self, cost: Duration) {
        self.cost = cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { costs: 3, wait_max: Duration::from_millis(2), messages: 32..=100 };
    const COST: Duration = Duration::from_micros(200);

    /// Broken: who publishes one after the other waits for nobody, each time.
    #[test]
    fn who_comes_alone_does_not_wait() {
        let mut pace = Pace::new(PATIENCE);
        assert_eq!(pace.until(1), None);
        for _ in 0..3 {
            pace.begin(Instant::now(), 1);
            pace.end(COST);
            assert_eq!(pace.until(1), None);
        }
    }

    /// Broken: of eight that publish one after the other, one is committed alone and the others wait for that.
    #[test]
    fn a_group_waits_for_those_who_were_there_lately_and_no_longer() {
        let (mut pace, began) = (Pace::new(PATIENCE), Instant::now());
        pace.begin(began, 8);
        pace.end(COST);
        assert_eq!(pace.until(7), Some(began + COST * 3));
        assert_eq!(pace.until(8), None);
        // Seven of them have gone.
        let groups = (0..100).take_while(|_| {
            pace.begin(began, 1);
            pace.until(1).is_some()
        });
        assert!((4..30).contains(&groups.count()));
    }

    /// Broken: a crowd is committed as one, and nobody is served meanwhile.
    #[test]
    fn half_of_a_crowd_is_enough() {
        let mut pace = Pace::new(PATIENCE);
        for (there, enough) in [(1, 1), (9, 9), (32, 32), (64, 32), (120, 60), (500, 100)] {
            pace.begin(Instant::now(), there);
            pace.end(COST);
            assert_eq!(pace.enough(), enough, "of {there}");
            assert!(pace.until(enough).is_none() && (enough == 1 || pace.until(enough - 1).is_some()));
        }
    }

    /// Broken: a node that gets half of the load commits twice as often as one that gets all of it.
    #[test]
    fn how_long_a_group_waits_at_most_may_change() {
        let (mut pace, began) = (Pace::new(PATIENCE), Instant::now());
        pace.begin(began, 8);
        pace.end(Duration::from_secs(9));
        pace.set_wait_max(PATIENCE.wait_max * 2);
        assert_eq!(pace.until(1), Some(began + PATIENCE.wait_max * 2));
    }

    /// Broken: a slow disk makes everybody wait much longer than it takes, or a large group waits to grow.
    #[test]
    fn the_wait_is_bounded_and_a_large_group_is_enough() {
        let (mut pace, began) = (Pace::new(PATIENCE), Instant::now());
        pace.begin(began, 500);
        pace.end(Duration::from_secs(9));
        assert_eq!(pace.until(1), Some(began + PATIENCE.wait_max));
        assert_eq!(pace.until(100), None);
    }
}
