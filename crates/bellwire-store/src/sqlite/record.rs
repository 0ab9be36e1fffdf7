//! Writing completed attempts: the attempt, what follows for its delivery, and the counters, in one transaction.
//!
//! Success of a first try costs an attempt row and (with the last endpoint of the message) the deletion of its queue row.
//! What failed moves to `retry`: pending with a due time, or terminal (kept, so that it can be repeated).

use bellwire_core::{Attempt, AttemptStatus, IdKind, Timestamp, Trigger};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Outcome;
use super::files::Files;
use super::row;
use crate::{AttemptRecord, DeliveryNext};

pub const PENDING: i64 = 0;
pub const EXHAUSTED: i64 = 1;
pub const CANCELLED: i64 = 2;

const INSERT_ATTEMPT: &str = "INSERT OR IGNORE INTO attempt (id, tail, message, endpoint, status, trigger, response_status, \
     duration_ms, timestamp, url, response) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const UPSERT_RETRY: &str = "INSERT OR REPLACE INTO retry (message, endpoint, tail, app, state, tries, due_at, trigger, resume_at, \
     reason, counted_minute, is_delivered) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL, ?9, ?10, 0)";

/// What is left of fan-outs after the group; to be remembered once it is committed.
pub type Rests = Vec<(i64, Vec<i64>)>;

/// (message, endpoint) of failures that change nothing, because another try of the same delivery has succeeded.
pub type Moot = Vec<(i64, i64)>;

/// What writing attempts came to, beyond the rows.
#[derive(Debug, Default)]
pub struct Written {
    pub rests: Rests,
    pub moot: Moot,
}

/// Writes the attempts of one segment, inside its transaction.
pub fn write(files: &Files, at: usize, records: &[&AttemptRecord]) -> Outcome<Written> {
    if records.is_empty() {
        return Ok(Written::default());
    }
    let segment = &files.segments[at];
    let conn = segment.file.tx()?;
    let mut counts = Counts::default();
    let mut first_tries = Vec::with_capacity(records.len());
    let mut moot = Vec::new();
    {
        let mut insert = conn.prepare_cached(INSERT_ATTEMPT)?;
        for record in records {
            if let Some(attempt) = &record.attempt {
                let url = files.urls.number(conn, segment.segment.start, &attempt.url)?;
                insert_attempt(&mut insert, attempt, url)?;
            }
        }
    }
    for record in records {
        let minute = minute_of(record.attempt.as_ref().map_or(files.latest, |attempt| attempt.timestamp));
        if record.is_first_try {
            first_tries.push((record.message.key(), record.endpoint.key()));
        }
        let is_moot = if record.is_first_try {
            settle(conn, record, minute, &mut counts)?
        } else {
            settle_again(conn, record, minute, &mut counts)?
        };
        if is_moot {
            moot.push((record.message.key(), record.endpoint.key()));
        }
    }
    counts.write(conn)?;
    Ok(Written { rests: dequeue(files, conn, first_tries)?, moot })
}

fn insert_attempt(insert: &mut rusqlite::CachedStatement<'_>, attempt: &Attempt, url: i64) -> Outcome<()> {
    insert.execute((
        attempt.id.key(),
        attempt.id.tail(),
        attempt.message.key(),
        attempt.endpoint.key(),
        attempt.status as u8,
        attempt.trigger as u8,
        attempt.response_status,
        i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX),
        attempt.timestamp.as_millis(),
        url,
        (!attempt.response.is_empty()).then_some(&attempt.response[..]),
    ))?;
    Ok(())
}

pub fn minute_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(60_000)
}

/// After a first try. True: a manual try of the same delivery has succeeded meanwhile, so that this failure changes nothing.
fn settle(conn: &Connection, record: &AttemptRecord, minute: i64, counts: &mut Counts) -> Outcome<bool> {
    match &record.next {
        DeliveryNext::Delivered => counts.add(record.endpoint.key(), minute, Kind::Success, 1),
        _ if is_delivered(conn, record.message.key(), record.endpoint.key())? => return Ok(true),
        next => put_retry(conn, record, next, minute, counts)?,
    }
    Ok(false)
}

/// After a retry or manual try: there is a row in `retry`, unless another try of the same delivery was quicker. True: that one
/// succeeded, so that this failure changes nothing.
fn settle_again(conn: &Connection, record: &AttemptRecord, minute: i64, counts: &mut Counts) -> Outcome<bool> {
    let (message, endpoint) = (record.message.key(), record.endpoint.key());
    let prior = uncount(conn, message, endpoint, counts)?;
    let delete = || -> Outcome<()> {
        conn.prepare_cached("DELETE FROM retry WHERE message = ?1 AND endpoint = ?2")?.execute([message, endpoint])?;
        Ok(())
    };
    match (&record.next, prior) {
        (DeliveryNext::Delivered, None) => {}
        (DeliveryNext::Delivered, Some(is_delivered)) => {
            delete()?;
            if !is_delivered {
                counts.add(endpoint, minute, Kind::Success, 1);
            }
        }
        // A repeat of what had succeeded: it stays a success, whatever the repeat came to.
        (DeliveryNext::Exhausted { .. } | DeliveryNext::Cancelled { .. }, Some(true)) => delete()?,
        (_, None) if is_delivered(conn, message, endpoint)? => return Ok(true),
        (next, _) => put_retry(conn, record, next, minute, counts)?,
    }
    Ok(false)
}

/// Takes a terminal state out of the counters, because it is about to change. Returns `is_delivered` of the row, if there is one.
pub fn uncount(conn: &Connection, message: i64, endpoint: i64, counts: &mut Counts) -> Outcome<Option<bool>> {
    let prior = conn
        .prepare_cached("SELECT state, counted_minute, is_delivered FROM retry WHERE message = ?1 AND endpoint = ?2")?
        .query_row([message, endpoint], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, bool>(2)?)))
        .optional()?;
    let Some((state, counted, is_delivered)) = prior else { return Ok(None) };
    if let Some(minute) = counted {
        counts.add(endpoint, minute, if state == CANCELLED { Kind::Canceled } else { Kind::Fail }, -1);
    }
    Ok(Some(is_delivered))
}

pub fn is_delivered(conn: &Connection, message: i64, endpoint: i64) -> Outcome<bool> {
    let success = AttemptStatus::Success as u8;
    Ok(conn
        .prepare_cached("SELECT 1 FROM attempt WHERE message = ?1 AND endpoint = ?2 AND status = ?3")?
        .exists(params![message, endpoint, success])?)
}

fn put_retry(conn: &Connection, record: &AttemptRecord, next: &DeliveryNext, minute: i64, counts: &mut Counts) -> Outcome<()> {
    let (state, tries, due_at, reason, kind) = match next {
        DeliveryNext::Delivered => return Ok(()),
        DeliveryNext::RetryAt { at, tries } => (PENDING, *tries, at.as_millis(), None, None),
        DeliveryNext::Exhausted { tries } => (EXHAUSTED, *tries, 0, None, Some(Kind::Fail)),
        DeliveryNext::Cancelled { tries, by } => (CANCELLED, *tries, 0, Some(by), Some(Kind::Canceled)),
    };
    conn.prepare_cached(UPSERT_RETRY)?.execute(params![
        record.message.key(),
        record.endpoint.key(),
        record.message.tail(),
        record.app.key(),
        state,
        tries,
        due_at,
        Trigger::Scheduled as u8,
        reason,
        kind.map(|_| minute),
    ])?;
    if let Some(kind) = kind {
        counts.add(record.endpoint.key(), minute, kind, 1);
    }
    Ok(())
}

/// Takes first tries out of the queue.
fn dequeue(files: &Files, conn: &Connection, mut done: Vec<(i64, i64)>) -> Outcome<Rests> {
    done.sort_unstable();
    let mut rests = Vec::new();
    let mut delete = conn.prepare_cached("DELETE FROM queue WHERE message = ?1")?;
    let mut delete_single = conn.prepare_cached("DELETE FROM queue WHERE message = ?1 AND endpoints = ?2")?;
    for of_message in done.chunk_by(|a, b| a.0 == b.0) {
        let message = of_message[0].0;
        let is_left = |endpoint: &i64| of_message.binary_search(&(message, *endpoint)).is_err();
        if let Some(known) = files.outstanding.get(message) {
            let rest: Vec<i64> = known.iter().copied().filter(is_left).collect();
            if rest.is_empty() {
                delete.execute([message])?;
            }
            rests.push((message, rest));
            continue;
        }
        if let [(_, endpoint)] = of_message
            && delete_single.execute(params![message, endpoint.to_be_bytes()])? == 1
        {
            continue;
        }
        let rest = outstanding_of(conn, message)?;
        match rest.map(|rest| rest.into_iter().filter(is_left).collect::<Vec<_>>()) {
            None => {}
            Some(rest) if rest.is_empty() => {
                delete.execute([message])?;
            }
            Some(rest) => rests.push((message, rest)),
        }
    }
    Ok(rests)
}

/// Endpoints of a queued message whose first try is not recorded, from the row and the attempts. `None`: it is not queued.
fn outstanding_of(conn: &Connection, message: i64) -> Outcome<Option<Vec<i64>>> {
    let blob: Option<Vec<u8>> = conn
        .prepare_cached("SELECT endpoints FROM queue WHERE message = ?1")?
        .query_row([message], |row| row.get(0))
        .optional()?;
    blob.map(|blob| first_tries_left(conn, message, &blob)).transpose()
}

/// Of the endpoints in a queue row, those that have neither an attempt nor a row in `retry`.
pub fn first_tries_left(conn: &Connection, message: i64, blob: &[u8]) -> Outcome<Vec<i64>> {
    let mut left = Vec::with_capacity(blob.len() / 8);
    // The row of a single endpoint goes with its first attempt: if it is there, it is outstanding.
    if blob.len() == 8 {
        left.extend(row::blob_to_keys(blob));
        return Ok(left);
    }
    let mut tried = conn.prepare_cached("SELECT 1 FROM attempt WHERE message = ?1 AND endpoint = ?2")?;
    let mut waits = conn.prepare_cached("SELECT 1 FROM retry WHERE message = ?1 AND endpoint = ?2")?;
    for endpoint in row::blob_to_keys(blob) {
        if !tried.exists([message, endpoint])? && !waits.exists([message, endpoint])? {
            left.push(endpoint);
        }
    }
    Ok(left)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Success = 0,
    Fail = 1,
    Canceled = 2,
}

/// Changes to the counters, added up before they are written.
#[derive(Debug, Default)]
pub struct Counts(Vec<(i64, i64, Kind, i64)>);

impl Counts {
    pub fn add(&mut self, endpoint: i64, minute: i64, kind: Kind, by: i64) {
        self.0.push((endpoint, minute, kind, by));
    }

    pub fn write(mut self, conn: &Connection) -> Outcome<()> {
        self.0.sort_unstable();
        let mut upsert = conn.prepare_cached(
            "INSERT INTO counter (endpoint, minute, success, fail, canceled) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (endpoint, minute) DO UPDATE SET success = success + excluded.success, \
             fail = fail + excluded.fail, canceled = canceled + excluded.canceled",
        )?;
        for same in self.0.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let mut sums = [0i64; 3];
            for (_, _, kind, by) in same {
                sums[*kind as usize] += by;
            }
            upsert.execute((same[0].0, same[0].1, sums[0], sums[1], sums[2]))?;
        }
        Ok(())
    }
}
