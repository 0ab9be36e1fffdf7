//! [`AttemptStore`]: lists of attempts look for their keys first, and then read whole only what is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bellwire_core::{
    AppId, Attempt, AttemptId, AttemptStatus, EndpointId, Message, MessageId, Page, PageQuery, Timestamp, id::IdKind,
    id::timestamp_to_key,
};
use bytes::Bytes;
use tokio_postgres::Row;

use super::connection::Conn;
use super::fault::Outcome;
use super::message::{Budget, Conditions, has_content, is_in};
use super::param::p;
use super::row::{self, MESSAGE_COLUMNS, WITHOUT_PAYLOAD};
use super::{PostgresStore, attempted, endpoint, state};
use crate::keyset::{KeyRange, Keyset};
use crate::{
    AttemptFilter, AttemptStore, AttemptedEndpoint, AttemptedMessage, EndpointCounts, MessageFilter, Result, StoreError,
};

/// The columns [`read`] reads; after them comes the response, or NULL.
const COLUMNS: &str = "attempt.id, attempt.tail, attempt.message, attempt.status, attempt.trigger, attempt.response_status, \
     attempt.duration_ms, attempt.timestamp, attempt.url";
const RESPONSE: usize = 9;
/// Attempts whose messages are looked at together when the filter asks for something in the message: at first, and at most.
const LOOK_MIN: usize = 256;
const LOOK_MAX: usize = 16_384;

fn response(with_content: bool) -> &'static str {
    if with_content { "attempt.response" } else { "NULL::bytea" }
}

fn read(found: &Row, message: MessageId, endpoint: EndpointId) -> Outcome<Attempt> {
    Ok(Attempt {
        id: row::id(found, 0, 1)?,
        message,
        endpoint,
        status: AttemptStatus::from_code(i64::from(row::get::<i16>(found, 3)?)).unwrap_or(AttemptStatus::Fail),
        trigger: state::trigger(row::get(found, 4)?),
        timestamp: row::time(found, 7)?,
        duration: Duration::from_millis(row::count(found, 6)?),
        response_status: u16::try_from(row::get::<i16>(found, 5)?).unwrap_or(0),
        response: row::get::<Option<Vec<u8>>>(found, RESPONSE)?.map_or_else(Bytes::new, Bytes::from),
        url: row::get::<&str>(found, 8)?.into(),
    })
}

/// What all attempt lists filter by that stands in the attempt. Attempts take their id when they end, so never before their own
/// time.
fn conditions(filter: &AttemptFilter, keyset: &Keyset<i64>) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.and(&format!("attempt.id {} ?", keyset.beyond_sql()), keyset.from());
    if let Some(status) = filter.status {
        conditions.and("attempt.status = ?", status as i16);
    }
    if let Some(class) = filter.status_code_class {
        conditions.and("attempt.response_status / 100 = ?", i16::try_from(class / 100).unwrap_or(i16::MAX));
    }
    if let Some(before) = filter.message.before {
        conditions.and("attempt.timestamp < ?", before.as_millis());
    }
    if let Some(after) = filter.message.after {
        conditions.and("attempt.timestamp > ?", after.as_millis());
        conditions.and("attempt.id >= ?", timestamp_to_key(after));
    }
    conditions
}

/// Next attempts of an endpoint, as (id, message).
async fn look(
    conn: &Conn,
    budget: &Budget,
    endpoint: EndpointId,
    filter: &AttemptFilter,
    keyset: &Keyset<i64>,
    limit: usize,
) -> Outcome<Vec<(i64, i64)>> {
    let mut conditions = conditions(filter, keyset);
    conditions.and("attempt.endpoint = ?", endpoint.key());
    let from_there = keyset.from();
    if !keyset.is_ascending && keyset.after.is_some() {
        // An attempt is made after its message: later days have none of these.
        conditions.and("attempt.message < ?", from_there);
    }
    let limit = conditions.place(i64::try_from(limit).unwrap_or(i64::MAX));
    let sql = format!(
        "SELECT attempt.id, attempt.message FROM attempt{} ORDER BY attempt.id {} LIMIT {limit}",
        conditions.sql,
        keyset.order_sql()
    );
    let rows = budget.query(conn, &sql, &conditions.params()).await?;
    rows.iter().map(|found| Ok((row::get(found, 0)?, row::get(found, 1)?))).collect()
}

/// Of these messages, without payload, those of the application that the filter takes.
pub async fn messages_of(
    conn: &Conn,
    budget: &Budget,
    app: AppId,
    keys: Vec<i64>,
    filter: &MessageFilter,
) -> Outcome<BTreeMap<i64, Message>> {
    let mut conditions = Conditions::default();
    conditions.and("message.id = ANY(?)", keys);
    conditions.and("message.app = ?", app.key());
    conditions.and_content(filter);
    let sql = format!("SELECT {MESSAGE_COLUMNS}, {WITHOUT_PAYLOAD} FROM message{}", conditions.sql);
    let rows = budget.query(conn, &sql, &conditions.params()).await?;
    rows.iter()
        .map(|found| {
            let message = row::message(found, 0, app)?.message;
            Ok((message.id.key(), message))
        })
        .collect()
}

async fn list_of_endpoint(
    conn: &Conn,
    app: AppId,
    endpoint: EndpointId,
    filter: &AttemptFilter,
    keyset: &Keyset<i64>,
    with_content: bool,
) -> Outcome<Vec<(Attempt, Message)>> {
    let budget = Budget::new();
    let mut found: Vec<(i64, Message)> = Vec::new();
    if filter.endpoint.is_none_or(|other| other == endpoint) {
        let mut keyset = keyset.clone();
        let mut take = if has_content(&filter.message) { keyset.wanted().max(LOOK_MIN) } else { keyset.wanted() };
        loop {
            let near = look(conn, &budget, endpoint, filter, &keyset, take).await?;
            let mut keys: Vec<i64> = near.iter().map(|(_, message)| *message).collect();
            keys.sort_unstable();
            keys.dedup();
            let messages = messages_of(conn, &budget, app, keys, &filter.message).await?;
            found.extend(near.iter().filter_map(|(id, message)| Some((*id, messages.get(message)?.clone()))));
            if found.len() >= keyset.wanted() || near.len() < take {
                break;
            }
            keyset.after = near.last().map(|(id, _)| *id);
            take = take.saturating_mul(4).clamp(LOOK_MIN, LOOK_MAX);
        }
        found.truncate(keyset.wanted());
    }
    let ids: Vec<i64> = found.iter().map(|(id, _)| *id).collect();
    let keys: Vec<i64> = found.iter().map(|(_, message)| message.id.key()).collect();
    let sql = format!(
        "SELECT {COLUMNS}, {} FROM attempt WHERE message = ANY($1) AND id = ANY($2) AND endpoint = $3",
        response(with_content)
    );
    let rows = budget.query(conn, &sql, &[p(&keys), p(&ids), p(&endpoint.key())]).await?;
    let mut rows: BTreeMap<i64, Row> = rows.into_iter().map(|row| Ok((row::get(&row, 0)?, row))).collect::<Outcome<_>>()?;
    let mut attempts = Vec::with_capacity(found.len());
    for (id, message) in found {
        let Some(row) = rows.remove(&id) else { continue };
        attempts.push((read(&row, message.id, endpoint)?, message));
    }
    Ok(attempts)
}

async fn list_of_message(
    conn: &Conn,
    app: AppId,
    message: MessageId,
    filter: &AttemptFilter,
    keyset: &Keyset<i64>,
    with_content: bool,
) -> Outcome<Vec<Attempt>> {
    let budget = Budget::new();
    let found = messages_of(conn, &budget, app, vec![message.key()], &filter.message).await?;
    if found.get(&message.key()).is_none_or(|found| found.id != message) {
        return Ok(Vec::new());
    }
    let mut conditions = conditions(filter, keyset);
    conditions.and("attempt.message = ?", message.key());
    if let Some(endpoint) = filter.endpoint {
        conditions.and("attempt.endpoint = ?", endpoint.key());
    }
    let limit = conditions.place(keyset.wanted_sql());
    let sql = format!(
        "SELECT {COLUMNS}, {}, attempt.endpoint, endpoint.tail FROM attempt LEFT JOIN endpoint ON endpoint.id = attempt.endpoint{} \
         ORDER BY attempt.id {} LIMIT {limit}",
        response(with_content),
        conditions.sql,
        keyset.order_sql()
    );
    let rows = budget.query(conn, &sql, &conditions.params()).await?;
    rows.iter().map(|found| read(found, message, row::id(found, RESPONSE + 1, RESPONSE + 2)?)).collect()
}

async fn get(conn: &Conn, app: AppId, message: MessageId, attempt: AttemptId) -> Outcome<Option<Attempt>> {
    if !is_in(conn, app, message).await? {
        return Ok(None);
    }
    let sql = format!(
        "SELECT {COLUMNS}, attempt.response, attempt.endpoint, endpoint.tail FROM attempt \
         LEFT JOIN endpoint ON endpoint.id = attempt.endpoint \
         WHERE attempt.message = $1 AND attempt.id = $2 AND attempt.tail = $3"
    );
    let found = conn.query_opt(&sql, &[p(&message.key()), p(&attempt.key()), p(&row::tail(&attempt))]).await?;
    found.map(|found| read(&found, message, row::id(&found, RESPONSE + 1, RESPONSE + 2)?)).transpose()
}

fn minute_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(60_000)
}

/// The smallest key of an id made in this minute; the end of the keys for a minute beyond all times.
fn key_of_minute(minute: i64) -> i64 {
    match minute.checked_mul(60_000) {
        Some(ms) => timestamp_to_key(Timestamp(ms)),
        None if minute < 0 => i64::MIN,
        None => i64::MAX,
    }
}

async fn count(conn: &Conn, endpoint: EndpointId, since: Option<Timestamp>, until: Option<Timestamp>) -> Outcome<EndpointCounts> {
    let budget = Budget::new();
    let (since, until) = (since.map_or(i64::MIN, minute_of), until.map_or(i64::MAX, minute_of));
    let sql = "SELECT coalesce(sum(success), 0)::bigint, coalesce(sum(fail), 0)::bigint, coalesce(sum(canceled), 0)::bigint \
         FROM counter WHERE endpoint = $1 AND minute BETWEEN $2 AND $3";
    let mut counts = EndpointCounts::default();
    for found in budget.query(conn, sql, &[p(&endpoint.key()), p(&since), p(&until)]).await? {
        counts.success = row::get(&found, 0)?;
        counts.fail = row::get(&found, 1)?;
        counts.canceled = row::get(&found, 2)?;
    }
    // Of messages made in the same minutes.
    let made = KeyRange { from: key_of_minute(since), to: until.checked_add(1).map_or(i64::MAX, key_of_minute) };
    counts.pending = state::unfinished(conn, &budget, endpoint.key(), made).await?;
    Ok(counts)
}

#[async_trait]
impl AttemptStore for PostgresStore {
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
        let conn = self.db.get().await?;
        let found = list_of_endpoint(&conn, app, endpoint, &filter, &keyset, with_content).await?;
        Ok(keyset.page(found.into_iter().map(|(attempt, message)| (attempt, with_message.then_some(message))).collect()))
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
        let conn = self.db.get().await?;
        Ok(keyset.page(list_of_message(&conn, app, message, &filter, &keyset, with_content).await?))
    }

    async fn get_attempt(&self, app: AppId, message: MessageId, attempt: AttemptId) -> Result<Option<Attempt>> {
        let conn = self.db.get().await?;
        Ok(get(&conn, app, message, attempt).await?)
    }

    /// As with messages, the bytes stay in the table until it is vacuumed.
    async fn expunge_attempt_content(&self, app: AppId, message: MessageId, attempt: AttemptId) -> Result<bool> {
        let conn = self.db.get().await?;
        if !is_in(&conn, app, message).await? {
            return Ok(false);
        }
        let sql = "UPDATE attempt SET response = NULL WHERE message = $1 AND id = $2 AND tail = $3";
        Ok(conn.execute(sql, &[p(&message.key()), p(&attempt.key()), p(&row::tail(&attempt))]).await? > 0)
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
        let conn = self.db.get().await?;
        Ok(attempted::messages(&conn, app, endpoint, status, &filter, &keyset, with_content).await?)
    }

    async fn list_attempted_endpoints(
        &self,
        app: AppId,
        message: MessageId,
        page: PageQuery<EndpointId>,
    ) -> Result<Page<AttemptedEndpoint>> {
        let keyset = Keyset::of(page, |id| id.key());
        let conn = self.db.get().await?;
        if !is_in(&conn, app, message).await? {
            return Err(StoreError::NotFound("message"));
        }
        let states = state::of_message(&conn, message.key()).await?;
        let mut states: Vec<_> = states.into_iter().filter(|(key, _)| keyset.is_beyond(*key)).collect();
        if !keyset.is_ascending {
            states.reverse();
        }
        let keys: Vec<i64> = states.iter().map(|(key, _)| *key).collect();
        let living = endpoint_ids(&conn, keys).await?;
        let mut found = Vec::new();
        for (key, (status, next_attempt)) in states {
            let Some(id) = living.get(&key) else { continue };
            let Some((_, endpoint)) = endpoint::get(&conn, &self.cipher, *id).await? else { continue };
            found.push(AttemptedEndpoint { endpoint, status, next_attempt });
            if found.len() == keyset.wanted() {
                break;
            }
        }
        Ok(keyset.page(found))
    }

    async fn count_deliveries(
        &self,
        endpoint: EndpointId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<EndpointCounts> {
        let conn = self.db.get().await?;
        Ok(count(&conn, endpoint, since, until).await?)
    }
}

/// The ids of those that have not been deleted.
async fn endpoint_ids(conn: &Conn, keys: Vec<i64>) -> Outcome<BTreeMap<i64, EndpointId>> {
    let sql = "SELECT id, tail FROM endpoint WHERE id = ANY($1) AND deleted_at IS NULL";
    let rows = conn.query(sql, &[p(&keys)]).await?;
    rows.iter().map(|found| Ok((row::get(found, 0)?, row::id(found, 0, 1)?))).collect()
}
