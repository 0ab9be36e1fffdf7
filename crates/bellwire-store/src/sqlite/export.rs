//! Reading the whole embedded store for a move to another one (`transfer.rs`): table by table, in pages, as the target has them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bellwire_core::limits;
use rusqlite::types::{Value as Cell, ValueRef};
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::SqliteStore;
use super::fault::Outcome;
use super::file::{Deadline, open_reader};
use super::files::Files;
use super::pack::{origin_sql, payload_sql};
use super::record::first_tries_left;
use crate::transfer::{
    API_KEY, APPLICATION, ATTEMPT, COUNTER, ENDPOINT, EVENT_TYPE, IDEMPOTENCY, MESSAGE, MESSAGE_EVENT, OUTCOME, PAGE_BYTES, Page,
    QUEUE, RECEIPT, RETRY, REVOKED_TOKEN, Row, SOURCE, TASK, Table, Value,
};
use crate::{Result, StoreError};

/// How rows of a source table become rows of the target.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// As selected.
    Same(&'static Table),
    /// Keys, but for those that have expired and been used again in another segment.
    Key,
    /// Messages, and their event ids apart.
    Message,
    /// One row a delivery that is left.
    Queue,
    /// Waiting or ended.
    Retry,
}

/// A table to read.
struct From {
    table: &'static str,
    /// Columns of the key the table is read by; they are selected first, for the position.
    key: &'static [&'static str],
    /// What follows them.
    select: &'static str,
    shape: Shape,
}

const CONTROL: &[From] = &[
    From {
        table: "application",
        key: &["id"],
        select: "id, tail, org, kind, uid, name, throttle_rate, metadata, created_at, updated_at, deleted_at",
        shape: Shape::Same(&APPLICATION),
    },
    From {
        table: "endpoint",
        key: &["id"],
        select: "id, tail, app, uid, url, description, event_types, channels, throttle_rate, disabled, metadata, headers, secret, \
                 failing_since, enabled_at, created_at, updated_at, deleted_at",
        shape: Shape::Same(&ENDPOINT),
    },
    From {
        table: "event_type",
        key: &["org", "name"],
        select: "org, name, description, archived, deprecated, schemas, feature_flags, group_name, created_at, updated_at",
        shape: Shape::Same(&EVENT_TYPE),
    },
    From {
        table: "api_key",
        key: &["id"],
        select: "id, tail, org, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at",
        shape: Shape::Same(&API_KEY),
    },
    From { table: "revoked_token", key: &["id"], select: "id, app, expires_at", shape: Shape::Same(&REVOKED_TOKEN) },
    From {
        table: "source",
        key: &["id"],
        select: "id, tail, org, app, is_app_own, uid, name, kind, token_hash, token, config, settings, state, metadata, \
                 created_at, updated_at",
        shape: Shape::Same(&SOURCE),
    },
    From {
        table: "receipt",
        key: &["id"],
        select: "id, tail, source, status, reason, detail, duplicate_of, payload, headers, at",
        shape: Shape::Same(&RECEIPT),
    },
    From {
        table: "task",
        key: &["id"],
        select: "id, tail, org, kind, status, app, endpoint, since, until, position, messages_sent, created_at, updated_at",
        shape: Shape::Same(&TASK),
    },
    From {
        table: "idempotency",
        key: &["key"],
        select: "key, request, NULL, NULL, org, status, response, expires_at",
        shape: Shape::Same(&IDEMPOTENCY),
    },
];

const SEGMENT: &[From] = &[
    From {
        table: "message",
        key: &["id"],
        select: concat!(
            "id, tail, app, event_type, event_id, encoding, checksum, content_type, channels, tags, created_at, deliver_at, \
             payload_expires_at, payload_dies_at, ",
            payload_sql!(),
            ", ",
            origin_sql!()
        ),
        shape: Shape::Message,
    },
    From { table: "queue", key: &["message"], select: "message, tail, app, endpoints", shape: Shape::Queue },
    From {
        table: "retry",
        key: &["message", "endpoint"],
        select: "message, endpoint, tail, app, state, tries, due_at, trigger, resume_at, reason, counted_minute, is_delivered",
        shape: Shape::Retry,
    },
    From {
        table: "attempt",
        key: &["id"],
        select: "message, id, tail, endpoint, status, trigger, response_status, duration_ms, timestamp, \
                 (SELECT u.url FROM url u WHERE u.id = attempt.url), response",
        shape: Shape::Same(&ATTEMPT),
    },
    From {
        table: "counter",
        key: &["endpoint", "minute"],
        select: "endpoint, minute, success, fail, canceled",
        shape: Shape::Same(&COUNTER),
    },
    From {
        table: "idempotency",
        key: &["key"],
        select: "key, request, message, (SELECT m.tail FROM message m WHERE m.id = idempotency.message), org, status, response, \
                 expires_at",
        shape: Shape::Key,
    },
];

/// One table of one file.
pub struct Part {
    /// Names it in stored positions.
    pub name: String,
    pub table: &'static str,
    path: PathBuf,
    source: &'static From,
}

/// The whole store, to be read.
pub struct Export {
    parts: Arc<Vec<Part>>,
    /// Shard of every endpoint there ever was.
    shards: Arc<HashMap<i64, u8>>,
    /// Files of messages, oldest first.
    segments: Arc<Vec<PathBuf>>,
    identity: Vec<u8>,
    total: u64,
    page_rows: usize,
    /// Keeps its lock.
    _store: Arc<SqliteStore>,
}

impl Export {
    /// Looks what there is. The store stays open, so nobody else can write to it; its owner must not either.
    pub async fn open(store: &Arc<SqliteStore>, page_rows: usize) -> Result<Self> {
        // What is exported of keys is the table.
        while !store.write(settle_keys).await? {}
        let control = store.dir.join("control.db");
        let mut parts: Vec<Part> = CONTROL
            .iter()
            .map(|source| Part { name: format!("control/{}", source.table), table: source.table, path: control.clone(), source })
            .collect();
        let catalogue = store.catalogue.get();
        let segments = Arc::new(catalogue.iter().map(|segment| segment.path.clone()).collect());
        for segment in catalogue.iter() {
            parts.extend(SEGMENT.iter().map(|source| Part {
                name: format!("{}/{}", segment.start, source.table),
                table: source.table,
                path: segment.path.clone(),
                source,
            }));
        }
        let parts = Arc::new(parts);
        let looked_at = parts.clone();
        let (shards, identity, total) = blocking(move || {
            let conn = open_reader(&control, limits::OLD_SEGMENT_CACHE_BYTES, &Deadline::new())?;
            let mut shards = HashMap::new();
            let mut statement = conn.prepare("SELECT id, tail FROM endpoint")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let tail: [u8; 12] = row.get(1)?;
                shards.insert(row.get::<_, i64>(0)?, tail[11]);
            }
            let identity: Vec<u8> = conn.query_row("SELECT value FROM meta WHERE name = 'key_check'", [], |row| row.get(0))?;
            let mut total = 0u64;
            for part in looked_at.iter() {
                let conn = open_reader(&part.path, limits::OLD_SEGMENT_CACHE_BYTES, &Deadline::new())?;
                let count: i64 = conn.query_row(&format!("SELECT count(*) FROM {}", part.table), [], |row| row.get(0))?;
                total += u64::try_from(count).unwrap_or(0);
            }
            Ok((shards, identity, total))
        })
        .await?;
        Ok(Self {
            parts,
            shards: Arc::new(shards),
            segments,
            identity,
            total,
            page_rows: page_rows.max(1),
            _store: store.clone(),
        })
    }

    /// Tells this store from every other.
    pub fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// Rows of all tables.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The page after this position.
    pub async fn page(&self, part: &Part, after: Option<Vec<u8>>) -> Result<Page> {
        let (path, source, shards) = (part.path.clone(), part.source, self.shards.clone());
        let (segments, page_rows) = (self.segments.clone(), self.page_rows);
        blocking(move || {
            let open = |path: &Path| open_reader(path, limits::OLD_SEGMENT_CACHE_BYTES, &Deadline::new());
            let conn = open(&path)?;
            let mut others = Others::default();
            if matches!(source.shape, Shape::Key) {
                for (at, other) in segments.iter().enumerate() {
                    if *other == path {
                        others.own = at;
                    } else {
                        others.files.push((at, open(other)?));
                    }
                }
            }
            let after = after.map(|bytes| position(&bytes)).transpose()?;
            read(&conn, source, &Around { shards: &shards, others: &others }, after, page_rows)
        })
        .await
    }
}

/// What a row's form in the target depends on beside the row.
struct Around<'a> {
    shards: &'a HashMap<i64, u8>,
    others: &'a Others,
}

/// The segments beside the one being read, by their order.
#[derive(Default)]
struct Others {
    own: usize,
    files: Vec<(usize, Connection)>,
}

impl Others {
    /// Whether the key was used again later, in another segment.
    fn has_newer(&self, key: &[u8], expires_at: i64) -> Outcome<bool> {
        for (at, conn) in &self.files {
            let sql = "SELECT expires_at FROM idempotency WHERE key = ?1";
            let other: Option<i64> = conn.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?;
            if other.is_some_and(|other| (other, *at) > (expires_at, self.own)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Takes over some of the keys that are still in memory. True: there are none.
fn settle_keys(files: &Files) -> Outcome<bool> {
    let unsettled = files.segments.iter().find(|segment| !segment.keys.borrow().is_settled());
    if let Some(segment) = unsettled {
        segment.keys.borrow_mut().settle_some(segment.file.tx()?, limits::GROUP_ITEMS_MAX)?;
    }
    Ok(unsettled.is_none())
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Outcome<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(StoreError::Io(error.to_string())),
    }
}

fn read(conn: &Connection, source: &From, around: &Around<'_>, after: Option<Vec<Cell>>, page_rows: usize) -> Outcome<Page> {
    let key = source.key.join(", ");
    let places: Vec<String> = (1..=source.key.len()).map(|number| format!("?{number}")).collect();
    let beyond = if after.is_some() { format!("WHERE ({key}) > ({})", places.join(", ")) } else { String::new() };
    let sql = format!("SELECT {key}, {} FROM {} {beyond} ORDER BY {key} LIMIT {page_rows}", source.select, source.table);
    let mut statement = conn.prepare(&sql)?;
    let width = statement.column_count();
    let mut rows = statement.query(params_from_iter(after.unwrap_or_default()))?;
    let mut page = Page { is_end: true, ..Page::default() };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(width - source.key.len());
        for column in source.key.len()..width {
            values.push(match row.get_ref(column)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Int(number),
                ValueRef::Text(text) => Value::Text(storable(source.table, text)?),
                ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
                ValueRef::Real(_) => {
                    return Err(StoreError::Corrupt(format!("{}: a number with a fraction", source.table)).into());
                }
            });
        }
        bytes += values.iter().map(Value::bytes).sum::<usize>();
        page.read += 1;
        page.after = cursor(row, source.key.len())?;
        put(conn, source.shape, around, values, &mut page)?;
        if bytes >= PAGE_BYTES || page.read == page_rows as u64 {
            page.is_end = false;
            break;
        }
    }
    Ok(page)
}

/// PostgreSQL keeps no NUL in a text, and what is no UTF-8 must not be changed on the way.
fn storable(table: &str, text: &[u8]) -> Outcome<String> {
    match std::str::from_utf8(text) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        Ok(text) => Err(StoreError::Move(format!(
            "table {table} has a text with a NUL character, which PostgreSQL does not keep: {}; change or delete it with a server on \
             the source, then move again into an empty database",
            text.escape_debug()
        ))
        .into()),
        Err(_) => Err(StoreError::Corrupt(format!("{table}: a text that is not UTF-8")).into()),
    }
}

fn put(conn: &Connection, shape: Shape, around: &Around<'_>, values: Row, page: &mut Page) -> Outcome<()> {
    let shard = |endpoint: i64| Value::Int(i64::from(around.shards.get(&endpoint).copied().unwrap_or(0)));
    match shape {
        Shape::Same(table) => push(page, table, values),
        Shape::Key => {
            let (Value::Blob(key), Value::Int(expires_at)) = (&values[0], &values[7]) else {
                return Err(StoreError::Corrupt("an idempotency row without key or expiry".to_owned()).into());
            };
            if !around.others.has_newer(key, *expires_at)? {
                push(page, &IDEMPOTENCY, values);
            }
        }
        Shape::Message => {
            if let Value::Text(_) = &values[4] {
                push(page, &MESSAGE_EVENT, vec![values[2].clone(), values[4].clone(), values[0].clone()]);
            }
            push(page, &MESSAGE, values);
        }
        Shape::Queue => {
            let (Value::Int(message), Value::Blob(blob)) = (&values[0], &values[3]) else {
                return Err(StoreError::Corrupt("a queue row without endpoints".to_owned()).into());
            };
            let mut left = first_tries_left(conn, *message, blob)?;
            left.sort_unstable();
            left.dedup();
            for endpoint in left {
                let row = vec![values[0].clone(), Value::Int(endpoint), shard(endpoint), values[2].clone(), values[1].clone()];
                push(page, &QUEUE, row);
            }
        }
        Shape::Retry => {
            let [message, endpoint, tail, app, state, tries, due_at, trigger, resume_at, reason, counted, is_delivered] =
                <[Value; 12]>::try_from(values).map_err(|_| StoreError::Corrupt("a retry row of another width".to_owned()))?;
            if state == Value::Int(super::record::PENDING) {
                let Value::Int(key) = endpoint else {
                    return Err(StoreError::Corrupt("a retry row without endpoint".to_owned()).into());
                };
                push(
                    page,
                    &RETRY,
                    vec![message, endpoint, shard(key), app, tail, tries, due_at, trigger, resume_at, is_delivered],
                );
            } else {
                push(page, &OUTCOME, vec![message, endpoint, state, tries, reason, counted, is_delivered]);
            }
        }
    }
    Ok(())
}

fn push(page: &mut Page, table: &'static Table, row: Row) {
    match page.rows.iter_mut().find(|(other, _)| other.name == table.name) {
        Some((_, rows)) => rows.push(row),
        None => page.rows.push((table, vec![row])),
    }
}

/// The key of a row as bytes, to go on after it.
fn cursor(row: &rusqlite::Row<'_>, width: usize) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut put = |kind: u8, value: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
        bytes.extend_from_slice(value);
    };
    for column in 0..width {
        match row.get_ref(column)? {
            ValueRef::Integer(number) => put(1, &number.to_be_bytes()),
            ValueRef::Text(text) => put(2, text),
            ValueRef::Blob(blob) => put(3, blob),
            ValueRef::Null | ValueRef::Real(_) => return Err(StoreError::Corrupt("a key of no kind we write".to_owned()).into()),
        }
    }
    Ok(bytes)
}

fn position(bytes: &[u8]) -> Outcome<Vec<Cell>> {
    let wrong = || StoreError::Corrupt("a stored position cannot be read".to_owned());
    let mut cells = Vec::new();
    let mut rest = bytes;
    while let Some((kind, after)) = rest.split_first() {
        let (len, after) = after.split_first_chunk::<8>().ok_or_else(wrong)?;
        let len = usize::try_from(u64::from_be_bytes(*len)).map_err(|_| wrong())?;
        let (value, after) = after.split_at_checked(len).ok_or_else(wrong)?;
        cells.push(match kind {
            1 => Cell::Integer(i64::from_be_bytes(value.try_into().map_err(|_| wrong())?)),
            2 => Cell::Text(String::from_utf8(value.to_vec()).map_err(|_| wrong())?),
            3 => Cell::Blob(value.to_vec()),
            _ => return Err(wrong().into()),
        });
        rest = after;
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_as_written() {
        let conn = Connection::open_in_memory().unwrap();
        let bytes = conn.query_row("SELECT -5, 'na|me', x'00ff'", [], |row| Ok(cursor(row, 3).unwrap())).unwrap();
        let cells = position(&bytes).unwrap();
        assert_eq!(cells, [Cell::Integer(-5), Cell::Text("na|me".into()), Cell::Blob(vec![0, 0xff])]);
        assert!(position(&bytes[..bytes.len() - 1]).is_err(), "a cut position is refused, not misread");
    }

    /// What the target keeps elsewhere, or has no use for.
    const LEFT: &[&str] = &["meta", "url", "probe", "fresh_key", "pack"];

    fn columns(conn: &Connection, table: &str) -> Vec<String> {
        let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
        let rows = statement.query_map([table], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    /// The select list at its outermost commas.
    fn items(select: &str) -> Vec<String> {
        let mut depth = 0;
        let mut items = vec![String::new()];
        for c in select.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if c == ',' && depth == 0 {
                items.push(String::new());
            } else if let Some(item) = items.last_mut() {
                item.push(c);
            }
        }
        items.into_iter().map(|item| item.trim().to_owned()).collect()
    }

    /// Broken: a column or a table of a later migration stays behind, or values end up in each other's columns.
    #[test]
    fn every_table_and_column_is_read_into_its_place() {
        for (steps, sources) in [(super::super::migrate::CONTROL, CONTROL), (super::super::migrate::SEGMENT, SEGMENT)] {
            let mut conn = Connection::open_in_memory().unwrap();
            super::super::migrate::migrate(&mut conn, steps).unwrap();
            super::super::pack::teach(&conn).unwrap();
            let mut statement = conn.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
            let tables: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            let left = tables.iter().filter(|table| !sources.iter().any(|source| source.table == *table));
            assert_eq!(left.filter(|table| !LEFT.contains(&table.as_str())).collect::<Vec<_>>(), Vec::<&String>::new());
            for source in sources {
                let words: Vec<&str> = source.select.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
                for column in columns(&conn, source.table) {
                    assert!(words.contains(&column.as_str()), "{}.{column} is not read", source.table);
                }
                let target = match source.shape {
                    Shape::Same(table) => table,
                    Shape::Key => &IDEMPOTENCY,
                    Shape::Message => &MESSAGE,
                    Shape::Queue | Shape::Retry => continue,
                };
                let items = items(source.select);
                assert_eq!(items.len(), target.columns.len(), "{}", source.table);
                for (item, (name, _)) in items.iter().zip(target.columns) {
                    let is_made = item.starts_with('(') || item == "NULL";
                    assert!(is_made || item == name, "{}: {item} goes to {name}", source.table);
                }
            }
            let around = Around { shards: &HashMap::new(), others: &Others::default() };
            for source in sources {
                let page = read(&conn, source, &around, None, 10).unwrap();
                assert!(page.is_end && page.read == 0, "{}", source.table);
            }
        }
    }

    #[test]
    fn texts_that_the_target_would_change_or_refuse_are_named() {
        assert_eq!(storable("t", "é".as_bytes()).unwrap(), "é");
        let error = StoreError::from(storable("event_type", b"a\0b").unwrap_err()).to_string();
        assert!(error.contains("event_type") && error.contains("a\\0b"), "{error}");
        assert!(storable("t", b"\xff").is_err());
    }
}
