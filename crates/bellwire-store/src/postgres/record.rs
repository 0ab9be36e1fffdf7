//! Writing completed attempts: a batch is one statement, with the attempts, what follows for their deliveries, and the counters.
//!
//! Done again after a lost connection it changes nothing more: what is counted follows from the rows that really changed. If the
//! node's fence is gone, it changes nothing at all.
//!
//! Attempts are inserted without looking whether they are there, which would cost a third more: an error says that some are.

use std::collections::{BTreeSet, HashSet};

use bellwire_core::{IdKind, Shard, Timestamp};

use super::connection::{Conn, WRITE_MAX};
use super::fault::Outcome;
use super::param::p;
use super::partition::{day_of_key, day_of_minute};
use super::row;
use crate::{AttemptRecord, DeliveryNext, StoreError};

/// `next` in the statements.
const DELIVERED: i16 = 0;
const RETRY: i16 = 1;
const EXHAUSTED: i16 = 2;
const CANCELLED: i16 = 3;

const HELD: &str = "WITH held AS (SELECT 1 FROM fence WHERE epoch = $1 AND lane = $2 FOR NO KEY UPDATE)";
const KEPT: &str = "kept AS (INSERT INTO attempt (message, id, tail, endpoint, status, trigger, response_status, duration_ms, \
     \"timestamp\", url, response) SELECT message, id, tail, endpoint, status, trigger, response_status, duration_ms, at, url, response \
     FROM input WHERE id IS NOT NULL";
const COUNTED: &str = "counted AS (INSERT INTO counter (endpoint, minute, success, fail, canceled) \
     SELECT endpoint, minute, sum(success), sum(fail), sum(canceled) FROM counts GROUP BY endpoint, minute ORDER BY endpoint, minute \
     ON CONFLICT (endpoint, minute) DO UPDATE SET success = counter.success + excluded.success, fail = counter.fail + excluded.fail, \
     canceled = counter.canceled + excluded.canceled)";

/// Whether a batch has been written before, or may have been: its commit was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    First,
    Again,
}

impl Write {
    /// The attempts. Again, those that are there stay as they are.
    fn kept(self) -> String {
        let tail = if self == Self::Again { " ON CONFLICT DO NOTHING)" } else { ")" };
        format!("{KEPT}{tail}")
    }
}

/// What becomes of nearly all: first tries that succeed, all in one minute. Columns of a fixed width are taken from their arrays by place: a
/// dozen of `unnest` side by side would each keep their rows, which costs more time and twice the memory.
///
/// Rows of the queue are found one by one, through the index, and deleted by their places, which nothing moves. A join would leave it to the
/// planner how to find them, and what it knows of a queue is from when autovacuum saw it, most often empty: then it reads all of the queue
/// for every batch.
fn first_tries_sql(write: Write) -> String {
    let kept = write.kept();
    format!(
        "{HELD}, input AS (SELECT ($3)[n::integer] AS message, ($4)[n::integer] AS endpoint, ($5)[n::integer] AS id, tail, \
         ($7)[n::integer] AS status, ($8)[n::integer] AS trigger, ($9)[n::integer] AS response_status, \
         ($10)[n::integer] AS duration_ms, ($11)[n::integer] AS at, url, response \
         FROM unnest($6, $12, $13) WITH ORDINALITY AS i (tail, url, response, n) WHERE EXISTS (SELECT 1 FROM held)), {kept}, \
         gone AS (DELETE FROM queue WHERE ctid = ANY (ARRAY (SELECT (SELECT ctid FROM queue AS q WHERE q.message = i.message \
         AND q.endpoint = i.endpoint) FROM input AS i)) RETURNING endpoint), \
         counts AS (SELECT endpoint, ($14)[1] AS minute, 1 AS success, 0 AS fail, 0 AS canceled FROM gone), {COUNTED} \
         SELECT EXISTS (SELECT 1 FROM held), ARRAY[]::integer[]"
    )
}

/// Whether some of a batch's deliveries have an outcome: they had ended, and were tried all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Most often. The statement looks first: if there is one, it changes nothing and says so.
    None,
    /// Outcomes may go away. That names each day's table, of which there are a hundred: planning it takes some 80 ms, running it 5 ms.
    Some,
}

/// Any mixture. In steps:
/// * judged: the delivery's other rows, and whether another try of it has succeeded already (moot: this failure changes nothing)
/// * planned: what to do. 0: nothing; 1: take its rows away; 2: wait in retry; 3: end in outcome.
///
/// A first try leaves a manual try of the same delivery alone if it succeeded, and takes its place if not.
/// Rows are found one by one and deleted by their places, as in [`first_tries_sql`]. A retry that is asked for anew meanwhile is in another
/// place: it stays, beside the outcome if there is one, and is made.
fn any_sql(write: Write, ended: Ended) -> String {
    // The bounds, of the batch's messages, choose among the days' tables before the statement starts; nothing else here does.
    const OUTCOME: &str =
        "FROM outcome WHERE message = i.message AND endpoint = i.endpoint AND message BETWEEN $25 AND $26 LIMIT 1";
    // A first try that succeeded changes nothing but the queue.
    let is_judged = format!("NOT (i.is_first AND i.next = {DELIVERED})");
    let kept = write.kept();
    let (known, is_known, of_outcome, is_open, outcome, cleared) = match ended {
        Ended::None => (
            format!(
                "known AS (SELECT 1 FROM unnest($3, $4, $16, $17) AS i (message, endpoint, is_first, next) \
                 CROSS JOIN LATERAL (SELECT 1 {OUTCOME}) AS o WHERE {is_judged} LIMIT 1), "
            ),
            "EXISTS (SELECT 1 FROM known)",
            "FALSE AS is_ended, 0 AS was, NULL::bigint AS counted_minute, r.is_delivered AS was_delivered",
            "r.message IS NULL",
            String::new(),
            "",
        ),
        Ended::Some => (
            String::new(),
            "FALSE",
            "o.message IS NOT NULL AS is_ended, o.state AS was, o.counted_minute, coalesce(r.is_delivered, o.is_delivered) AS was_delivered",
            "r.message IS NULL AND o.message IS NULL",
            format!(" LEFT JOIN LATERAL (SELECT message, state, counted_minute, is_delivered {OUTCOME}) AS o ON TRUE"),
            "cleared AS (DELETE FROM outcome AS o USING planned AS p WHERE p.is_ended AND p.act IN (1, 2) AND o.message = p.message \
             AND o.endpoint = p.endpoint AND o.message BETWEEN $25 AND $26), ",
        ),
    };
    format!(
        "{HELD}, {known}input AS (SELECT * FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
         $21, $22, $23) AS i (message, endpoint, id, tail, status, trigger, response_status, duration_ms, at, url, response, minute, n, \
         is_first, next, tries, due_at, reason, app, message_tail, shard) WHERE EXISTS (SELECT 1 FROM held) AND NOT {is_known}), {kept}, \
         queued AS (SELECT q.place, i.endpoint, i.minute, i.next FROM input AS i CROSS JOIN LATERAL (SELECT ctid AS place FROM queue \
         WHERE message = i.message AND endpoint = i.endpoint LIMIT 1) AS q WHERE i.is_first), \
         gone AS (DELETE FROM queue AS q USING queued AS i WHERE q.ctid = i.place RETURNING i.endpoint, i.minute, i.next), \
         delivered AS (SELECT message, endpoint FROM attempt WHERE message = ANY($24) AND message BETWEEN $25 AND $26 AND status = 0 \
         AND (message, endpoint) IN (SELECT message, endpoint FROM input WHERE next > {DELIVERED})), \
         judged AS (SELECT i.message, i.endpoint, i.minute, i.n, i.is_first, i.next, i.tries, i.due_at, i.reason, i.app, \
         i.message_tail, i.shard, r.place, r.message IS NOT NULL AS is_waiting, {of_outcome}, \
         i.next > 0 AND (i.is_first OR ({is_open})) \
         AND (i.message, i.endpoint) IN (SELECT message, endpoint FROM delivered) AS is_moot FROM input AS i \
         LEFT JOIN LATERAL (SELECT ctid AS place, message, is_delivered FROM retry WHERE message = i.message AND endpoint = i.endpoint \
         LIMIT 1) AS r ON TRUE{outcome} WHERE {is_judged}), \
         planned AS (SELECT *, CASE WHEN is_moot THEN 0 WHEN next = {DELIVERED} THEN 1 \
         WHEN next = {RETRY} THEN 2 WHEN NOT is_first AND was_delivered THEN 1 ELSE 3 END AS act FROM judged), \
         freed AS (DELETE FROM retry AS r USING planned AS p WHERE p.is_waiting AND p.act IN (1, 3) AND r.ctid = p.place \
         RETURNING p.endpoint, p.minute, p.next, r.is_delivered), \
         waiting AS (INSERT INTO retry (message, endpoint, shard, app, tail, tries, due_at, trigger, resume_at, is_delivered) \
         SELECT message, endpoint, shard, app, message_tail, tries, due_at, 0, NULL, FALSE FROM planned WHERE act = 2 \
         ORDER BY message, endpoint ON CONFLICT (message, endpoint) DO UPDATE SET tries = excluded.tries, due_at = excluded.due_at, \
         trigger = excluded.trigger, resume_at = NULL, is_delivered = FALSE), \
         {cleared}ended AS (INSERT INTO outcome (message, endpoint, state, tries, reason, counted_minute, is_delivered) \
         SELECT message, endpoint, next - 1, tries, reason, minute, FALSE FROM planned WHERE act = 3 ORDER BY message, endpoint \
         ON CONFLICT (message, endpoint) DO UPDATE SET state = excluded.state, tries = excluded.tries, reason = excluded.reason, \
         counted_minute = excluded.counted_minute, is_delivered = FALSE), \
         counts AS (SELECT endpoint, minute, 1 AS success, 0 AS fail, 0 AS canceled FROM gone WHERE next = {DELIVERED} \
         UNION ALL SELECT endpoint, minute, 1, 0, 0 FROM freed WHERE next = {DELIVERED} AND NOT is_delivered \
         UNION ALL SELECT endpoint, minute, 1, 0, 0 FROM planned WHERE next = {DELIVERED} AND is_ended \
         AND NOT is_waiting AND NOT was_delivered \
         UNION ALL SELECT endpoint, minute, 0, (next = {EXHAUSTED})::integer, (next = {CANCELLED})::integer FROM planned WHERE act = 3 \
         UNION ALL SELECT endpoint, counted_minute, 0, -(was = 1)::integer, -(was = 2)::integer FROM planned \
         WHERE is_ended AND act > 0 AND counted_minute IS NOT NULL), {COUNTED} \
         SELECT EXISTS (SELECT 1 FROM held), ARRAY (SELECT n FROM judged WHERE is_moot), {is_known}"
    )
}

/// What writing attempts came to.
pub enum Written {
    /// They are durable; these, by their place, were failures that change nothing, because another try has succeeded.
    Done { moot: HashSet<usize> },
    /// The membership is over: nothing was changed.
    Fenced,
}

/// A batch in columns.
#[derive(Default)]
struct Columns<'a> {
    message: Vec<i64>,
    endpoint: Vec<i64>,
    id: Vec<Option<i64>>,
    tail: Vec<Option<&'a [u8]>>,
    status: Vec<Option<i16>>,
    trigger: Vec<Option<i16>>,
    response_status: Vec<Option<i16>>,
    duration_ms: Vec<Option<i64>>,
    at: Vec<Option<i64>>,
    url: Vec<Option<&'a str>>,
    response: Vec<Option<&'a [u8]>>,
    minute: Vec<i64>,
    n: Vec<i32>,
    is_first: Vec<bool>,
    next: Vec<i16>,
    tries: Vec<i32>,
    due_at: Vec<i64>,
    reason: Vec<Option<&'a str>>,
    app: Vec<i64>,
    message_tail: Vec<&'a [u8]>,
    shard: Vec<i16>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a [AttemptRecord], latest: Timestamp) -> Self {
        let mut columns = Self::default();
        for record in batch {
            columns.add(record, latest);
        }
        columns
    }

    fn add(&mut self, record: &'a AttemptRecord, latest: Timestamp) {
        let attempt = record.attempt.as_ref();
        let (next, tries, due_at, reason) = match &record.next {
            DeliveryNext::Delivered => (DELIVERED, 0, 0, None),
            DeliveryNext::RetryAt { at, tries } => (RETRY, *tries, at.as_millis(), None),
            DeliveryNext::Exhausted { tries } => (EXHAUSTED, *tries, 0, None),
            DeliveryNext::Cancelled { tries, by } => (CANCELLED, *tries, 0, Some(by.as_str())),
        };
        self.n.push(i32::try_from(self.n.len()).unwrap_or(i32::MAX));
        self.message.push(record.message.key());
        self.endpoint.push(record.endpoint.key());
        self.id.push(attempt.map(|attempt| attempt.id.key()));
        self.tail.push(attempt.map(|attempt| &attempt.id.as_bytes()[8..]));
        self.status.push(attempt.map(|attempt| attempt.status as i16));
        self.trigger.push(attempt.map(|attempt| attempt.trigger as i16));
        self.response_status.push(attempt.map(|attempt| i16::try_from(attempt.response_status).unwrap_or(0)));
        self.duration_ms.push(attempt.map(|attempt| i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX)));
        self.at.push(attempt.map(|attempt| attempt.timestamp.as_millis()));
        self.url.push(attempt.map(|attempt| &*attempt.url));
        self.response.push(attempt.map(|attempt| &attempt.response[..]).filter(|response| !response.is_empty()));
        self.minute.push(minute_of(record, latest));
        self.is_first.push(record.is_first_try);
        self.next.push(next);
        self.tries.push(i32::try_from(tries).unwrap_or(i32::MAX));
        self.due_at.push(due_at);
        self.reason.push(reason);
        self.app.push(record.app.key());
        self.message_tail.push(&record.message.as_bytes()[8..]);
        self.shard.push(i16::from(Shard::of(record.endpoint).0));
    }

    /// Whether [`first_tries_sql`] does.
    fn is_simple(&self) -> bool {
        self.is_first.iter().all(|is_first| *is_first)
            && self.next.iter().all(|next| *next == DELIVERED)
            && self.minute.iter().all(|minute| *minute == self.minute[0])
    }
}

/// Where the counters count it. What was ended without an attempt counts at the latest time known.
fn minute_of(record: &AttemptRecord, latest: Timestamp) -> i64 {
    let at = record.attempt.as_ref().map_or(latest.max(record.message.created()), |attempt| attempt.timestamp);
    at.as_millis().div_euclid(60_000)
}

/// Writes a batch in which no delivery stands twice. A [`Fault::is_there_already`] wrote nothing: it is to be written as one that was before.
///
/// [`Fault::is_there_already`]: super::fault::Fault::is_there_already
pub async fn write(
    conn: &Conn,
    batch: &[AttemptRecord],
    write: Write,
    epoch: i64,
    lane: i16,
    latest: Timestamp,
) -> Outcome<Written> {
    let columns = Columns::of(batch, latest);
    let mut params = vec![
        p(&epoch),
        p(&lane),
        p(&columns.message),
        p(&columns.endpoint),
        p(&columns.id),
        p(&columns.tail),
        p(&columns.status),
        p(&columns.trigger),
        p(&columns.response_status),
        p(&columns.duration_ms),
        p(&columns.at),
        p(&columns.url),
        p(&columns.response),
        p(&columns.minute),
    ];
    let failed = columns.message.iter().zip(&columns.next).filter(|(_, next)| **next != DELIVERED).map(|(message, _)| *message);
    let failed: Vec<i64> = failed.collect::<BTreeSet<i64>>().into_iter().collect();
    let first = columns.message.iter().copied().min().unwrap_or(0);
    let last = columns.message.iter().copied().max().unwrap_or(0);
    let rows = if columns.is_simple() {
        conn.query_kept(WRITE_MAX, &first_tries_sql(write), &params).await?
    } else {
        params.extend([
            p(&columns.n),
            p(&columns.is_first),
            p(&columns.next),
            p(&columns.tries),
            p(&columns.due_at),
            p(&columns.reason),
            p(&columns.app),
            p(&columns.message_tail),
            p(&columns.shard),
            p(&failed),
            p(&first),
            p(&last),
        ]);
        let rows = conn.query_kept(WRITE_MAX, &any_sql(write, Ended::None), &params).await?;
        match rows.first().map(|found| row::get::<bool>(found, 2)).transpose()? {
            Some(true) => conn.query_within(WRITE_MAX, &any_sql(write, Ended::Some), &params).await?,
            _ => rows,
        }
    };
    let Some(found) = rows.first() else { return Err(StoreError::Corrupt("a batch without an answer".to_owned()).into()) };
    if !row::get::<bool>(found, 0)? {
        return Ok(Written::Fenced);
    }
    let moot: Vec<i32> = row::get(found, 1)?;
    Ok(Written::Done { moot: moot.into_iter().filter_map(|n| usize::try_from(n).ok()).collect() })
}

/// Days a batch needs partitions for.
pub fn days(batch: &[AttemptRecord], latest: Timestamp) -> BTreeSet<i32> {
    batch.iter().flat_map(|record| [day_of_key(record.message.key()), day_of_minute(minute_of(record, latest))]).collect()
}
