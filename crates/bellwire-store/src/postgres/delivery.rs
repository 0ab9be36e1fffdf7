//! [`DeliveryStore`]: unfinished deliveries for the scheduler, and repeating finished ones.
//!
//! What makes deliveries due again is one transaction: lock them, write their rows in retry, and see to it that exactly one node
//! hears of them: this one's sink after the commit if their shard is local, else the owner, by the table `handover`.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bellwire_core::{AppId, EndpointId, IdKind, MessageId, Shard, ShardSet, Timestamp, Trigger};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::connection::{Conn, Db};
use super::doubt::{AWAY_PAUSE, LOOKS};
use super::fault::{Fault, Outcome};
use super::param::p;
use super::state::{CANCELLED, trigger};
use super::unannounced::Unannounced;
use super::writer::{self, LocalGuard, Writer};
use super::{PostgresStore, idempotency, message, row};
use crate::{AttemptRecord, CommitSink, DeliveryStore, DueCursor, DueDelivery, IdempotencyRecord, Result, StoreError, Written};

/// How often a transaction is tried that got in another one's way.
const TRIES_MAX: usize = 4;
/// Rows counted one by one; beyond, the server's own estimate will do.
const COUNTED_MAX: i64 = 100_000;

/// The shards that are local for this transaction: none if the node's fence is gone, for then others have its work. Held until the
/// transaction ends: nobody declares the node dead in between. Lock nothing shared with the node's other requeues before but idempotency keys.
pub async fn hold_fence(tx: &Conn, guard: &LocalGuard) -> Outcome<ShardSet> {
    if guard.shards().is_empty() {
        return Ok(ShardSet::EMPTY);
    }
    let sql = "SELECT 1 FROM fence WHERE epoch = $1 AND lane = $2 FOR NO KEY UPDATE";
    let held = tx.query_opt(sql, &[p(&guard.epoch()), p(&writer::REQUEUE_LANE)]).await?;
    Ok(if held.is_some() { guard.shards() } else { ShardSet::EMPTY })
}

/// Makes deliveries to one endpoint pending and due, whatever they were. Takes what they were out of the counters. Each at most once.
pub async fn reopen(tx: &Conn, endpoint: EndpointId, due: &[DueDelivery]) -> Outcome<()> {
    if due.is_empty() {
        return Ok(());
    }
    let messages: Vec<i64> = due.iter().map(|due| due.message.key()).collect();
    uncount(tx, endpoint, &messages).await?;
    let sql = "SELECT DISTINCT message FROM attempt WHERE message = ANY($1) AND endpoint = $2 AND status = 0";
    let delivered = tx.query(sql, &[p(&messages), p(&endpoint.key())]).await?;
    let delivered = delivered.iter().map(|found| row::get(found, 0)).collect::<Outcome<Vec<i64>>>()?;
    let sql = "INSERT INTO retry (message, endpoint, shard, app, tail, tries, due_at, trigger, resume_at, is_delivered) \
         SELECT message, $2, $3, app, tail, tries, due_at, trigger, resume_at, message = ANY($10) \
         FROM unnest($1, $4, $5, $6, $7, $8, $9) AS due (message, app, tail, tries, due_at, trigger, resume_at) ORDER BY message \
         ON CONFLICT (message, endpoint) DO UPDATE SET tries = excluded.tries, due_at = excluded.due_at, \
         trigger = excluded.trigger, resume_at = excluded.resume_at, is_delivered = excluded.is_delivered";
    let apps: Vec<i64> = due.iter().map(|due| due.app.key()).collect();
    let tails: Vec<Vec<u8>> = due.iter().map(|due| row::tail(&due.message)).collect();
    let tries: Vec<i32> = due.iter().map(|due| i32::try_from(due.tries).unwrap_or(i32::MAX)).collect();
    let due_at: Vec<i64> = due.iter().map(|due| due.due_at.as_millis()).collect();
    let triggers: Vec<i16> = due.iter().map(|due| due.trigger as i16).collect();
    let resume_at: Vec<Option<i64>> = due.iter().map(|due| due.resume_at.map(Timestamp::as_millis)).collect();
    let (key, shard) = (endpoint.key(), shard_sql(endpoint));
    let params = [
        p(&messages),
        p(&key),
        p(&shard),
        p(&apps),
        p(&tails),
        p(&tries),
        p(&due_at),
        p(&triggers),
        p(&resume_at),
        p(&delivered),
    ];
    tx.execute(sql, &params).await?;
    Ok(())
}

/// Takes terminal states out of the tables and the counters, because they are about to change.
async fn uncount(tx: &Conn, endpoint: EndpointId, messages: &Vec<i64>) -> Outcome<()> {
    let sql = "DELETE FROM outcome WHERE message = ANY($1) AND endpoint = $2 RETURNING counted_minute, state";
    let ended = tx.query(sql, &[p(messages), p(&endpoint.key())]).await?;
    let mut counted: Vec<(i64, i16)> = Vec::with_capacity(ended.len());
    for found in &ended {
        if let Some(minute) = row::get::<Option<i64>>(found, 0)? {
            counted.push((minute, row::get(found, 1)?));
        }
    }
    if counted.is_empty() {
        return Ok(());
    }
    counted.sort_unstable();
    let (mut minutes, mut fails, mut cancels) = (Vec::new(), Vec::new(), Vec::new());
    for same in counted.chunk_by(|a, b| a.0 == b.0) {
        let cancelled = same.iter().filter(|(_, state)| *state == CANCELLED).count();
        minutes.push(same[0].0);
        cancels.push(i64::try_from(cancelled).unwrap_or(0));
        fails.push(i64::try_from(same.len() - cancelled).unwrap_or(0));
    }
    // Not an upsert: where retention has dropped the counters, there is nothing to take out.
    let sql = "UPDATE counter SET fail = counter.fail - gone.fail, canceled = counter.canceled - gone.canceled \
         FROM unnest($2, $3, $4) AS gone (minute, fail, canceled) \
         WHERE counter.endpoint = $1 AND counter.minute = gone.minute AND counter.minute = ANY($2)";
    tx.execute(sql, &[p(&endpoint.key()), p(&minutes), p(&fails), p(&cancels)]).await?;
    Ok(())
}

/// Leaves reopened deliveries of shards that are not local to whoever owns them.
pub async fn hand_over(tx: &Conn, due: &[DueDelivery], local: &ShardSet) -> Outcome<()> {
    let others: Vec<&DueDelivery> = due.iter().filter(|due| !local.has(due.endpoint)).collect();
    if others.is_empty() {
        return Ok(());
    }
    let shards: Vec<i16> = others.iter().map(|due| shard_sql(due.endpoint)).collect();
    let messages: Vec<i64> = others.iter().map(|due| due.message.key()).collect();
    let endpoints: Vec<i64> = others.iter().map(|due| due.endpoint.key()).collect();
    let sql = "INSERT INTO handover (shard, messages, endpoints, retries) \
         SELECT shard, array_agg(message), array_agg(endpoint), array_agg(TRUE) \
         FROM unnest($1, $2, $3) AS due (shard, message, endpoint) GROUP BY shard";
    tx.execute(sql, &[p(&shards), p(&messages), p(&endpoints)]).await?;
    Ok(())
}

fn shard_sql(endpoint: EndpointId) -> i16 {
    i16::from(Shard::of(endpoint).0)
}

/// Whether doing it all again may help: the transaction was ended because it and another waited for each other.
pub fn is_in_the_way(fault: &Fault) -> bool {
    fault.code().is_some_and(|code| *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE)
}

/// Who hears of deliveries made due again, once that is durable.
#[derive(Clone)]
pub struct Announcer {
    db: Db,
    /// Not kept alive by what is in doubt: without it, there is nobody to tell.
    writer: Weak<Writer>,
    sink: Arc<std::sync::OnceLock<Arc<dyn CommitSink>>>,
}

impl Announcer {
    /// Tells the sink of those that are local.
    pub fn tell(&self, due: &[DueDelivery], local: &ShardSet) {
        let ours: Vec<DueDelivery> = due.iter().filter(|due| local.has(due.endpoint)).cloned().collect();
        if let Some(sink) = self.sink.get().filter(|_| !ours.is_empty()) {
            sink.requeued(&ours);
        }
    }

    /// Nobody knows whether it was committed: who asked is gone or told of the failure, but what was committed all the same must
    /// not wait for the next start. Looked up until it is known, however long the database is away, or the store is closed.
    /// `epoch` and `generation` as they were when it was local.
    pub fn doubt(&self, due: Vec<DueDelivery>, local: ShardSet, epoch: i64, generation: u64) {
        let due: Vec<DueDelivery> = due.into_iter().filter(|due| local.has(due.endpoint)).collect();
        let Some(writer) = self.writer.upgrade().filter(|_| !due.is_empty()) else { return };
        let Some(permit) = writer.doubt_permit() else {
            // Nothing is lost: whoever next takes over their shards reads them.
            tracing::error!(deliveries = due.len(), "too many batches in doubt; if committed, these wait for the next start");
            return;
        };
        let announcer = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            for pause in LOOKS {
                tokio::time::sleep(pause).await;
                let committed = loop {
                    match announcer.committed(&due).await {
                        Ok(committed) => break committed,
                        Err(_) if announcer.writer.upgrade().is_none_or(|writer| writer.is_closed()) => return,
                        Err(_) => tokio::time::sleep(AWAY_PAUSE).await,
                    }
                };
                if committed.is_empty() {
                    continue;
                }
                let Some(writer) = announcer.writer.upgrade() else { return };
                let guard = writer.local().await;
                // Of shards taken since, and under another membership, they were read with everything else.
                if guard.epoch() == epoch {
                    announcer.tell(&committed, &guard.kept_since(generation));
                }
                return;
            }
        });
    }

    async fn committed(&self, due: &[DueDelivery]) -> Outcome<Vec<DueDelivery>> {
        let conn = self.db.get().await?;
        let mut found = Vec::new();
        for due in due {
            let sql = "SELECT 1 FROM retry WHERE message = $1 AND endpoint = $2 AND due_at = $3 AND trigger = $4";
            let (message, endpoint) = (due.message.key(), due.endpoint.key());
            let (at, how) = (due.due_at.as_millis(), due.trigger as i16);
            let params = [p(&message), p(&endpoint), p(&at), p(&how)];
            if conn.query_opt(sql, &params).await?.is_some() {
                found.push(due.clone());
            }
        }
        Ok(found)
    }
}

/// What a requeue is asked for.
struct Requeue {
    app: AppId,
    message: MessageId,
    endpoint: EndpointId,
    now: Timestamp,
}

impl Requeue {
    /// Locks the delivery's rows and works out what it will be. In this order: the queue's row is what the record of a first try
    /// deletes, and retry what it then writes.
    async fn plan(&self, tx: &Conn) -> Outcome<DueDelivery> {
        if !message::is_in(tx, self.app, self.message).await? {
            return Err(StoreError::NotFound("message").into());
        }
        let sql = "SELECT 1 FROM endpoint WHERE id = $1 AND tail = $2 AND app = $3 AND deleted_at IS NULL";
        let (message, endpoint) = (self.message.key(), self.endpoint.key());
        let is_there = tx.query_opt(sql, &[p(&endpoint), p(&row::tail(&self.endpoint)), p(&self.app.key())]).await?.is_some();
        if !is_there {
            return Err(StoreError::NotFound("endpoint").into());
        }
        let of = [p(&message), p(&endpoint)];
        let queued = tx.query_opt("SELECT 1 FROM queue WHERE message = $1 AND endpoint = $2 FOR UPDATE", &of).await?;
        let sql = "SELECT tries, due_at, trigger, resume_at FROM retry WHERE message = $1 AND endpoint = $2 FOR UPDATE";
        let waiting = tx.query_opt(sql, &of).await?;
        let ended = tx.query_opt("SELECT tries FROM outcome WHERE message = $1 AND endpoint = $2 FOR UPDATE", &of).await?;
        // Where the schedule goes on if this try fails: a waiting retry at its time, an outstanding first try at once.
        let (tries, resume_at) = match (&waiting, &ended) {
            (Some(found), _) => {
                let is_manual = trigger(row::get(found, 2)?) == Trigger::Manual;
                (tries(found, 0)?, if is_manual { row::time_opt(found, 3)? } else { row::time_opt(found, 1)? })
            }
            (None, Some(found)) => (tries(found, 0)?, None),
            (None, None) => (0, queued.map(|_| self.now)),
        };
        Ok(DueDelivery {
            message: self.message,
            endpoint: self.endpoint,
            app: self.app,
            tries,
            due_at: self.now,
            trigger: Trigger::Manual,
            resume_at,
        })
    }
}

fn tries(found: &Row, column: usize) -> Outcome<u32> {
    Ok(u32::try_from(row::get::<i32>(found, column)?).unwrap_or(0))
}

impl PostgresStore {
    pub(super) fn announcer(&self) -> Announcer {
        Announcer { db: self.db.clone(), writer: Arc::downgrade(&self.writer), sink: self.sink.clone() }
    }

    async fn requeue_once(&self, asked: &Requeue, idem: Option<&IdempotencyRecord>) -> Outcome<Written<DueDelivery>> {
        // Held until the sink has been told: what is local stays so.
        let guard = self.writer.local().await;
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let begun = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(Err(replayed));
            }
            let local = hold_fence(&tx, &guard).await?;
            let due = asked.plan(&tx).await?;
            reopen(&tx, due.endpoint, std::slice::from_ref(&due)).await?;
            hand_over(&tx, std::slice::from_ref(&due), &local).await?;
            Ok(Ok((due, local)))
        }
        .await;
        let (due, local) = match begun {
            Ok(Ok(planned)) => planned,
            Ok(Err(replayed)) => {
                tx.rollback().await?;
                return Ok(replayed);
            }
            Err(fault) => return tx.end(Err(fault)).await,
        };
        let unannounced = Unannounced::new(self.announcer(), vec![due.clone()], local, &guard);
        unannounced.settle(tx.commit().await)?;
        Ok(Written::Fresh(due))
    }
}

const DUE_COLUMNS: &str = "due.message, due.tail, due.endpoint, endpoint.tail, due.app, application.tail";
const DUE_JOINS: &str = "LEFT JOIN endpoint ON endpoint.id = due.endpoint LEFT JOIN application ON application.id = due.app";

async fn load_first_tries(
    conn: &Conn,
    endpoint: Option<EndpointId>,
    after: Option<MessageId>,
    limit: usize,
) -> Outcome<(Vec<DueDelivery>, Option<MessageId>)> {
    let from = after.map_or(i64::MIN, |id| id.key());
    let limit_sql = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let only = endpoint.map(|endpoint| endpoint.key());
    let of = if only.is_some() { " AND endpoint = $3" } else { "" };
    // With ties: all endpoints of the page's last message.
    let sql = format!(
        "SELECT {DUE_COLUMNS} FROM (SELECT message, tail, endpoint, app FROM queue WHERE message > $1{of} \
         ORDER BY message FETCH FIRST $2 ROWS WITH TIES) AS due {DUE_JOINS} ORDER BY due.message, due.endpoint"
    );
    let mut params = vec![p(&from), p(&limit_sql)];
    if let Some(endpoint) = &only {
        params.push(p(endpoint));
    }
    let rows = conn.query(&sql, &params).await?;
    let mut due = Vec::with_capacity(rows.len());
    for found in &rows {
        let message: MessageId = row::id(found, 0, 1)?;
        due.push(DueDelivery {
            message,
            endpoint: row::id(found, 2, 3)?,
            app: row::id(found, 4, 5)?,
            tries: 0,
            due_at: message.created(),
            trigger: Trigger::Scheduled,
            resume_at: None,
        });
    }
    let next = due.last().filter(|_| due.len() >= limit.max(1)).map(|last| last.message);
    Ok((due, next))
}

async fn load_retries(
    conn: &Conn,
    shards: ShardSet,
    after: Option<DueCursor>,
    until: Timestamp,
    limit: usize,
) -> Outcome<Vec<DueDelivery>> {
    let (due_at, message, endpoint) =
        after.map_or((i64::MIN, i64::MIN, i64::MIN), |c| (c.due_at.as_millis(), c.message.key(), c.endpoint.key()));
    let (until, limit) = (until.as_millis(), i64::try_from(limit).unwrap_or(i64::MAX));
    let numbers: Vec<i16> = shards.iter().map(|shard| i16::from(shard.0)).collect();
    let mut params = vec![p(&due_at), p(&message), p(&endpoint), p(&until), p(&limit)];
    let of = if shards == ShardSet::ALL {
        ""
    } else {
        params.push(p(&numbers));
        " AND shard = ANY($6)"
    };
    let sql = format!(
        "SELECT {DUE_COLUMNS}, due.tries, due.due_at, due.trigger, due.resume_at FROM (SELECT * FROM retry \
         WHERE due_at <= $4 AND (due_at, message, endpoint) > ($1, $2, $3){of} ORDER BY due_at, message, endpoint LIMIT $5) AS due \
         {DUE_JOINS} ORDER BY due.due_at, due.message, due.endpoint"
    );
    let rows = conn.query(&sql, &params).await?;
    rows.iter()
        .map(|found| {
            Ok(DueDelivery {
                message: row::id(found, 0, 1)?,
                endpoint: row::id(found, 2, 3)?,
                app: row::id(found, 4, 5)?,
                tries: tries(found, 6)?,
                due_at: row::time(found, 7)?,
                trigger: trigger(row::get(found, 8)?),
                resume_at: row::time_opt(found, 9)?,
            })
        })
        .collect()
}

/// The rows of a table: exactly if they are not too many, else about.
async fn count_rows(conn: &Conn, table: &str) -> Outcome<u64> {
    let limit = COUNTED_MAX + 1;
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT $1) AS counted");
    let counted: i64 = row::get(&conn.query_one(&sql, &[p(&limit)]).await?, 0)?;
    if counted < limit {
        return Ok(counted.unsigned_abs());
    }
    let sql = format!("SELECT greatest(pg_stat_get_live_tuples('{table}'::regclass), $1)");
    row::count(&conn.query_one(&sql, &[p(&counted)]).await?, 0)
}

#[async_trait]
impl DeliveryStore for PostgresStore {
    fn set_sink(&self, sink: Arc<dyn CommitSink>) {
        if self.sink.set(sink).is_err() {
            tracing::warn!("the store's commit sink was set twice; the first one stays");
        }
    }

    fn record_attempt(&self, record: AttemptRecord) {
        self.writer.record(record);
    }

    async fn load_first_tries(
        &self,
        endpoint: Option<EndpointId>,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<(Vec<DueDelivery>, Option<MessageId>)> {
        let conn = self.db.get().await?;
        Ok(load_first_tries(&conn, endpoint, after, limit).await?)
    }

    async fn load_retries(
        &self,
        shards: ShardSet,
        after: Option<DueCursor>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueDelivery>> {
        let conn = self.db.get().await?;
        Ok(load_retries(&conn, shards, after, until, limit).await?)
    }

    async fn requeue(
        &self,
        app: AppId,
        message: MessageId,
        endpoint: EndpointId,
        now: Timestamp,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<DueDelivery>> {
        let asked = Requeue { app, message, endpoint, now };
        for _ in 1..TRIES_MAX {
            match self.requeue_once(&asked, idem.as_ref()).await {
                Err(fault) if is_in_the_way(&fault) => {}
                done => return Ok(done?),
            }
        }
        Ok(self.requeue_once(&asked, idem.as_ref()).await?)
    }

    async fn count_unfinished(&self) -> Result<(u64, u64)> {
        let conn = self.db.get().await?;
        Ok((count_rows(&conn, "queue").await?, count_rows(&conn, "retry").await?))
    }
}
