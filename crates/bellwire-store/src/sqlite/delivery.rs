//! [`DeliveryStore`] on the segments: unfinished deliveries for the scheduler, and repeating finished ones.

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_core::{AppId, EndpointId, IdKind, MessageId, ShardSet, Timestamp, Trigger};
use rusqlite::{Connection, params};

use super::fault::Outcome;
use super::files::Files;
use super::reader::ReadFiles;
use super::record::{self, Counts, PENDING};
use super::state::{RetryRow, endpoint_alone, is_queued, retry_row, trigger};
use super::{SqliteStore, idempotency, message, row};
use crate::keyset::Keyset;
use crate::sealed::seal_answer;
use crate::{AttemptRecord, CommitSink, DeliveryStore, DueCursor, DueDelivery, IdempotencyRecord, Result, StoreError, Written};

/// Queue rows looked at in one call for one endpoint: most may be of others.
const ROWS_SCANNED_MAX: usize = 16_384;

/// Makes a delivery pending and due, whatever it was. Takes what it was out of the counters.
pub fn reopen(conn: &Connection, due: &DueDelivery) -> Outcome<()> {
    let (message, endpoint) = (due.message.key(), due.endpoint.key());
    let mut counts = Counts::default();
    record::uncount(conn, message, endpoint, &mut counts)?;
    counts.write(conn)?;
    let is_delivered = record::is_delivered(conn, message, endpoint)?;
    conn.prepare_cached(
        "INSERT OR REPLACE INTO retry (message, endpoint, tail, app, state, tries, due_at, trigger, resume_at, is_delivered) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        message,
        endpoint,
        due.message.tail(),
        due.app.key(),
        PENDING,
        due.tries,
        due.due_at.as_millis(),
        due.trigger as u8,
        due.resume_at.map(Timestamp::as_millis),
        is_delivered,
    ])?;
    Ok(())
}

fn requeue(files: &Files, app: AppId, message: MessageId, endpoint: EndpointId, now: Timestamp) -> Outcome<DueDelivery> {
    let conn = files.segment_of(&message).file.tx()?;
    if !message::is_in(conn, app, message)? {
        return Err(StoreError::NotFound("message").into());
    }
    let is_there = files
        .control
        .conn
        .prepare_cached("SELECT 1 FROM endpoint WHERE id = ?1 AND tail = ?2 AND app = ?3 AND deleted_at IS NULL")?
        .exists(params![endpoint.key(), endpoint.tail(), app.key()])?;
    if !is_there {
        return Err(StoreError::NotFound("endpoint").into());
    }
    let prior = retry_row(conn, message.key(), endpoint.key())?;
    // Where the schedule goes on if this try fails: a waiting retry at its time, an outstanding first try at once.
    let resume_at = match prior {
        Some(row) if row.state != PENDING => None,
        Some(RetryRow { trigger: Trigger::Manual, resume_at, .. }) => resume_at,
        Some(row) => Some(row.due_at),
        None => is_queued(conn, message.key(), endpoint.key())?.then_some(now),
    };
    let tries = prior.map_or(0, |row| row.tries);
    let due = DueDelivery { message, endpoint, app, tries, due_at: now, trigger: Trigger::Manual, resume_at };
    reopen(conn, &due)?;
    Ok(due)
}

/// A row of the queue or of `retry` with keys only.
struct Found {
    message: MessageId,
    endpoint: i64,
    app: i64,
    tries: u32,
    due_at: Timestamp,
    trigger: Trigger,
    resume_at: Option<Timestamp>,
}

impl Found {
    fn named(self, files: &ReadFiles) -> Outcome<DueDelivery> {
        Ok(DueDelivery {
            message: self.message,
            endpoint: files.endpoint_id(self.endpoint)?,
            app: files.app_id(self.app)?,
            tries: self.tries,
            due_at: self.due_at,
            trigger: self.trigger,
            resume_at: self.resume_at,
        })
    }
}

fn load_first_tries(
    files: &ReadFiles,
    endpoint: Option<EndpointId>,
    after: Option<MessageId>,
    limit: usize,
) -> Outcome<(Vec<DueDelivery>, Option<MessageId>)> {
    let mut due = Vec::new();
    let mut scanned = 0;
    let keyset = Keyset::ascending(after.map(|id| id.key()));
    for segment in message::segments_from(files, &keyset) {
        let Some(conn) = files.open(&segment)? else { continue };
        let mut statement =
            conn.prepare_cached("SELECT message, tail, app, endpoints FROM queue WHERE message > ?1 ORDER BY message")?;
        let mut rows = statement.query([keyset.from()])?;
        while let Some(row) = rows.next()? {
            let message: MessageId = row::id(row, 0, 1)?;
            let app: i64 = row.get(2)?;
            let blob: Vec<u8> = row.get(3)?;
            scanned += 1;
            let wanted = match endpoint {
                None => blob,
                Some(endpoint) if row::blob_to_keys(&blob).any(|key| key == endpoint.key()) => {
                    endpoint_alone(&blob, endpoint.key())
                }
                Some(_) => Vec::new(),
            };
            let mut left = record::first_tries_left(&conn, message.key(), &wanted)?;
            left.dedup();
            for endpoint in left {
                let found = Found {
                    message,
                    endpoint,
                    app,
                    tries: 0,
                    due_at: message.created(),
                    trigger: Trigger::Scheduled,
                    resume_at: None,
                };
                due.push(found.named(files)?);
            }
            if due.len() >= limit || scanned >= ROWS_SCANNED_MAX {
                return Ok((due, Some(message)));
            }
        }
    }
    Ok((due, None))
}

fn load_retries(
    files: &ReadFiles,
    shards: ShardSet,
    after: Option<DueCursor>,
    until: Timestamp,
    limit: usize,
) -> Outcome<Vec<DueDelivery>> {
    let (due_at, message, endpoint) =
        after.map_or((i64::MIN, i64::MIN, i64::MIN), |c| (c.due_at.as_millis(), c.message.key(), c.endpoint.key()));
    let limit_sql = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut found: Vec<Found> = Vec::new();
    for segment in files.segments().iter() {
        let Some(conn) = files.open(segment)? else { continue };
        let mut statement = conn.prepare_cached(
            "SELECT message, tail, endpoint, app, tries, due_at, trigger, resume_at FROM retry \
             WHERE state = 0 AND due_at <= ?4 AND (due_at, message, endpoint) > (?1, ?2, ?3) \
             ORDER BY due_at, message, endpoint LIMIT ?5",
        )?;
        let rows = statement.query_map([due_at, message, endpoint, until.as_millis(), limit_sql], |row| {
            Ok(Found {
                message: row::id(row, 0, 1)?,
                endpoint: row.get(2)?,
                app: row.get(3)?,
                tries: row.get(4)?,
                due_at: row::time(row, 5)?,
                trigger: trigger(row.get(6)?),
                resume_at: row::time_opt(row, 7)?,
            })
        })?;
        for row in rows {
            found.push(row?);
        }
    }
    found.sort_by_key(|row| (row.due_at, row.message.key(), row.endpoint));
    found.truncate(limit);
    let mut due = found.into_iter().map(|row| row.named(files)).collect::<Outcome<Vec<_>>>()?;
    // All are, but for who asks by shard.
    due.retain(|delivery| shards.has(delivery.endpoint));
    Ok(due)
}

#[async_trait]
impl DeliveryStore for SqliteStore {
    fn set_sink(&self, sink: Arc<dyn CommitSink>) {
        if self.sink.set(sink).is_err() {
            tracing::warn!("the store's commit sink was set twice; the first one stays");
        }
    }

    fn record_attempt(&self, record: AttemptRecord) {
        self.inbox.record(record);
    }

    async fn load_first_tries(
        &self,
        endpoint: Option<EndpointId>,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<(Vec<DueDelivery>, Option<MessageId>)> {
        self.read(move |files| load_first_tries(files, endpoint, after, limit)).await
    }

    async fn load_retries(
        &self,
        shards: ShardSet,
        after: Option<DueCursor>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueDelivery>> {
        self.read(move |files| load_retries(files, shards, after, until, limit)).await
    }

    async fn requeue(
        &self,
        app: AppId,
        message: MessageId,
        endpoint: EndpointId,
        now: Timestamp,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<DueDelivery>> {
        let cipher = self.cipher.clone();
        let written = self
            .write(move |files| {
                // The key is of this message (its path is part of it), so it stands in the message's file.
                let conn = files.segment_of(&message).file.tx()?;
                if let Some(record) = &idem
                    && let Some((status, response)) =
                        idempotency::find(conn, &cipher, &record.idempotency, record.idempotency.made_at())?
                {
                    return Ok(Written::Replayed { status, response });
                }
                let due = requeue(files, app, message, endpoint, now)?;
                if let Some(record) = &idem {
                    conn.prepare_cached(
                        "INSERT OR REPLACE INTO idempotency (key, request, message, expires_at, org, status, response) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute(params![
                        record.idempotency.key,
                        record.idempotency.request,
                        message.key(),
                        record.idempotency.expires_at.as_millis(),
                        record.org.as_bytes(),
                        record.status,
                        seal_answer(&cipher, record)?,
                    ])?;
                }
                Ok(Written::Fresh(due))
            })
            .await?;
        if let (Written::Fresh(due), Some(sink)) = (&written, self.sink.get()) {
            sink.requeued(std::slice::from_ref(due));
        }
        Ok(written)
    }

    async fn count_unfinished(&self) -> Result<(u64, u64)> {
        self.read(|files| {
            let (mut first_tries, mut retries) = (0u64, 0u64);
            for segment in files.segments().iter() {
                let Some(conn) = files.open(segment)? else { continue };
                let count = |sql: &str| -> Outcome<u64> {
                    let count: Option<i64> = conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
                    Ok(u64::try_from(count.unwrap_or(0)).unwrap_or(0))
                };
                // Of a fan-out in progress all endpoints are counted.
                first_tries += count("SELECT sum(length(endpoints)) / 8 FROM queue")?;
                retries += count("SELECT count(*) FROM retry WHERE state = 0")?;
            }
            Ok((first_tries, retries))
        })
        .await
    }
}
