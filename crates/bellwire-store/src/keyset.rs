//! Keyset pages: from a [`PageQuery`] to a range and a direction, and from the rows read to a [`Page`].

use std::collections::BTreeMap;

use bellwire_core::{Direction, Page, PageQuery};

/// How to read one page.
#[derive(Clone, Debug)]
pub struct Keyset<C> {
    /// The direction of travel: that of the SQL.
    pub is_ascending: bool,
    pub after: Option<C>,
    limit: usize,
    is_backwards: bool,
}

impl<C> Keyset<C> {
    pub fn of<I>(page: PageQuery<I>, cursor: impl FnOnce(I) -> C) -> Self {
        let travel = if page.backwards { page.order.reversed() } else { page.order };
        Self {
            is_ascending: travel == Direction::Ascending,
            after: page.after.map(cursor),
            limit: page.limit,
            is_backwards: page.backwards,
        }
    }

    /// Rows to read: one more than the page holds, to see whether more follow.
    pub fn wanted(&self) -> usize {
        self.limit.saturating_add(1)
    }

    /// As [`Self::wanted`], as a parameter.
    pub fn wanted_sql(&self) -> i64 {
        i64::try_from(self.wanted()).unwrap_or(i64::MAX)
    }

    pub fn order_sql(&self) -> &'static str {
        if self.is_ascending { "ASC" } else { "DESC" }
    }

    /// `>` or `<`: what keys of the page are, compared with the cursor.
    pub fn beyond_sql(&self) -> &'static str {
        if self.is_ascending { ">" } else { "<" }
    }

    /// The page from rows in the direction of travel.
    pub fn page<T>(&self, mut rows: Vec<T>) -> Page<T> {
        let done = rows.len() <= self.limit;
        rows.truncate(self.limit);
        if self.is_backwards {
            rows.reverse();
        }
        Page { rows, done }
    }
}

impl Keyset<i64> {
    /// All rows of ascending keys after the cursor.
    pub fn ascending(after: Option<i64>) -> Self {
        Self { is_ascending: true, after, limit: usize::MAX, is_backwards: false }
    }

    /// The cursor, or the end of the keys that every row is beyond.
    pub fn from(&self) -> i64 {
        self.after.unwrap_or(if self.is_ascending { i64::MIN } else { i64::MAX })
    }

    /// Whether a row of this key belongs to the page or behind it.
    pub fn is_beyond(&self, key: i64) -> bool {
        if self.is_ascending { key > self.from() } else { key < self.from() }
    }
}

/// Keys from `from` on, up to but without `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub from: i64,
    pub to: i64,
}

/// Of rows that come from several places, the nearest to the cursor: as many as are wanted, and never more in memory.
#[derive(Debug)]
pub struct Nearest<T> {
    rows: BTreeMap<i64, T>,
    wanted: usize,
    is_ascending: bool,
}

impl<T> Nearest<T> {
    pub fn of(keyset: &Keyset<i64>) -> Self {
        Self::new(keyset.wanted(), keyset.is_ascending)
    }

    pub fn new(wanted: usize, is_ascending: bool) -> Self {
        Self { rows: BTreeMap::new(), wanted, is_ascending }
    }

    pub fn is_full(&self) -> bool {
        self.rows.len() >= self.wanted
    }

    /// The farthest of those held.
    pub fn farthest(&self) -> Option<i64> {
        let entry = if self.is_ascending { self.rows.last_key_value() } else { self.rows.first_key_value() };
        entry.map(|(key, _)| *key)
    }

    /// Whether a row of this key would be held.
    pub fn has_room_for(&self, key: i64) -> bool {
        !self.is_full() || self.farthest().is_some_and(|far| if self.is_ascending { key < far } else { key > far })
    }

    /// Takes a row; of too many, the farthest goes.
    pub fn put(&mut self, key: i64, row: T) {
        if !self.has_room_for(key) {
            return;
        }
        self.rows.insert(key, row);
        if self.rows.len() > self.wanted {
            if self.is_ascending {
                self.rows.pop_last()
            } else {
                self.rows.pop_first()
            };
        }
    }

    pub fn keys(&self) -> Vec<i64> {
        let keys = self.rows.keys().copied();
        if self.is_ascending { keys.collect() } else { keys.rev().collect() }
    }

    /// Nearest first.
    pub fn into_rows(self) -> Vec<T> {
        let rows = self.rows.into_values();
        if self.is_ascending { rows.collect() } else { rows.rev().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(order: Direction, after: Option<i64>, backwards: bool) -> Page<i64> {
        let keyset = Keyset::of(PageQuery { limit: 3, order, after, backwards }, |key| key);
        let mut rows: Vec<i64> = (1..=9).filter(|key| keyset.is_beyond(*key)).collect();
        if !keyset.is_ascending {
            rows.reverse();
        }
        rows.truncate(keyset.wanted());
        keyset.page(rows)
    }

    #[test]
    fn of_many_rows_the_nearest_are_held_and_never_more() {
        for (is_ascending, expected) in [(true, [1, 2, 3]), (false, [9, 8, 7])] {
            let mut nearest = Nearest::new(3, is_ascending);
            for key in [5, 1, 9, 2, 8, 2, 3, 7, 4, 6] {
                nearest.put(key, key);
                assert!(nearest.rows.len() <= 3, "memory follows the page, not what was read");
            }
            assert_eq!(nearest.farthest(), expected.last().copied());
            assert!(nearest.is_full() && !nearest.has_room_for(5));
            assert_eq!(nearest.keys(), expected);
            assert_eq!(nearest.into_rows(), expected);
        }
    }

    #[test]
    fn pages_are_listed_in_the_asked_order_whichever_way_they_are_reached() {
        use Direction::{Ascending, Descending};
        for (order, after, backwards, rows, done) in [
            (Ascending, None, false, [1, 2, 3], false),
            (Ascending, Some(3), false, [4, 5, 6], false),
            (Ascending, Some(6), false, [7, 8, 9], true),
            (Ascending, Some(7), true, [4, 5, 6], false),
            (Ascending, Some(4), true, [1, 2, 3], true),
            (Descending, None, false, [9, 8, 7], false),
            (Descending, Some(4), false, [3, 2, 1], true),
            (Descending, Some(3), true, [6, 5, 4], false),
        ] {
            let got = page(order, after, backwards);
            assert_eq!((got.rows.as_slice(), got.done), (rows.as_slice(), done), "{order:?} {after:?} {backwards}");
        }
    }
}
