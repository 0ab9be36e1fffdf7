//! [`MessageStore`] on the segments: by id in one file, lists over all of them in order of time.

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_core::{AppId, IdKind, Message, MessageId, Page, PageQuery, Timestamp, id::timestamp_to_key};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::SqliteStore;
use super::fault::Outcome;
use super::pack;
use super::reader::ReadFiles;
use super::row::{self, MESSAGE_COLUMNS, MESSAGE_WIDTH, WITH_PAYLOAD, WITHOUT_PAYLOAD};
use super::segment::Segment;
use crate::keyset::Keyset;
use crate::{Accepted, MessageFilter, MessageStore, NewMessage, Result};

/// Conditions with their values, numbered as they come.
#[derive(Default)]
pub struct Conditions {
    pub sql: String,
    pub values: Vec<Value>,
}

impl Conditions {
    /// Adds `condition` with `?` standing for the value.
    pub fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        let number = format!("?{}", self.values.len());
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(&condition.replace('?', &number));
    }

    /// The next value's placeholder, for a place outside the conditions.
    pub fn place(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    /// Channel, tag and event types.
    pub fn and_content(&mut self, filter: &MessageFilter) {
        for (column, wanted) in [("channels", &filter.channel), ("tags", &filter.tag)] {
            if let Some(wanted) = wanted {
                self.and(&format!("instr(message.{column}, ?) > 0"), format!("|{wanted}|"));
            }
        }
        if !filter.event_types.is_empty() {
            let places: Vec<String> = filter.event_types.iter().map(|name| self.place(name.clone())).collect();
            self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
            self.sql.push_str(&format!("message.event_type IN ({})", places.join(", ")));
        }
    }

    /// All of a message filter, the time bounds by the time inside the id.
    pub fn and_message(&mut self, filter: &MessageFilter) {
        if let Some(before) = filter.before {
            self.and("message.id < ?", timestamp_to_key(before));
        }
        if let Some(after) = filter.after {
            self.and("message.id >= ?", timestamp_to_key(Timestamp(after.as_millis().saturating_add(1))));
        }
        self.and_content(filter);
    }
}

fn find_by_id(conn: &Connection, app: AppId, id: MessageId) -> Outcome<Option<Message>> {
    let sql = format!("SELECT {MESSAGE_COLUMNS}, {WITH_PAYLOAD} FROM message WHERE id = ?1 AND tail = ?2 AND app = ?3");
    let found = conn
        .prepare_cached(&sql)?
        .query_row(params![id.key(), id.tail(), app.key()], |row| row::message(row, 0, app))
        .optional()?;
    found.map(row::MessageRow::unpack).transpose()
}

fn find_by_event_id(conn: &Connection, app: AppId, event_id: &str) -> Outcome<Option<Message>> {
    let sql = format!("SELECT {MESSAGE_COLUMNS}, {WITH_PAYLOAD} FROM message WHERE app = ?1 AND event_id = ?2");
    let found = conn.prepare_cached(&sql)?.query_row(params![app.key(), event_id], |row| row::message(row, 0, app)).optional()?;
    found.map(row::MessageRow::unpack).transpose()
}

/// The segments a scan in this direction meets, from its cursor on.
pub fn segments_from(files: &ReadFiles, keyset: &Keyset<i64>) -> Vec<Arc<Segment>> {
    let segments = files.segments();
    let mut met = Vec::with_capacity(segments.len());
    for (at, segment) in segments.iter().enumerate() {
        let start = if at == 0 { i64::MIN } else { segment.start };
        let end = segments.get(at + 1).map_or(i64::MAX, |next| next.start);
        let is_met = if keyset.is_ascending { end > keyset.from() } else { start < keyset.from() };
        if is_met {
            met.push(segment.clone());
        }
    }
    if !keyset.is_ascending {
        met.reverse();
    }
    met
}

/// Whether a message is in this application.
pub fn is_in(conn: &Connection, app: AppId, id: MessageId) -> Outcome<bool> {
    let sql = "SELECT 1 FROM message WHERE id = ?1 AND tail = ?2 AND app = ?3";
    Ok(conn.prepare_cached(sql)?.exists(params![id.key(), id.tail(), app.key()])?)
}

/// Overwrites what `act` deletes, so that no copy stays in free pages.
pub fn shredding<T>(conn: &Connection, act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let set = |on: u8| conn.query_row(&format!("PRAGMA secure_delete = {on}"), [], |_| Ok(()));
    set(1)?;
    let result = act();
    set(0)?;
    result
}

#[async_trait]
impl MessageStore for SqliteStore {
    async fn accept(&self, message: Arc<NewMessage>) -> Result<Accepted> {
        self.inbox.accept(message).await
    }

    async fn find_message(&self, app: AppId, id_or_event_id: &str) -> Result<Option<Message>> {
        let text = id_or_event_id.to_owned();
        self.read(move |files| {
            if let Ok(id) = text.parse::<MessageId>()
                && let Some(conn) = files.of_key(id.key())?
                && let Some(message) = find_by_id(&conn, app, id)?
            {
                return Ok(Some(message));
            }
            for segment in files.segments().iter().rev() {
                if let Some(conn) = files.open(segment)?
                    && let Some(message) = find_by_event_id(&conn, app, &text)?
                {
                    return Ok(Some(message));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn load_message(&self, id: MessageId) -> Result<Option<Message>> {
        self.read(move |files| {
            let Some(conn) = files.of_key(id.key())? else { return Ok(None) };
            let sql = format!("SELECT {MESSAGE_COLUMNS}, {WITH_PAYLOAD}, app FROM message WHERE id = ?1 AND tail = ?2");
            let nobody = AppId::from_bytes([0; 20]);
            let found = conn
                .prepare_cached(&sql)?
                .query_row(params![id.key(), id.tail()], |row| {
                    Ok((row::message(row, 0, nobody)?, row.get::<_, i64>(MESSAGE_WIDTH)?))
                })
                .optional()?;
            let Some((mut found, app)) = found else { return Ok(None) };
            found.message.app = files.app_id(app)?;
            found.unpack().map(Some)
        })
        .await
    }

    async fn list_messages(
        &self,
        app: AppId,
        filter: MessageFilter,
        page: PageQuery<MessageId>,
        with_content: bool,
    ) -> Result<Page<Message>> {
        let keyset = Keyset::of(page, |id| id.key());
        self.scan(move |files| {
            let mut conditions = Conditions::default();
            conditions.and("message.app = ?", app.key());
            conditions.and(&format!("message.id {} ?", keyset.beyond_sql()), keyset.from());
            conditions.and_message(&filter);
            let limit = conditions.place(keyset.wanted_sql());
            let sql = format!(
                "SELECT {MESSAGE_COLUMNS}, {} FROM message{} ORDER BY message.id {} LIMIT {limit}",
                if with_content { WITH_PAYLOAD } else { WITHOUT_PAYLOAD },
                conditions.sql,
                keyset.order_sql(),
            );
            let mut messages = Vec::new();
            for segment in segments_from(files, &keyset) {
                let Some(conn) = files.open(&segment)? else { continue };
                let mut statement = conn.prepare_cached(&sql)?;
                let rows = statement.query_map(params_from_iter(&conditions.values), |row| row::message(row, 0, app))?;
                for found in rows {
                    messages.push(found?.unpack()?);
                    if messages.len() == keyset.wanted() {
                        return Ok(keyset.page(messages));
                    }
                }
            }
            Ok(keyset.page(messages))
        })
        .await
    }

    async fn expunge_message_content(&self, app: AppId, id: MessageId) -> Result<bool> {
        self.write_freeing(move |files| {
            let conn = files.segment_of(&id).file.tx()?;
            shredding(conn, || {
                let sql = format!("SELECT {} FROM message WHERE id = ?1 AND tail = ?2 AND app = ?3", pack::Range::COLUMNS);
                let key = params![id.key(), id.tail(), app.key()];
                let found = conn.prepare_cached(&sql)?.query_row(key, |row| pack::Range::read(row, 0)).optional()?;
                let Some(range) = found else { return Ok(false) };
                pack::shred(conn, range.into_iter().collect())?;
                let sql = "UPDATE message SET payload = NULL, payload_bytes = NULL, payload_dies_at = NULL WHERE id = ?1";
                conn.prepare_cached(sql)?.execute([id.key()])?;
                Ok(true)
            })
        })
        .await
    }
}
