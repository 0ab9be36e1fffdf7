//! Keyset pages: from a [`PageQuery`] to a range and a direction, and from the rows read to a [`Page`].

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
