//! What goes from the node that accepted it to the node that delivers it: a row for each commit and shard, with all its deliveries.
//! Whoever owns the shard reads the rows, deletes them, and then hands the deliveries out, but for those that it handed out by the word of
//! a peer (`handed_out.rs`); what its peers told it of the messages it need not read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::id::timestamp_to_key;
use bellwire_core::{AppId, IdKind, Message, ShardSet, Trigger};
use tokio_postgres::Row;

use super::PostgresStore;
use super::connection::{Conn, READ_MAX, WRITE_MAX};
use super::fault::Outcome;
use super::handed_out::Look;
use super::param::p;
use super::row::{self, MESSAGE_COLUMNS, WITH_PAYLOAD};
use super::shard::{due_or_report, numbers, report};
use super::state::trigger;
use super::writer::TAKE_LANE;
use crate::{DueDelivery, Forgotten, HandedOver, Known, NewMessage, StoreError};

/// (message, endpoint, whether it stands in `retry`)
pub type Key = (i64, i64, bool);

/// Rows fetched at a time.
const ROWS_MAX: i64 = 512;
/// Deliveries given back in one row.
const GIVEN_BACK_MAX: i64 = 256;
/// Payloads up to this are fetched along; a larger one is read when its turn comes.
const PAYLOAD_ALONG_BYTES_MAX: i32 = 2_048;
/// A message's id is made this long before it is accepted, at most, by the clocks of all nodes.
const IDS_LATE_MAX: Duration = Duration::from_secs(30);

/// Leaves to their owners what this node's former membership, which is over, may have accepted or fetched after they had read what
/// there was.
pub async fn give_back(tx: &Conn, forgotten: &Forgotten) -> Outcome<()> {
    let from = timestamp_to_key(forgotten.since.minus(IDS_LATE_MAX));
    let sql = "INSERT INTO handover (shard, messages, endpoints, retries) \
         SELECT shard, array_agg(message), array_agg(endpoint), array_agg(FALSE) FROM (SELECT shard, message, endpoint, \
         row_number() OVER (PARTITION BY shard ORDER BY message) / $3 AS part FROM queue WHERE message >= $1 AND shard = ANY($2)) AS due \
         GROUP BY shard, part";
    let rows = tx.execute(sql, &[p(&from), p(&numbers(&forgotten.shards)), p(&GIVEN_BACK_MAX)]).await?;
    tracing::warn!(rows, "deliveries were left to the present owners of their shards, who may have them already");
    Ok(())
}

/// A row of `handover`.
pub struct Handover {
    place: String,
    id: i64,
    pub deliveries: Vec<Key>,
}

#[cfg(test)]
impl Handover {
    pub fn of(deliveries: Vec<Key>) -> Self {
        Self { place: String::new(), id: 0, deliveries }
    }
}

/// Rows to take now, and the ids of those that are left where they are, once.
struct Taken {
    rows: Vec<Handover>,
    left: HashSet<i64>,
}

impl PostgresStore {
    pub(super) async fn take_inner(&self, shards: &ShardSet, known: Known<'_>) -> Outcome<HandedOver> {
        let epoch = self.epoch()?;
        let mut conn = self.members.get().await?;
        let mut look = Look::begin(&self.seen.handed_out);
        let found = read_rows(&conn, numbers(shards)).await?;
        let more = found.len() >= usize::try_from(ROWS_MAX).unwrap_or(0);
        let there: HashSet<Key> = found.iter().flat_map(|row| row.deliveries.iter().copied()).collect();
        let there = (!more).then_some(&there);
        let rows = if known.is_told { self.without_left(found, known) } else { Taken { rows: found, left: HashSet::new() } };
        let left = !rows.left.is_empty();
        *self.seen.left.lock() = rows.left;
        let rows = rows.rows;
        let mut handed = HandedOver { more: more && !rows.is_empty(), left, ..HandedOver::default() };
        if rows.is_empty() {
            look.end(&[], there);
            return Ok(handed);
        }
        let mut unknown = Vec::new();
        for key in look.take(rows.iter().flat_map(|row| row.deliveries.iter().copied())) {
            match told(*key, known) {
                Some(delivery) => handed.first_tries.push(delivery),
                None => unknown.push(*key),
            }
        }
        handed.told = handed.first_tries.len();
        read_deliveries(&conn, &unknown, &mut handed).await?;
        match forget_rows(&mut conn, epoch, &rows).await {
            Ok(()) => look.end(&rows, there),
            // Whether they are gone or not: these have been handed out now.
            Err(fault) if fault.is_outcome_unknown() => look.end_in_doubt(),
            Err(fault) => return Err(fault),
        }
        if let Err(error) = read_along(&conn, &mut handed.first_tries[handed.told..]).await.map_err(StoreError::from) {
            tracing::debug!(%error, "messages handed over are read one by one");
        }
        handed.first_tries.sort_by_key(|(due, _)| due.message);
        Ok(handed)
    }

    /// Leaves out rows with first tries of messages that this node has not heard of yet, unless it has done so before, or has handed them out.
    fn without_left(&self, found: Vec<Handover>, known: Known<'_>) -> Taken {
        let (before, handed_out) = (self.seen.left.lock(), self.seen.handed_out.lock());
        let is_known = |key: &Key| key.2 || handed_out.is_there(key) || (known.message)(key.0).is_some();
        let (rows, left): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|row| before.contains(&row.id) || row.deliveries.iter().all(is_known));
        Taken { rows, left: left.into_iter().map(|row| row.id).collect() }
    }
}

/// The oldest rows for these shards. In the order of the index, since only a scan that follows it marks what is dead for those that come after.
async fn read_rows(conn: &Conn, shards: Vec<i16>) -> Outcome<Vec<Handover>> {
    let sql = "SELECT ctid::text, id, messages, endpoints, retries FROM handover WHERE shard = ANY($1) ORDER BY id LIMIT $2";
    let rows = conn.query_kept(READ_MAX, sql, &[p(&shards), p(&ROWS_MAX)]).await?;
    rows.iter()
        .map(|found| {
            let (messages, endpoints, retries): (Vec<i64>, Vec<i64>, Vec<bool>) =
                (row::get(found, 2)?, row::get(found, 3)?, row::get(found, 4)?);
            let deliveries = messages.into_iter().zip(endpoints).zip(retries);
            Ok(Handover {
                place: row::get(found, 0)?,
                id: row::get(found, 1)?,
                deliveries: deliveries.map(|((message, endpoint), is_retry)| (message, endpoint, is_retry)).collect(),
            })
        })
        .collect()
}

/// A first try of a message that this node was told of.
fn told(key: Key, known: Known<'_>) -> Option<(DueDelivery, Option<Arc<NewMessage>>)> {
    let (message, endpoint, false) = key else { return None };
    let new = (known.message)(message)?;
    let endpoint = *new.endpoints.iter().find(|known| known.key() == endpoint)?;
    let due = DueDelivery {
        message: new.message.id,
        endpoint,
        app: new.message.app,
        tries: 0,
        due_at: new.message.id.created(),
        trigger: Trigger::Scheduled,
        resume_at: None,
    };
    Some((due, Some(new)))
}

/// What the tables have of them. Row by row through the indexes, whatever the planner thinks of tables that are full at one moment and empty
/// at the next.
async fn read_deliveries(conn: &Conn, keys: &[Key], handed: &mut HandedOver) -> Outcome<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let sql = "SELECT h.is_retry, coalesce(q.message, r.message), coalesce(q.tail, r.tail), e.id, e.tail, a.id, a.tail, \
         r.tries, r.due_at, r.trigger, r.resume_at FROM unnest($1, $2, $3) AS h (message, endpoint, is_retry) \
         LEFT JOIN LATERAL (SELECT message, tail, app FROM queue \
         WHERE NOT h.is_retry AND message = h.message AND endpoint = h.endpoint LIMIT 1) AS q ON TRUE \
         LEFT JOIN LATERAL (SELECT message, tail, app, tries, due_at, trigger, resume_at FROM retry \
         WHERE h.is_retry AND message = h.message AND endpoint = h.endpoint LIMIT 1) AS r ON TRUE \
         LEFT JOIN LATERAL (SELECT id, tail FROM endpoint WHERE id = h.endpoint LIMIT 1) AS e ON TRUE \
         LEFT JOIN LATERAL (SELECT id, tail FROM application WHERE id = coalesce(q.app, r.app) LIMIT 1) AS a ON TRUE \
         WHERE coalesce(q.message, r.message) IS NOT NULL";
    let messages: Vec<i64> = keys.iter().map(|(message, ..)| *message).collect();
    let endpoints: Vec<i64> = keys.iter().map(|(_, endpoint, _)| *endpoint).collect();
    let retries: Vec<bool> = keys.iter().map(|(.., is_retry)| *is_retry).collect();
    // What was finished, or taken out, since it was handed over is not there. What cannot be read is passed over with the others: its row in
    // queue or retry stays.
    for found in conn.query(sql, &[p(&messages), p(&endpoints), p(&retries)]).await? {
        let Some(delivery) = due_or_report(&found, 1) else { continue };
        if !row::get::<bool>(&found, 0)? {
            handed.first_tries.push((delivery, None));
            continue;
        }
        match retry(&found, delivery) {
            Ok(delivery) => handed.retries.push(delivery),
            Err(fault) => report(&found, 1, fault),
        }
    }
    Ok(())
}

/// A row of retry, as [`read_deliveries`] reads it.
fn retry(found: &Row, of: DueDelivery) -> Outcome<DueDelivery> {
    Ok(DueDelivery {
        tries: u32::try_from(row::get::<i32>(found, 7)?).unwrap_or(0),
        due_at: row::time(found, 8)?,
        trigger: trigger(row::get(found, 9)?),
        resume_at: row::time_opt(found, 10)?,
        ..of
    })
}

/// Deletes rows, while this node is a member: by their places, which other rows may have got since, and their ids.
async fn forget_rows(conn: &mut Conn, epoch: i64, rows: &[Handover]) -> Outcome<()> {
    let places: Vec<&str> = rows.iter().map(|row| row.place.as_str()).collect();
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let sql = "WITH held AS (SELECT 1 FROM fence WHERE epoch = $1 AND lane = $2 FOR NO KEY UPDATE), \
         gone AS (DELETE FROM handover WHERE ctid = ANY($3::text[]::tid[]) AND id = ANY($4) AND EXISTS (SELECT 1 FROM held)) \
         SELECT EXISTS (SELECT 1 FROM held)";
    let params = [p(&epoch), p(&TAKE_LANE), p(&places), p(&ids)];
    let is_member = match conn.query_kept(WRITE_MAX, sql, &params).await?.first() {
        Some(found) => row::get(found, 0)?,
        None => false,
    };
    if is_member { Ok(()) } else { Err(StoreError::Fenced.into()) }
}

/// The messages of first tries, where they are small.
async fn read_along(conn: &Conn, first_tries: &mut [(DueDelivery, Option<Arc<NewMessage>>)]) -> Outcome<()> {
    let apps: HashMap<i64, AppId> = first_tries.iter().map(|(due, _)| (due.message.key(), due.app)).collect();
    if apps.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = apps.keys().copied().collect();
    let sql = format!("SELECT {MESSAGE_COLUMNS}, {WITH_PAYLOAD} FROM message WHERE id = ANY($1) AND octet_length(payload) <= $2");
    let mut messages: HashMap<i64, Arc<NewMessage>> = HashMap::with_capacity(keys.len());
    for found in conn.query(&sql, &[p(&keys), p(&PAYLOAD_ALONG_BYTES_MAX)]).await? {
        let Some(app) = apps.get(&row::get(&found, 0)?) else { continue };
        // One that is damaged is reported where it is read by itself.
        let Ok(message) = row::message(&found, 0, *app)?.unpack() else { continue };
        messages.insert(message.id.key(), Arc::new(alone(message)));
    }
    for (due, message) in first_tries {
        *message = messages.get(&due.message.key()).cloned();
    }
    Ok(())
}

/// As the engine keeps messages for delivery: by itself, without the fan-out.
fn alone(message: Message) -> NewMessage {
    NewMessage { message, endpoints: Vec::new(), idempotency: None, app_version: None }
}
