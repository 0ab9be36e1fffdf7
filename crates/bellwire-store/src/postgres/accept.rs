//! Writing accepted messages: one batch, one statement, one commit; one item's conflict never another's.
//!
//! The statement writes what can be written and says what that was. What was not is looked up afterwards: a later statement sees
//! whoever was quicker.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{IdKind, Message, MessageId, Shard, Timestamp, Trigger};
use tokio::sync::oneshot;

use super::connection::{Conn, WRITE_MAX};
use super::fault::Outcome;
use super::local::LocalGuard;
use super::param::p;
use super::partition::day_of_key;
use super::row::{self, JSON, StoredPayload};
use crate::{Accepted, NewMessage, Result, StoreError};

/// A message to accept, with its payload ready to be written, and who waits for it.
pub struct Accept {
    pub new: Arc<NewMessage>,
    pub payload: StoredPayload,
    pub reply: oneshot::Sender<Result<Accepted>>,
}

/// What became of a batch.
pub struct Written {
    /// Keys of the messages that are durable now.
    pub fresh: HashSet<i64>,
    /// The node's fence was there: deliveries in the guard's shards are its own. Else all were handed over.
    pub is_owner: bool,
}

/// What a batch needs of the statement. What it does not need is left out: parsing and planning cost as much as running it.
#[derive(Clone, Copy, Default)]
struct Shape {
    has_versions: bool,
    has_keys: bool,
    has_events: bool,
    has_deliveries: bool,
    has_retries: bool,
    /// Something goes to this node's own queues, which needs the fence.
    has_local: bool,
}

const GIVEN: &str = "WITH given AS (SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
     $18, $19, $26, $27) AS i (id, tail, app, version, event_type, event_id, encoding, checksum, content_type, channels, tags, created_at, \
     deliver_at, payload_expires_at, payload_dies_at, payload, key, request, key_expires_at, key_made_at, origin))";
const DUE: &str = ", due AS (SELECT d.message, ($21)[d.n::integer] AS endpoint, ($22)[d.n::integer] AS shard, \
     ($23)[d.n::integer] AS is_local, f.app, f.tail, f.deliver_at \
     FROM unnest($20) WITH ORDINALITY AS d (message, n) JOIN fresh AS f ON f.id = d.message)";
const INSERT_MESSAGE: &str = ", stored AS (INSERT INTO message (id, tail, app, event_type, event_id, encoding, checksum, content_type, \
     channels, tags, created_at, deliver_at, payload_expires_at, payload_dies_at, payload, origin) SELECT id, tail, app, event_type, event_id, \
     encoding, checksum, content_type, channels, tags, created_at, deliver_at, payload_expires_at, payload_dies_at, payload, origin \
     FROM fresh RETURNING id)";

impl Shape {
    fn sql(self) -> String {
        let mut sql = GIVEN.to_owned();
        let mut from = "given";
        if self.has_versions {
            sql.push_str(
                ", current AS (SELECT g.* FROM given AS g LEFT JOIN LATERAL (SELECT version FROM application WHERE id = g.app \
                 AND deleted_at IS NULL LIMIT 1) AS a ON TRUE WHERE g.version IS NULL OR a.version = g.version)",
            );
            from = "current";
        }
        let mut conditions = Vec::new();
        if self.has_keys {
            // In the order of keys, so that no two nodes wait for each other.
            sql.push_str(&format!(
                ", keyed AS (INSERT INTO idempotency AS k (key, request, message, tail, expires_at) \
                 SELECT key, request, id, tail, key_expires_at FROM {from} WHERE key IS NOT NULL ORDER BY key \
                 ON CONFLICT (key) DO UPDATE SET request = excluded.request, message = excluded.message, tail = excluded.tail, \
                 org = NULL, status = NULL, response = NULL, expires_at = excluded.expires_at \
                 WHERE k.expires_at <= (SELECT g.key_made_at FROM given AS g WHERE g.key = excluded.key) RETURNING k.message)"
            ));
            conditions.push("(key IS NULL OR id IN (SELECT message FROM keyed))");
        }
        if self.has_events {
            let with_key = if self.has_keys { " AND (key IS NULL OR id IN (SELECT message FROM keyed))" } else { "" };
            sql.push_str(&format!(
                ", evented AS (INSERT INTO message_event (app, event_id, message) SELECT app, event_id, id FROM {from} \
                 WHERE event_id IS NOT NULL{with_key} ORDER BY app, event_id COLLATE \"C\", id \
                 ON CONFLICT (app, event_id) DO NOTHING RETURNING message)"
            ));
            conditions.push("(event_id IS NULL OR id IN (SELECT message FROM evented))");
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        sql.push_str(&format!(", fresh AS (SELECT * FROM {from}{filter})"));
        sql.push_str(INSERT_MESSAGE);
        let mut is_owner = "FALSE";
        if self.has_local {
            // Waits for whoever is declaring this node dead; then there is no such row.
            sql.push_str(", held AS (SELECT 1 FROM fence WHERE epoch = $24 AND lane = $25 FOR NO KEY UPDATE)");
            is_owner = "EXISTS (SELECT 1 FROM held)";
        }
        if self.has_deliveries {
            sql.push_str(DUE);
            let queued = if self.has_retries { " WHERE deliver_at IS NULL" } else { "" };
            sql.push_str(&format!(
                ", queued AS (INSERT INTO queue (message, endpoint, shard, app, tail) \
                 SELECT message, endpoint, shard, app, tail FROM due{queued})"
            ));
            if self.has_retries {
                sql.push_str(&format!(
                    ", waiting AS (INSERT INTO retry (message, endpoint, shard, app, tail, tries, due_at, trigger, resume_at, \
                     is_delivered) SELECT message, endpoint, shard, app, tail, 0, deliver_at, {}, NULL, FALSE FROM due \
                     WHERE deliver_at IS NOT NULL)",
                    Trigger::Scheduled as i16
                ));
            }
            let remote = if self.has_local { " WHERE NOT is_local OR NOT EXISTS (SELECT 1 FROM held)" } else { "" };
            sql.push_str(&format!(
                ", handed AS (INSERT INTO handover (shard, messages, endpoints, retries) \
                 SELECT shard, array_agg(message), array_agg(endpoint), array_agg(deliver_at IS NOT NULL) FROM due{remote} GROUP BY shard)"
            ));
        }
        sql.push_str(&format!(" SELECT ARRAY (SELECT id FROM stored), {is_owner}"));
        sql
    }
}

/// Messages times deliveries of a batch up to which its statement is kept prepared: a millisecond's worth of comparisons.
const KEPT_PAIRS_MAX: usize = 65_536;

/// A batch in columns.
#[derive(Default)]
struct Columns<'a> {
    shape: Shape,
    id: Vec<i64>,
    tail: Vec<&'a [u8]>,
    app: Vec<i64>,
    version: Vec<Option<i64>>,
    event_type: Vec<&'a str>,
    event_id: Vec<Option<&'a str>>,
    encoding: Vec<i16>,
    checksum: Vec<i64>,
    content_type: Vec<Option<&'a str>>,
    channels: Vec<Option<String>>,
    tags: Vec<Option<String>>,
    created_at: Vec<Option<i64>>,
    deliver_at: Vec<Option<i64>>,
    payload_expires_at: Vec<i64>,
    payload_dies_at: Vec<Option<i64>>,
    payload: Vec<Option<&'a [u8]>>,
    key: Vec<Option<&'a [u8]>>,
    request: Vec<Option<&'a [u8]>>,
    key_expires_at: Vec<Option<i64>>,
    key_made_at: Vec<Option<i64>>,
    origin: Vec<Option<String>>,
    due_message: Vec<i64>,
    due_endpoint: Vec<i64>,
    due_shard: Vec<i16>,
    due_is_local: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [Accept], guard: &LocalGuard, retention: Duration) -> Result<Self> {
        let mut columns = Self::default();
        let local = guard.shards();
        for accept in batch {
            columns.add(accept, retention)?;
            let key = accept.new.message.id.key();
            for endpoint in &accept.new.endpoints {
                let shard = Shard::of(*endpoint);
                let is_local = local.contains(shard);
                columns.due_message.push(key);
                columns.due_endpoint.push(endpoint.key());
                columns.due_shard.push(i16::from(shard.0));
                columns.due_is_local.push(is_local);
                columns.shape.has_local |= is_local;
                columns.shape.has_deliveries = true;
            }
        }
        Ok(columns)
    }

    fn add(&mut self, accept: &'a Accept, retention: Duration) -> Result<()> {
        let new = &*accept.new;
        let message = &new.message;
        let idempotency = new.idempotency.as_ref();
        let dies_early = message.payload.is_some() && message.payload_expires_at < message.id.created().plus(retention);
        self.shape.has_versions |= new.app_version.is_some();
        self.shape.has_keys |= idempotency.is_some();
        self.shape.has_events |= message.event_id.is_some();
        self.shape.has_retries |= message.deliver_at.is_some();
        self.id.push(message.id.key());
        self.tail.push(&message.id.as_bytes()[8..]);
        self.app.push(message.app.key());
        self.version.push(new.app_version);
        self.event_type.push(&message.event_type);
        self.event_id.push(message.event_id.as_deref());
        self.encoding.push(i16::try_from(accept.payload.encoding()).unwrap_or(0));
        self.checksum.push(accept.payload.checksum);
        self.content_type.push((message.content_type != JSON).then_some(message.content_type.as_str()));
        self.channels.push(row::list_to_text(&message.channels));
        self.tags.push(row::list_to_text(&message.tags));
        self.created_at.push((message.created_at != message.id.created()).then_some(message.created_at.as_millis()));
        self.deliver_at.push(message.deliver_at.map(Timestamp::as_millis));
        self.payload_expires_at.push(message.payload_expires_at.as_millis());
        self.payload_dies_at.push(dies_early.then_some(message.payload_expires_at.as_millis()));
        self.payload.push(accept.payload.bytes(message.payload.as_ref()));
        self.key.push(idempotency.map(|key| key.key.as_slice()));
        self.request.push(idempotency.map(|key| key.request.as_slice()));
        self.key_expires_at.push(idempotency.map(|key| key.expires_at.as_millis()));
        self.key_made_at.push(idempotency.map(|key| key.made_at().as_millis()));
        self.origin.push(message.origin.as_deref().map(row::to_json).transpose()?);
        Ok(())
    }

    async fn write(&self, conn: &Conn, epoch: i64, lane: i16) -> Outcome<Written> {
        let params = [
            p(&self.id),
            p(&self.tail),
            p(&self.app),
            p(&self.version),
            p(&self.event_type),
            p(&self.event_id),
            p(&self.encoding),
            p(&self.checksum),
            p(&self.content_type),
            p(&self.channels),
            p(&self.tags),
            p(&self.created_at),
            p(&self.deliver_at),
            p(&self.payload_expires_at),
            p(&self.payload_dies_at),
            p(&self.payload),
            p(&self.key),
            p(&self.request),
            p(&self.key_expires_at),
            p(&self.due_message),
            p(&self.due_endpoint),
            p(&self.due_shard),
            p(&self.due_is_local),
            p(&epoch),
            p(&lane),
            p(&self.key_made_at),
            p(&self.origin),
        ];
        // A plan made once may compare each delivery with each message, which is well for a few of them.
        let rows = if self.id.len() * self.due_message.len() <= KEPT_PAIRS_MAX {
            conn.query_kept(WRITE_MAX, &self.shape.sql(), &params).await?
        } else {
            conn.query_within(WRITE_MAX, &self.shape.sql(), &params).await?
        };
        let Some(found) = rows.into_iter().next() else {
            return Err(StoreError::Corrupt("a batch without an answer".to_owned()).into());
        };
        let fresh: Vec<i64> = row::get(&found, 0)?;
        Ok(Written { fresh: fresh.into_iter().collect(), is_owner: row::get(&found, 1)? })
    }
}

/// Writes a batch in which no idempotency key stands twice. Errors leave nothing behind, unless their outcome is unknown.
pub async fn write(conn: &mut Conn, batch: &[Accept], guard: &LocalGuard, lane: i16, retention: Duration) -> Outcome<Written> {
    let columns = Columns::of(batch, guard, retention)?;
    let may_lose_after_key = batch.iter().any(|accept| accept.new.idempotency.is_some() && accept.new.message.event_id.is_some());
    if !may_lose_after_key {
        return columns.write(conn, guard.epoch(), lane).await;
    }
    // An event id that is taken must not leave its message's idempotency key behind.
    let tx = conn.begin().await?;
    let result = async {
        let written = columns.write(&tx, guard.epoch(), lane).await?;
        let lost: Vec<&Accept> = batch.iter().filter(|a| !written.fresh.contains(&a.new.message.id.key())).collect();
        let keys: Vec<&[u8]> = lost.iter().filter_map(|a| a.new.idempotency.as_ref().map(|key| key.key.as_slice())).collect();
        let messages: Vec<i64> = lost.iter().map(|a| a.new.message.id.key()).collect();
        if !keys.is_empty() {
            let sql = "DELETE FROM idempotency WHERE key = ANY($1) AND message = ANY($2)";
            tx.execute(sql, &[p(&keys), p(&messages)]).await?;
        }
        Ok(written)
    }
    .await;
    tx.end(result).await
}

/// Why these were not written, in their order.
pub async fn explain(conn: &Conn, losers: &[&NewMessage]) -> Outcome<Vec<Result<Accepted>>> {
    let keys = known_keys(conn, losers).await?;
    let versions = known_versions(conn, losers).await?;
    let events = known_events(conn, losers).await?;
    let explained = losers.iter().map(|new| {
        let message = &new.message;
        if let Some(key) = &new.idempotency
            && let Some((request, expires_at, made)) = keys.get(key.key.as_slice())
            && *expires_at > key.made_at().as_millis()
        {
            return match made {
                Some(made) if *request == key.request => Ok(Accepted::Replayed(*made)),
                _ => Err(StoreError::IdempotencyMismatch),
            };
        }
        if new.app_version.is_some() && versions.get(&message.app.key()).copied() != new.app_version {
            return Ok(Accepted::Outdated);
        }
        match &message.event_id {
            Some(event_id) if events.contains(&(message.app.key(), event_id.clone())) => Err(event_id_taken(message)),
            // Whoever was quicker has taken it back since.
            _ => Err(StoreError::Busy("two writes were in each other's way")),
        }
    });
    Ok(explained.collect())
}

pub fn event_id_taken(message: &Message) -> StoreError {
    StoreError::Conflict { what: "eventId", value: message.event_id.clone().unwrap_or_default() }
}

type KnownKey = ([u8; 16], i64, Option<MessageId>);

async fn known_keys(conn: &Conn, losers: &[&NewMessage]) -> Outcome<HashMap<Vec<u8>, KnownKey>> {
    let keys: Vec<&[u8]> = losers.iter().filter_map(|new| new.idempotency.as_ref().map(|key| key.key.as_slice())).collect();
    let mut known = HashMap::new();
    if keys.is_empty() {
        return Ok(known);
    }
    let sql = "SELECT key, request, expires_at, message, tail FROM idempotency WHERE key = ANY($1)";
    for found in conn.query(sql, &[p(&keys)]).await? {
        let made = match row::get::<Option<i64>>(&found, 3)? {
            Some(_) => Some(row::id(&found, 3, 4)?),
            None => None,
        };
        known.insert(row::get(&found, 0)?, (row::fixed(&found, 1)?, row::get(&found, 2)?, made));
    }
    Ok(known)
}

async fn known_versions(conn: &Conn, losers: &[&NewMessage]) -> Outcome<HashMap<i64, i64>> {
    let apps: BTreeSet<i64> = losers.iter().filter(|new| new.app_version.is_some()).map(|new| new.message.app.key()).collect();
    let apps: Vec<i64> = apps.into_iter().collect();
    if apps.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = conn.query("SELECT id, version FROM application WHERE id = ANY($1) AND deleted_at IS NULL", &[p(&apps)]).await?;
    rows.iter().map(|found| Ok((row::get(found, 0)?, row::get(found, 1)?))).collect()
}

async fn known_events(conn: &Conn, losers: &[&NewMessage]) -> Outcome<HashSet<(i64, String)>> {
    let with_event: Vec<(i64, &str)> =
        losers.iter().filter_map(|new| Some((new.message.app.key(), new.message.event_id.as_deref()?))).collect();
    if with_event.is_empty() {
        return Ok(HashSet::new());
    }
    let (apps, events): (Vec<i64>, Vec<&str>) = with_event.into_iter().unzip();
    let sql = "SELECT e.app, e.event_id FROM message_event AS e JOIN unnest($1, $2) AS w (app, event_id) \
         ON e.app = w.app AND e.event_id = w.event_id COLLATE \"C\"";
    let rows = conn.query(sql, &[p(&apps), p(&events)]).await?;
    rows.iter().map(|found| Ok((row::get(found, 0)?, row::get(found, 1)?))).collect()
}

/// Days a batch needs partitions for.
pub fn days(batch: &[Accept]) -> BTreeSet<i32> {
    batch.iter().map(|accept| day_of_key(accept.new.message.id.key())).collect()
}
