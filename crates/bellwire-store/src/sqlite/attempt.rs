//! [`AttemptStore`] on the segments.

use std::time::Duration;

use async_trait::async_trait;
use bellwire_core::{
    AppId, Attempt, AttemptId, AttemptStatus, EndpointId, IdKind, Message, MessageId, Page, PageQuery, Timestamp, Trigger,
    id::timestamp_to_key,
};
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};

use super::message::{Conditions, is_in, shredding};
use super::record::minute_of;
use super::row::{self, MESSAGE_COLUMNS, WITHOUT_PAYLOAD};
use super::state::{endpoints_of, unfinished};
use super::{SqliteStore, attempted, endpoint};
use crate::keyset::{KeyRange, Keyset, Nearest};
use crate::{
    AttemptFilter, AttemptStore, AttemptedEndpoint, AttemptedMessage, EndpointCounts, MessageFilter, Result, StoreError,
};

/// The columns [`read`] reads; the last one is the response or NULL.
const COLUMNS: &str = "attempt.id, attempt.tail, attempt.message, message.tail, attempt.endpoint, attempt.status, attempt.trigger, \
     attempt.response_status, attempt.duration_ms, attempt.timestamp, url.url";
const WIDTH: usize = 12;

/// An attempt with its endpoint's key only.
fn read(row: &Row<'_>) -> rusqlite::Result<(Attempt, i64)> {
    let nobody = EndpointId::from_bytes([0; 20]);
    let attempt = Attempt {
        id: row::id(row, 0, 1)?,
        message: row::id(row, 2, 3)?,
        endpoint: nobody,
        status: AttemptStatus::from_code(row.get(5)?).unwrap_or(AttemptStatus::Fail),
        trigger: if row.get::<_, i64>(6)? == 0 { Trigger::Scheduled } else { Trigger::Manual },
        timestamp: row::time(row, 9)?,
        duration: Duration::from_millis(u64::try_from(row.get::<_, i64>(8)?).unwrap_or(0)),
        response_status: row.get(7)?,
        response: row.get::<_, Option<Vec<u8>>>(11)?.map_or_else(Bytes::new, Bytes::from),
        url: row.get_ref(10)?.as_str()?.into(),
    };
    Ok((attempt, row.get(4)?))
}

fn sql(conditions: &mut Conditions, keyset: &Keyset<i64>, with_content: bool, with_message: bool) -> String {
    let limit = conditions.place(keyset.wanted_sql());
    let message = if with_message { format!(", {MESSAGE_COLUMNS}, {WITHOUT_PAYLOAD}") } else { String::new() };
    format!(
        "SELECT {COLUMNS}, {}{message} FROM attempt CROSS JOIN message ON message.id = attempt.message \
         CROSS JOIN url ON url.id = attempt.url{} ORDER BY attempt.id {} LIMIT {limit}",
        if with_content { "attempt.response" } else { "NULL" },
        conditions.sql,
        keyset.order_sql(),
    )
}

/// What all attempt lists filter by. Attempts take their id when they end, so never before their own time.
fn conditions(app: AppId, filter: &AttemptFilter, keyset: &Keyset<i64>) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.and("message.app = ?", app.key());
    conditions.and(&format!("attempt.id {} ?", keyset.beyond_sql()), keyset.from());
    if let Some(status) = filter.status {
        conditions.and("attempt.status = ?", i64::from(status as u8));
    }
    if let Some(class) = filter.status_code_class {
        conditions.and("attempt.response_status / 100 = ?", i64::from(class / 100));
    }
    if let Some(endpoint) = filter.endpoint {
        // The plus keeps this filter from choosing the index: the list's own message or endpoint does.
        conditions.and("+attempt.endpoint = ?", endpoint.key());
    }
    if let Some(before) = filter.message.before {
        conditions.and("attempt.timestamp < ?", before.as_millis());
    }
    if let Some(after) = filter.message.after {
        conditions.and("attempt.timestamp > ?", after.as_millis());
        conditions.and("attempt.id >= ?", timestamp_to_key(after));
    }
    conditions.and_content(&filter.message);
    conditions
}

/// The smallest key of an id made in this minute; the end of the keys for a minute beyond all times.
fn key_of_minute(minute: i64) -> i64 {
    match minute.checked_mul(60_000) {
        Some(ms) => timestamp_to_key(Timestamp(ms)),
        None if minute < 0 => i64::MIN,
        None => i64::MAX,
    }
}

#[async_trait]
impl AttemptStore for SqliteStore {
    async fn list_attempts_of_endpoint(
        &self,
        app: AppId,
        endpoint: EndpointId,
        filter: AttemptFilter,
        page: PageQuery<AttemptId>,
        with_content: bool,
        with_message: bool,
    ) -> Result<Page<(Attempt, Option<Message>)>> {
        let keyset = Keyset::of(page, |id| id.key());
        self.scan(move |files| {
            let mut conditions = conditions(app, &filter, &keyset);
            conditions.and("attempt.endpoint = ?", endpoint.key());
            let sql = sql(&mut conditions, &keyset, with_content, with_message);
            let mut found: Nearest<(Attempt, Option<Message>)> = Nearest::of(&keyset);
            // Old messages may have new attempts: every segment may have rows for any page.
            for segment in files.segments().iter() {
                let Some(conn) = files.open(segment)? else { continue };
                let mut statement = conn.prepare_cached(&sql)?;
                let mut rows = statement.query(params_from_iter(&conditions.values))?;
                while let Some(row) = rows.next()? {
                    // Those that follow are farther still.
                    if !found.has_room_for(row.get(0)?) {
                        break;
                    }
                    let (mut attempt, _) = read(row)?;
                    attempt.endpoint = endpoint;
                    let message = with_message.then(|| row::message(row, WIDTH, app)).transpose()?;
                    found.put(attempt.id.key(), (attempt, message.map(|row| row.message)));
                }
            }
            Ok(keyset.page(found.into_rows()))
        })
        .await
    }

    async fn list_attempts_of_message(
        &self,
        app: AppId,
        message: MessageId,
        filter: AttemptFilter,
        page: PageQuery<AttemptId>,
        with_content: bool,
    ) -> Result<Page<Attempt>> {
        let keyset = Keyset::of(page, |id| id.key());
        self.scan(move |files| {
            let Some(conn) = files.of_key(message.key())? else { return Ok(keyset.page(Vec::new())) };
            let mut conditions = conditions(app, &filter, &keyset);
            conditions.and("attempt.message = ?", message.key());
            conditions.and("message.tail = ?", message.tail().to_vec());
            let sql = sql(&mut conditions, &keyset, with_content, false);
            let rows: Vec<(Attempt, i64)> = conn
                .prepare_cached(&sql)?
                .query_map(params_from_iter(&conditions.values), read)?
                .collect::<rusqlite::Result<_>>()?;
            let mut attempts = Vec::with_capacity(rows.len());
            for (attempt, endpoint) in rows {
                attempts.push(Attempt { endpoint: files.endpoint_id(endpoint)?, ..attempt });
            }
            Ok(keyset.page(attempts))
        })
        .await
    }

    async fn get_attempt(&self, app: AppId, message: MessageId, attempt: AttemptId) -> Result<Option<Attempt>> {
        self.scan(move |files| {
            let Some(conn) = files.of_key(message.key())? else { return Ok(None) };
            let sql = format!(
                "SELECT {COLUMNS}, attempt.response FROM attempt CROSS JOIN message ON message.id = attempt.message \
                 CROSS JOIN url ON url.id = attempt.url WHERE attempt.id = ?1 AND attempt.tail = ?2 \
                 AND attempt.message = ?3 AND message.tail = ?4 AND message.app = ?5"
            );
            let found = conn
                .prepare_cached(&sql)?
                .query_row(params![attempt.key(), attempt.tail(), message.key(), message.tail(), app.key()], read)
                .optional()?;
            let Some((attempt, endpoint)) = found else { return Ok(None) };
            Ok(Some(Attempt { endpoint: files.endpoint_id(endpoint)?, ..attempt }))
        })
        .await
    }

    async fn expunge_attempt_content(&self, app: AppId, message: MessageId, attempt: AttemptId) -> Result<bool> {
        self.write_freeing(move |files| {
            let conn = files.segment_of(&message).file.tx()?;
            if !is_in(conn, app, message)? {
                return Ok(false);
            }
            shredding(conn, || {
                let sql = "UPDATE attempt SET response = NULL WHERE id = ?1 AND tail = ?2 AND message = ?3";
                Ok(conn.prepare_cached(sql)?.execute(params![attempt.key(), attempt.tail(), message.key()])? > 0)
            })
        })
        .await
    }

    async fn list_attempted_messages(
        &self,
        app: AppId,
        endpoint: EndpointId,
        status: Option<AttemptStatus>,
        filter: MessageFilter,
        page: PageQuery<MessageId>,
        with_content: bool,
    ) -> Result<Page<AttemptedMessage>> {
        let keyset = Keyset::of(page, |id| id.key());
        self.scan(move |files| attempted::messages(files, app, endpoint, status, &filter, &keyset, with_content)).await
    }

    async fn list_attempted_endpoints(
        &self,
        app: AppId,
        message: MessageId,
        page: PageQuery<EndpointId>,
    ) -> Result<Page<AttemptedEndpoint>> {
        let cipher = self.cipher.clone();
        let keyset = Keyset::of(page, |id| id.key());
        self.scan(move |files| {
            let Some(conn) = files.of_key(message.key())? else { return Ok(keyset.page(Vec::new())) };
            if !is_in(&conn, app, message)? {
                return Err(StoreError::NotFound("message").into());
            }
            let mut states: Vec<_> =
                endpoints_of(&conn, message.key())?.into_iter().filter(|(key, _)| keyset.is_beyond(*key)).collect();
            if !keyset.is_ascending {
                states.reverse();
            }
            let control = files.control()?;
            let mut found = Vec::new();
            for (key, (status, next_attempt)) in states {
                let Some((_, endpoint)) = endpoint::get(&control, &cipher, files.endpoint_id(key)?)? else { continue };
                found.push(AttemptedEndpoint { endpoint, status, next_attempt });
                if found.len() == keyset.wanted() {
                    break;
                }
            }
            Ok(keyset.page(found))
        })
        .await
    }

    async fn count_deliveries(
        &self,
        endpoint: EndpointId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<EndpointCounts> {
        self.scan(move |files| {
            let mut counts = EndpointCounts::default();
            let (since, until) = (since.map_or(i64::MIN, minute_of), until.map_or(i64::MAX, minute_of));
            // Of messages made in the same minutes.
            let made = KeyRange { from: key_of_minute(since), to: until.checked_add(1).map_or(i64::MAX, key_of_minute) };
            for segment in files.segments().iter() {
                let Some(conn) = files.open(segment)? else { continue };
                let (success, fail, canceled): (i64, i64, i64) = conn
                    .prepare_cached(
                        "SELECT coalesce(sum(success), 0), coalesce(sum(fail), 0), coalesce(sum(canceled), 0) FROM counter \
                         WHERE endpoint = ?1 AND minute BETWEEN ?2 AND ?3",
                    )?
                    .query_row([endpoint.key(), since, until], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                counts.success += success;
                counts.fail += fail;
                counts.canceled += canceled;
                counts.pending += unfinished(&conn, endpoint.key(), made)?;
            }
            Ok(counts)
        })
        .await
    }
}
