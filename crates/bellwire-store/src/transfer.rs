//! Moving from the embedded store to PostgreSQL: every row, page by page, resumable, and verified by reading everything back.
//!
//! Rows are moved as they stand (payloads stay compressed, secrets stay sealed), so both stores need the same master key. A page
//! and the position after it commit together: an interrupted move goes on where it was. At the end each table of the target is read
//! whole, and its count and checksum are compared with those of what was read from the source. A move that was interrupted also reads
//! the source a second time: nobody must have written to it in between.
//! `sqlite/export.rs` reads, `postgres/import.rs` writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::postgres::PostgresStore;
use crate::postgres::import::Import;
use crate::sqlite::SqliteStore;
use crate::sqlite::export::Export;
use crate::{Result, StoreError};

/// Rows of one page: one transaction of the target.
pub const PAGE_ROWS: usize = 5_000;
/// Bytes of one page: payloads may be large.
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A value on its way.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Int(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        }
    }
}

/// How a column is typed in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Text,
    Bytes,
}

/// A table of the target that is filled.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
    /// Rows of several segments add up in one of the target: all but the first two columns, which are its key.
    pub is_summed: bool,
}

/// A row of a table, in the order of its columns.
pub type Row = Vec<Value>;

/// What a table holds, in whatever order: its rows' number and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: u64,
    pub hash: u64,
}

impl Sum {
    pub fn add(&mut self, row: &[Value]) {
        let mut bytes = Vec::with_capacity(256);
        for value in row {
            match value {
                Value::Null => bytes.push(0),
                Value::Int(number) => {
                    bytes.push(1);
                    bytes.extend_from_slice(&number.to_be_bytes());
                }
                Value::Text(text) => {
                    bytes.push(2);
                    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
                Value::Blob(blob) => {
                    bytes.push(3);
                    bytes.extend_from_slice(&(blob.len() as u64).to_be_bytes());
                    bytes.extend_from_slice(blob);
                }
            }
        }
        self.rows += 1;
        self.hash = self.hash.wrapping_add(xxh3_64(&bytes));
    }

    /// As a table's target will have them.
    pub fn add_rows(&mut self, table: &Table, rows: &[Row]) {
        for row in rows {
            if table.is_summed {
                self.rows += 1;
                self.add_figures(row);
            } else {
                self.add(row);
            }
        }
    }

    /// Of a summed table, each row adds its figures apart from the key, so that rows may have been added up.
    pub fn add_figures(&mut self, row: &[Value]) {
        let (key, figures) = row.split_at(2);
        for (at, figure) in figures.iter().enumerate() {
            if let Value::Int(number) = figure {
                let mut one = Self::default();
                one.add(&[key, &[Value::Int(i64::try_from(at).unwrap_or(0))]].concat());
                self.hash = self.hash.wrapping_add(one.hash.wrapping_mul(number.cast_unsigned()));
            }
        }
    }
}

/// How far a move is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub phase: Phase,
    pub table: &'static str,
    /// Rows of the source read (or of the target verified), of how many.
    pub done: u64,
    pub total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Copy,
    /// Reading the target back.
    Verify,
    /// Reading the source again, after an interruption.
    Compare,
}

/// What a move came to: rows in each table of the target, verified.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub tables: Vec<(&'static str, u64)>,
    /// It had been begun before.
    pub was_resumed: bool,
}

/// Moves everything. The source is open (so nobody else writes to it) and stays as it is; the target was opened with
/// [`crate::postgres::PostgresOptions::is_move_target`] and is empty, or holds what an earlier, interrupted move from the same source
/// has written. Dropped half-way, it can be run again and goes on with the next page.
///
/// # Errors
/// [`StoreError::Move`]: the target holds other data or is of another move, another process moves into it, or the source has changed
/// since the move began. [`StoreError::Corrupt`]: the target differs at the end; the text says which table and how.
pub async fn run(
    source: &Arc<SqliteStore>,
    target: &Arc<PostgresStore>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report> {
    run_in_pages(source, target, PAGE_ROWS, progress).await
}

/// As [`run`], with pages of so many rows.
///
/// # Errors
/// As [`run`].
pub async fn run_in_pages(
    source: &Arc<SqliteStore>,
    target: &Arc<PostgresStore>,
    page_rows: usize,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report> {
    let export = Export::open(source, page_rows).await?;
    let mut import = Import::begin(target, export.identity(), export.total()).await?;
    let mut report = Report { was_resumed: import.was_resumed(), ..Report::default() };
    if !import.is_copied() {
        copy(&export, &mut import, progress).await?;
    }
    if import.was_resumed() && !import.is_finished() {
        compare(&export, &import, progress).await?;
    }
    let total: u64 = import.sums().iter().map(|(_, sum)| sum.rows).sum();
    let mut done = 0;
    for (table, expected) in import.sums() {
        // A finished move has been served from since: its tables are only counted.
        if import.is_finished() {
            report.tables.push((table.name, expected.rows));
            continue;
        }
        let found = import
            .read_back(table, &mut |rows| {
                progress(Progress { phase: Phase::Verify, table: table.name, done: done + rows, total })
            })
            .await?;
        let is_same = found.hash == expected.hash && (table.is_summed || found.rows == expected.rows);
        if !is_same {
            return Err(StoreError::Corrupt(format!(
                "table {} differs: {} rows (checksum {:016x}) were read from the source, {} ({:016x}) are in the target; empty the \
                 target database and move again",
                table.name, expected.rows, expected.hash, found.rows, found.hash
            )));
        }
        done += expected.rows;
        report.tables.push((table.name, found.rows));
    }
    import.finish().await?;
    Ok(report)
}

async fn copy(export: &Export, import: &mut Import, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<()> {
    let total = export.total();
    let mut done = 0;
    for part in export.parts() {
        let mut position = import.position(&part.name);
        done += position.as_ref().map_or(0, |position| position.rows);
        loop {
            if position.as_ref().is_some_and(|position| position.is_end) {
                break;
            }
            let page = export.page(part, position.as_ref().map(|position| position.after.clone())).await?;
            done += page.read;
            position = Some(import.write(part.name.clone(), page).await?);
            progress(Progress { phase: Phase::Copy, table: part.table, done, total });
        }
    }
    import.copied().await
}

/// Whether the source still holds what was copied from it.
async fn compare(export: &Export, import: &Import, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<()> {
    let total = export.total();
    let mut done = 0;
    let mut sums: BTreeMap<&'static str, Sum> = BTreeMap::new();
    for part in export.parts() {
        let mut after = None;
        loop {
            let page = export.page(part, after).await?;
            for (table, rows) in &page.rows {
                sums.entry(table.name).or_default().add_rows(table, rows);
            }
            done += page.read;
            progress(Progress { phase: Phase::Compare, table: part.table, done, total });
            if page.is_end {
                break;
            }
            after = Some(page.after);
        }
    }
    for (table, copied) in import.sums() {
        if sums.get(table.name).copied().unwrap_or_default() != copied {
            return Err(source_changed(table.name));
        }
    }
    Ok(())
}

/// What was copied before an interruption is not what the source holds now.
pub(crate) fn source_changed(what: &str) -> StoreError {
    StoreError::Move(format!(
        "the source has changed since the move was begun ({what}): a server has run on it; empty the target database and move again"
    ))
}

/// One page: rows by the table they go to, and where the next one begins.
#[derive(Debug, Default)]
pub struct Page {
    pub rows: Vec<(&'static Table, Vec<Row>)>,
    /// Rows of the source in it.
    pub read: u64,
    pub after: Vec<u8>,
    pub is_end: bool,
}

macro_rules! tables {
    ($($constant:ident = $name:literal $([$summed:ident])? { $($column:literal $kind:ident,)+ })+) => {
        $(pub static $constant: Table = Table {
            name: $name,
            columns: &[$(($column, Kind::$kind)),+],
            is_summed: tables!(@ $($summed)?),
        };)+
        /// All of them, in the order they are verified.
        pub static TABLES: &[&Table] = &[$(&$constant),+];
    };
    (@ summed) => { true };
    (@) => { false };
}

tables! {
    APPLICATION = "application" {
        "id" Int8, "tail" Bytes, "org" Bytes, "kind" Int2, "uid" Text, "name" Text, "throttle_rate" Int4, "metadata" Text,
        "created_at" Int8, "updated_at" Int8, "deleted_at" Int8,
    }
    ENDPOINT = "endpoint" {
        "id" Int8, "tail" Bytes, "app" Int8, "uid" Text, "url" Text, "description" Text, "event_types" Text, "channels" Text,
        "throttle_rate" Int4, "disabled" Bool, "metadata" Text, "headers" Bytes, "secret" Bytes, "failing_since" Int8,
        "enabled_at" Int8, "created_at" Int8, "updated_at" Int8, "deleted_at" Int8,
    }
    EVENT_TYPE = "event_type" {
        "org" Bytes, "name" Text, "description" Text, "archived" Bool, "deprecated" Bool, "schemas" Text, "feature_flags" Text,
        "group_name" Text, "created_at" Int8, "updated_at" Int8,
    }
    API_KEY = "api_key" {
        "id" Int8, "tail" Bytes, "org" Bytes, "name" Text, "hash" Bytes, "scopes" Text, "created_at" Int8, "expires_at" Int8,
        "revoked_at" Int8, "last_used_at" Int8,
    }
    REVOKED_TOKEN = "revoked_token" { "id" Bytes, "app" Bytes, "expires_at" Int8, }
    SOURCE = "source" {
        "id" Int8, "tail" Bytes, "org" Bytes, "app" Bytes, "is_app_own" Bool, "uid" Text, "name" Text, "kind" Text,
        "token_hash" Bytes, "token" Bytes, "config" Bytes, "settings" Text, "state" Bytes, "metadata" Text, "created_at" Int8,
        "updated_at" Int8,
    }
    RECEIPT = "receipt" {
        "id" Int8, "tail" Bytes, "source" Int8, "status" Int4, "reason" Text, "detail" Text, "duplicate_of" Bytes,
        "payload" Bytes, "headers" Text, "at" Int8,
    }
    TASK = "task" {
        "id" Int8, "tail" Bytes, "org" Bytes, "kind" Int2, "status" Int2, "app" Bytes, "endpoint" Bytes, "since" Int8,
        "until" Int8, "position" Bytes, "messages_sent" Int8, "created_at" Int8, "updated_at" Int8,
    }
    IDEMPOTENCY = "idempotency" {
        "key" Bytes, "request" Bytes, "message" Int8, "tail" Bytes, "org" Bytes, "status" Int2, "response" Bytes, "expires_at" Int8,
    }
    MESSAGE = "message" {
        "id" Int8, "tail" Bytes, "app" Int8, "event_type" Text, "event_id" Text, "encoding" Int2, "checksum" Int8,
        "content_type" Text, "channels" Text, "tags" Text, "created_at" Int8, "deliver_at" Int8, "payload_expires_at" Int8,
        "payload_dies_at" Int8, "payload" Bytes, "origin" Text,
    }
    MESSAGE_EVENT = "message_event" { "app" Int8, "event_id" Text, "message" Int8, }
    QUEUE = "queue" { "message" Int8, "endpoint" Int8, "shard" Int2, "app" Int8, "tail" Bytes, }
    RETRY = "retry" {
        "message" Int8, "endpoint" Int8, "shard" Int2, "app" Int8, "tail" Bytes, "tries" Int4, "due_at" Int8, "trigger" Int2,
        "resume_at" Int8, "is_delivered" Bool,
    }
    OUTCOME = "outcome" {
        "message" Int8, "endpoint" Int8, "state" Int2, "tries" Int4, "reason" Text, "counted_minute" Int8, "is_delivered" Bool,
    }
    ATTEMPT = "attempt" {
        "message" Int8, "id" Int8, "tail" Bytes, "endpoint" Int8, "status" Int2, "trigger" Int2, "response_status" Int2,
        "duration_ms" Int8, "timestamp" Int8, "url" Text, "response" Bytes,
    }
    COUNTER = "counter" [summed] { "endpoint" Int8, "minute" Int8, "success" Int8, "fail" Int8, "canceled" Int8, }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_do_not_depend_on_the_order_but_on_every_value() {
        let rows = [vec![Value::Int(1), Value::Text("a".into())], vec![Value::Int(2), Value::Null]];
        let sum = |rows: &[&Row]| {
            let mut sum = Sum::default();
            rows.iter().for_each(|row| sum.add(row));
            sum
        };
        assert_eq!(sum(&[&rows[0], &rows[1]]), sum(&[&rows[1], &rows[0]]));
        assert_ne!(sum(&[&rows[0]]), sum(&[&rows[1]]));
        assert_ne!(sum(&[&vec![Value::Text("a".into())]]), sum(&[&vec![Value::Blob(b"a".to_vec())]]));
        assert_ne!(
            sum(&[&vec![Value::Text("ab".into()), Value::Text("c".into())]]),
            sum(&[&vec![Value::Text("a".into()), Value::Text("bc".into())]])
        );
    }

    #[test]
    fn counters_of_several_segments_may_be_added_up() {
        let row = |success: i64| vec![Value::Int(7), Value::Int(8), Value::Int(success), Value::Int(0), Value::Int(1)];
        let (mut apart, mut together) = (Sum::default(), Sum::default());
        apart.add_figures(&row(2));
        apart.add_figures(&row(3));
        together.add_figures(&[Value::Int(7), Value::Int(8), Value::Int(5), Value::Int(0), Value::Int(2)]);
        assert_eq!(apart, together);
        let mut other = Sum::default();
        other.add_figures(&row(4));
        assert_ne!(apart, other);
    }
}
