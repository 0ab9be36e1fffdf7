//! The messages of an endpoint: found from what the endpoint has, never by looking through its application's messages.

use bellwire_core::{AppId, AttemptStatus, EndpointId, IdKind, Page, Timestamp, id::timestamp_to_key};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::fault::Outcome;
use super::message::{Conditions, segments_from};
use super::reader::ReadFiles;
use super::record::{CANCELLED, EXHAUSTED, PENDING};
use super::row::{self, MESSAGE_COLUMNS, WITH_PAYLOAD, WITHOUT_PAYLOAD};
use super::state::state;
use crate::keyset::{KeyRange, Keyset, Nearest};
use crate::{AttemptedMessage, MessageFilter};

/// Messages looked for at a time when filters leave little (8 bytes each, and the tree): each time, the endpoint's entries in
/// the index may have to be walked through.
const CANDIDATES_MAX: usize = 65_536;

/// Where messages of a status are. In this order: a delivery goes from the queue to the others, so none slips through.
struct Sources {
    queue: bool,
    /// Rows of `retry`: all, or those of one state.
    retry: Option<Option<i64>>,
    attempts: bool,
}

impl Sources {
    fn of(status: Option<AttemptStatus>) -> Self {
        let none = Self { queue: false, retry: None, attempts: false };
        match status {
            None => Self { queue: true, retry: Some(None), attempts: true },
            Some(AttemptStatus::Success) => Self { attempts: true, ..none },
            Some(AttemptStatus::Pending) => Self { queue: true, retry: Some(Some(PENDING)), ..none },
            Some(AttemptStatus::Fail) => Self { retry: Some(Some(EXHAUSTED)), ..none },
            Some(AttemptStatus::Canceled) => Self { retry: Some(Some(CANCELLED)), ..none },
            Some(AttemptStatus::Sending) => none,
        }
    }
}

/// What is left of the time bounds beyond the cursor.
fn range(filter: &MessageFilter, keyset: &Keyset<i64>) -> KeyRange {
    let after = filter.after.map(|after| timestamp_to_key(Timestamp(after.as_millis().saturating_add(1))));
    let before = filter.before.map(timestamp_to_key);
    let mut range = KeyRange { from: after.unwrap_or(i64::MIN), to: before.unwrap_or(i64::MAX) };
    if let Some(cursor) = keyset.after {
        range.pass(cursor, keyset.is_ascending);
    }
    range
}

impl KeyRange {
    /// Leaves what lies beyond `cursor`.
    fn pass(&mut self, cursor: i64, is_ascending: bool) {
        if is_ascending {
            self.from = self.from.max(cursor.saturating_add(1));
        } else {
            self.to = self.to.min(cursor);
        }
    }
}

/// One look for messages.
struct Search<'a> {
    app: i64,
    endpoint: i64,
    status: Option<AttemptStatus>,
    filter: &'a MessageFilter,
    is_ascending: bool,
}

impl Search<'_> {
    /// The statement on `table`: its rows in the order of travel by `column`, of messages the filter takes.
    fn finish(&self, what: &str, table: &str, column: &str, mut conditions: Conditions) -> (String, Vec<Value>) {
        let unfiltered = conditions.values.len();
        conditions.and_content(self.filter);
        let mut join = "";
        if conditions.values.len() > unfiltered {
            conditions.and("message.app = ?", self.app);
            join = " CROSS JOIN message ON message.id = found.message";
        }
        let order = if self.is_ascending { "ASC" } else { "DESC" };
        let sql = format!("SELECT {what} FROM {table} AS found{join}{} ORDER BY {column} {order}", conditions.sql);
        (sql, conditions.values)
    }

    fn of_range(range: KeyRange) -> Conditions {
        let mut conditions = Conditions::default();
        conditions.and("found.message >= ?", range.from);
        conditions.and("found.message < ?", range.to);
        conditions
    }

    fn queue(&self, range: KeyRange) -> (String, Vec<Value>) {
        let mut conditions = Self::of_range(range);
        conditions.and("instr(found.endpoints, ?) > 0", self.endpoint.to_be_bytes().to_vec());
        self.finish("found.message", "queue", "found.message", conditions)
    }

    fn retry(&self, range: KeyRange, state: Option<i64>) -> (String, Vec<Value>) {
        let mut conditions = Self::of_range(range);
        conditions.and("found.endpoint = ?", self.endpoint);
        if let Some(state) = state {
            conditions.and("found.state = ?", state);
        }
        self.finish("found.message", "retry", "found.message", conditions)
    }

    /// An attempt takes its id when it ends: it is greater than its message's.
    fn attempts(&self, range: KeyRange) -> (String, Vec<Value>) {
        let mut conditions = Conditions::default();
        conditions.and("found.endpoint = ?", self.endpoint);
        conditions.and("found.id > ?", range.from);
        if let Some(status) = self.status {
            conditions.and("found.status = ?", i64::from(status as u8));
        }
        self.finish("found.id, found.message", "attempt", "found.id", conditions)
    }

    /// The next messages in the range that the endpoint may have something to do with, up to `wanted`.
    fn candidates(&self, conn: &Connection, range: KeyRange, wanted: usize) -> Outcome<Nearest<()>> {
        let sources = Sources::of(self.status);
        let mut nearest = Nearest::new(wanted, self.is_ascending);
        let queue = sources.queue.then(|| self.queue(range));
        let retry = sources.retry.map(|state| self.retry(range, state));
        for (sql, values) in queue.into_iter().chain(retry) {
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                let key = row.get(0)?;
                if !nearest.has_room_for(key) {
                    break;
                }
                nearest.put(key, ());
            }
        }
        if sources.attempts {
            let (sql, values) = self.attempts(range);
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                let (id, key): (i64, i64) = (row.get(0)?, row.get(1)?);
                // Newest first, all that follow are attempts of messages before this attempt.
                if !self.is_ascending && !nearest.has_room_for(id) {
                    break;
                }
                if key >= range.from && key < range.to {
                    nearest.put(key, ());
                }
            }
        }
        Ok(nearest)
    }
}

/// See [`crate::AttemptStore::list_attempted_messages`].
pub fn messages(
    files: &ReadFiles,
    app: AppId,
    endpoint: EndpointId,
    status: Option<AttemptStatus>,
    filter: &MessageFilter,
    keyset: &Keyset<i64>,
    with_content: bool,
) -> Outcome<Page<AttemptedMessage>> {
    let endpoint = endpoint.key();
    let search = Search { app: app.key(), endpoint, status, filter, is_ascending: keyset.is_ascending };
    let payload = if with_content { WITH_PAYLOAD } else { WITHOUT_PAYLOAD };
    let sql = format!("SELECT {MESSAGE_COLUMNS}, {payload} FROM message WHERE id = ?1 AND app = ?2");
    let mut range = range(filter, keyset);
    let mut found = Vec::new();
    let mut wanted = keyset.wanted().min(CANDIDATES_MAX);
    for segment in segments_from(files, keyset) {
        let Some(conn) = files.open(&segment)? else { continue };
        let mut load = conn.prepare_cached(&sql)?;
        loop {
            let nearest = search.candidates(&conn, range, wanted)?;
            for key in nearest.keys() {
                // Each message is a few small statements: the deadline is looked at for each.
                files.check_deadline()?;
                let row = load.query_row([key, app.key()], |row| row::message(row, 0, app)).optional()?;
                let Some(row) = row else { continue };
                let Some((is, next_attempt)) = state(&conn, key, endpoint)? else { continue };
                if status.is_some_and(|wanted| wanted != is) {
                    continue;
                }
                found.push(AttemptedMessage { message: row.unpack()?, status: is, next_attempt });
                if found.len() == keyset.wanted() {
                    return Ok(keyset.page(found));
                }
            }
            let Some(last) = nearest.farthest().filter(|_| nearest.is_full()) else { break };
            range.pass(last, keyset.is_ascending);
            wanted = wanted.saturating_mul(8).min(CANDIDATES_MAX);
        }
    }
    Ok(keyset.page(found))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn plan((sql, values): (String, Vec<Value>)) -> String {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../migrations/sqlite/segment/0001_first.sql")).unwrap();
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    /// Without it, a list over a million messages reads a million rows, and ends as Busy for ever.
    #[test]
    fn an_endpoints_messages_are_found_by_index_alone_and_in_order() {
        let range = KeyRange { from: 1, to: 9 };
        let (all, some) =
            (MessageFilter::default(), MessageFilter { event_types: vec!["invoice.paid".to_owned()], ..Default::default() });
        let with_message = "; SEARCH message USING INTEGER PRIMARY KEY (rowid=?)";
        for (is_ascending, filter, joined) in
            [(true, &all, ""), (false, &all, ""), (true, &some, with_message), (false, &some, with_message)]
        {
            for status in [None, Some(AttemptStatus::Success)] {
                let search = Search { app: 1, endpoint: 2, status, filter, is_ascending };
                assert_eq!(
                    plan(search.attempts(range)),
                    format!("SEARCH found USING COVERING INDEX attempt_by_endpoint (endpoint=? AND id>?){joined}")
                );
                for state in [None, Some(EXHAUSTED)] {
                    let expected = format!("SEARCH found USING PRIMARY KEY (message>? AND message<?){joined}");
                    assert_eq!(plan(search.retry(range, state)), expected);
                }
                let expected = format!("SEARCH found USING INTEGER PRIMARY KEY (rowid>? AND rowid<?){joined}");
                assert_eq!(plan(search.queue(range)), expected);
            }
        }
    }
}
