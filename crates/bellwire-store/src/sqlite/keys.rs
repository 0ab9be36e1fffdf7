//! Under which keys the messages of a segment were made.
//!
//! The new keys of a group are appended to `fresh_key`, in one row, and kept in memory. When there are many, they are taken over into
//! `idempotency` in the order of keys, some with every group. There a key that comes by itself dirties a page of its own: half of all
//! pages written for a received event.
//!
//! Everything is done in small steps, as every publisher waits meanwhile: trees, which need no sorting and never grow all at once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bellwire_core::limits;
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Outcome;
use crate::StoreError;

type Key = [u8; 16];
/// In a row of `fresh_key`: the key, the request, and as big-endian numbers the message's key and the end.
const ENTRY_BYTES: usize = 48;
/// A group adds one row; more of them have to go with each, so that it comes to an end.
const TRIMMED_ROWS_MIN: usize = 2;
/// Deleting a row costs as much as taking over so many keys.
const TRIMMED_ENTRIES: usize = 16;

/// What a key has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    pub request: [u8; 16],
    /// The message's key.
    pub message: i64,
    pub expires_at: i64,
}

impl Made {
    fn put(&self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.extend_from_slice(&self.request);
        out.extend_from_slice(&self.message.to_be_bytes());
        out.extend_from_slice(&self.expires_at.to_be_bytes());
    }

    fn read(entry: &[u8; ENTRY_BYTES]) -> (Key, Self) {
        let number = |at: usize| entry[at..].first_chunk().copied().map_or(0, i64::from_be_bytes);
        let half = |at: usize| entry[at..].first_chunk().copied().unwrap_or_default();
        (half(0), Self { request: half(16), message: number(32), expires_at: number(40) })
    }
}

/// The keys of one segment that are not, or not for sure, in `idempotency`. Of a key that is used again after it has expired, the
/// newest use counts: the open transaction's, then `fresh`, then `moving`, then the table.
#[derive(Debug, Default)]
pub struct Keys {
    /// Of the open transaction, and as they will stand in its row.
    pending: HashMap<Key, Made>,
    unwritten: Vec<u8>,
    fresh: BTreeMap<Key, Made>,
    /// Being taken over.
    moving: BTreeMap<Key, Made>,
    /// Up to this one they are taken over in the open transaction.
    moved_pending: Option<Key>,
    /// Rows of `fresh_key` below this number are in `idempotency`, and have to go.
    trim_below: Option<i64>,
    is_trimmed_pending: bool,
    /// Number of the next row of `fresh_key`, and of the first one that is not in a committed transaction, nor in `moving`.
    next: i64,
    next_committed: i64,
    next_moving: i64,
}

impl Keys {
    /// All keys that may not be in `idempotency` yet.
    pub fn load(conn: &Connection) -> Outcome<Self> {
        let mut keys = Self::default();
        // Later uses take the place of earlier ones.
        let mut statement = conn.prepare("SELECT id, entries FROM fresh_key ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let entries = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
            if !rest.is_empty() {
                return Err(StoreError::Corrupt("a row of idempotency keys of a wrong length".to_owned()).into());
            }
            keys.fresh.extend(entries.iter().map(Made::read));
            keys.next = row.get::<_, i64>(0)? + 1;
        }
        keys.next_committed = keys.next;
        Ok(keys)
    }

    /// What was made under this key last, whether it has expired or not.
    pub fn find(&self, conn: &Connection, key: &Key) -> Outcome<Option<Made>> {
        if let Some(made) = self.pending.get(key).or_else(|| self.fresh.get(key)) {
            return Ok(Some(*made));
        }
        if let Some(made) = self.moving.get(key) {
            return Ok(Some(*made));
        }
        let sql = "SELECT request, message, expires_at FROM idempotency WHERE key = ?1";
        let found = conn
            .prepare_cached(sql)?
            .query_row([key], |row| Ok(Made { request: row.get(0)?, message: row.get(1)?, expires_at: row.get(2)? }))
            .optional()?;
        Ok(found)
    }

    /// In the open transaction; to be written before it is committed.
    pub fn add(&mut self, key: Key, made: Made) {
        made.put(&key, &mut self.unwritten);
        self.pending.insert(key, made);
    }

    /// Writes what was added.
    pub fn write(&mut self, conn: &Connection) -> Outcome<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO fresh_key (id, entries) VALUES (?1, ?2)";
        conn.prepare_cached(sql)?.execute(params![self.next, self.unwritten])?;
        self.next += 1;
        self.unwritten.clear();
        Ok(())
    }

    /// Takes over some keys if there are many, in the open transaction: more than `added`, so that it comes to an end.
    pub fn advance(&mut self, conn: &Connection, added: usize) -> Outcome<()> {
        if self.moving.is_empty() && self.trim_below.is_none() {
            if self.fresh.len() < limits::FRESH_KEYS_MAX {
                return Ok(());
            }
            self.start_moving();
        }
        self.step(conn, added.saturating_mul(limits::FRESH_KEYS_MOVED))
    }

    /// Whether all of them are in `idempotency` and nowhere else.
    pub fn is_settled(&self) -> bool {
        self.fresh.is_empty() && self.moving.is_empty() && self.trim_below.is_none()
    }

    /// Takes over at most so many, however few there are.
    pub fn settle_some(&mut self, conn: &Connection, rows: usize) -> Outcome<()> {
        if self.moving.is_empty() && self.trim_below.is_none() {
            self.start_moving();
        }
        self.step(conn, rows)
    }

    fn start_moving(&mut self) {
        self.moving = std::mem::take(&mut self.fresh);
        self.next_moving = self.next_committed;
    }

    fn step(&mut self, conn: &Connection, rows: usize) -> Outcome<()> {
        if let Some(below) = self.trim_below {
            let sql = "DELETE FROM fresh_key WHERE id IN (SELECT id FROM fresh_key WHERE id < ?1 ORDER BY id LIMIT ?2)";
            let rows = (rows / TRIMMED_ENTRIES).max(TRIMMED_ROWS_MIN);
            let gone = conn.prepare_cached(sql)?.execute(params![below, i64::try_from(rows).unwrap_or(i64::MAX)])?;
            self.is_trimmed_pending = gone < rows;
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO idempotency (key, request, message, expires_at) VALUES (?1, ?2, ?3, ?4)";
        let mut statement = conn.prepare_cached(sql)?;
        let from = self.moved_pending.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, made) in self.moving.range((from, Bound::Unbounded)).take(rows) {
            statement.execute(params![key, made.request, made.message, made.expires_at])?;
            self.moved_pending = Some(*key);
        }
        Ok(())
    }

    /// The transaction was committed.
    pub fn committed(&mut self) {
        self.fresh.extend(self.pending.drain());
        self.next_committed = self.next;
        if let Some(moved) = self.moved_pending.take() {
            while self.moving.first_key_value().is_some_and(|(key, _)| *key <= moved) {
                self.moving.pop_first();
            }
            if self.moving.is_empty() {
                self.trim_below = Some(self.next_moving);
            }
        }
        if std::mem::take(&mut self.is_trimmed_pending) {
            self.trim_below = None;
        }
    }

    /// The transaction was rolled back.
    pub fn rolled_back(&mut self) {
        self.pending.clear();
        self.unwritten.clear();
        self.moved_pending = None;
        self.is_trimmed_pending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    fn key(number: u64) -> Key {
        // Not in the order of their numbers.
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        key
    }

    fn begin(conn: &Connection, is_open: &mut bool) {
        if !std::mem::replace(is_open, true) {
            conn.execute_batch("BEGIN").unwrap();
        }
    }

    /// Broken: a repeat is not recognised, or an expired use of a key comes back, after keys were taken over, a rollback or a crash.
    #[test]
    fn a_key_is_found_with_its_newest_use_wherever_it_stands() {
        for seed in 0..40 {
            let conn = Connection::open_in_memory().unwrap();
            conn.execute_batch(include_str!("../../migrations/sqlite/segment/0001_first.sql")).unwrap();
            let mut dice = Dice(seed);
            let mut keys = Keys::load(&conn).unwrap();
            let (mut durable, mut now) = (HashMap::new(), HashMap::new());
            let (mut is_open, mut message) = (false, 0);
            for _ in 0..600 {
                match dice.roll(12) {
                    0..=5 => {
                        begin(&conn, &mut is_open);
                        message += 1;
                        let made = Made { request: [dice.roll(9) as u8; 16], message: message ^ 3, expires_at: message };
                        let key = key(dice.roll(60));
                        keys.add(key, made);
                        now.insert(key, made);
                    }
                    6 | 7 => {
                        if !keys.is_settled() {
                            begin(&conn, &mut is_open);
                            keys.settle_some(&conn, dice.roll(12) as usize + 1).unwrap();
                        }
                    }
                    8 | 9 => {
                        if std::mem::take(&mut is_open) {
                            keys.write(&conn).unwrap();
                            conn.execute_batch("COMMIT").unwrap();
                            keys.committed();
                            durable.clone_from(&now);
                        }
                    }
                    what => {
                        if std::mem::take(&mut is_open) {
                            if what == 10 {
                                keys.write(&conn).unwrap();
                            }
                            conn.execute_batch("ROLLBACK").unwrap();
                            keys.rolled_back();
                        }
                        if what == 11 {
                            keys = Keys::load(&conn).unwrap();
                        }
                        now.clone_from(&durable);
                    }
                }
                for number in 0..60 {
                    assert_eq!(
                        keys.find(&conn, &key(number)).unwrap(),
                        now.get(&key(number)).copied(),
                        "seed {seed}, key {number}"
                    );
                }
            }
            begin(&conn, &mut is_open);
            for _ in 0..10_000 {
                if keys.is_settled() {
                    break;
                }
                keys.settle_some(&conn, 5).unwrap();
                keys.committed();
            }
            let rows = |table: &str| conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
            assert_eq!((rows("fresh_key"), rows("idempotency")), (Ok(0), Ok(now.len() as i64)));
        }
    }
}
