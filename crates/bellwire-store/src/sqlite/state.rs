//! How a delivery stands: worked out from its attempts, its row in `retry` and its message's row in the queue.

use std::collections::BTreeMap;

use bellwire_core::{AttemptStatus, Timestamp, Trigger};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Outcome;
use super::record::{CANCELLED, PENDING, first_tries_left};
use super::row;
use crate::keyset::KeyRange;

pub fn trigger(code: i64) -> Trigger {
    if code == i64::from(Trigger::Manual as u8) { Trigger::Manual } else { Trigger::Scheduled }
}

/// Whether the first try of `endpoint` is outstanding.
pub fn is_queued(conn: &Connection, message: i64, endpoint: i64) -> Outcome<bool> {
    let blob: Option<Vec<u8>> = conn
        .prepare_cached("SELECT endpoints FROM queue WHERE message = ?1")?
        .query_row([message], |row| row.get(0))
        .optional()?;
    match blob {
        Some(blob) if row::blob_to_keys(&blob).any(|key| key == endpoint) => {
            Ok(first_tries_left(conn, message, &endpoint_alone(&blob, endpoint))?.contains(&endpoint))
        }
        _ => Ok(false),
    }
}

/// Asks about one endpoint of a row: twice the same, so that it is not taken for the row of a single endpoint.
pub fn endpoint_alone(blob: &[u8], endpoint: i64) -> Vec<u8> {
    if blob.len() == 8 { blob.to_vec() } else { row::keys_to_blob([endpoint, endpoint]) }
}

/// A delivery's row in `retry`.
#[derive(Clone, Copy, Debug)]
pub struct RetryRow {
    pub state: i64,
    pub tries: u32,
    pub due_at: Timestamp,
    pub trigger: Trigger,
    pub resume_at: Option<Timestamp>,
}

pub fn retry_row(conn: &Connection, message: i64, endpoint: i64) -> Outcome<Option<RetryRow>> {
    Ok(conn
        .prepare_cached("SELECT state, tries, due_at, trigger, resume_at FROM retry WHERE message = ?1 AND endpoint = ?2")?
        .query_row([message, endpoint], |row| {
            Ok(RetryRow {
                state: row.get(0)?,
                tries: row.get(1)?,
                due_at: row::time(row, 2)?,
                trigger: trigger(row.get(3)?),
                resume_at: row::time_opt(row, 4)?,
            })
        })
        .optional()?)
}

/// How a delivery stands, from its attempts, its row in `retry` and its message's row in the queue. `None`: it does not exist.
pub fn state(conn: &Connection, message: i64, endpoint: i64) -> Outcome<Option<(AttemptStatus, Option<Timestamp>)>> {
    let best: Option<i64> = conn
        .prepare_cached("SELECT min(status) FROM attempt WHERE message = ?1 AND endpoint = ?2")?
        .query_row([message, endpoint], |row| row.get(0))?;
    if best == Some(i64::from(AttemptStatus::Success as u8)) {
        return Ok(Some((AttemptStatus::Success, None)));
    }
    if let Some(row) = retry_row(conn, message, endpoint)? {
        return Ok(Some(match row.state {
            PENDING => (AttemptStatus::Pending, Some(row.due_at)),
            CANCELLED => (AttemptStatus::Canceled, None),
            _ => (AttemptStatus::Fail, None),
        }));
    }
    if best.is_some() {
        return Ok(Some((AttemptStatus::Fail, None)));
    }
    Ok(is_queued(conn, message, endpoint)?.then_some((AttemptStatus::Pending, None)))
}

/// Every endpoint that has something to do with the message.
pub fn endpoints_of(conn: &Connection, message: i64) -> Outcome<BTreeMap<i64, (AttemptStatus, Option<Timestamp>)>> {
    let mut keys = Vec::new();
    for sql in ["SELECT DISTINCT endpoint FROM attempt WHERE message = ?1", "SELECT endpoint FROM retry WHERE message = ?1"] {
        for key in conn.prepare_cached(sql)?.query_map([message], |row| row.get::<_, i64>(0))? {
            keys.push(key?);
        }
    }
    let blob: Option<Vec<u8>> = conn
        .prepare_cached("SELECT endpoints FROM queue WHERE message = ?1")?
        .query_row([message], |row| row.get(0))
        .optional()?;
    keys.extend(blob.iter().flat_map(|blob| row::blob_to_keys(blob)));
    let mut states = BTreeMap::new();
    for key in keys {
        if !states.contains_key(&key)
            && let Some(state) = state(conn, message, key)?
        {
            states.insert(key, state);
        }
    }
    Ok(states)
}

/// Retries that wait and first tries outstanding, of messages in `made`. A repeat of what had succeeded is a success.
pub fn unfinished(conn: &Connection, endpoint: i64, made: KeyRange) -> Outcome<i64> {
    let mut count: i64 = conn
        .prepare_cached(
            // The plus leaves the choice to the index of those that wait: it is covering.
            "SELECT count(*) FROM retry WHERE state = 0 AND endpoint = ?1 AND is_delivered = 0 AND +message >= ?2 AND +message < ?3",
        )?
        .query_row([endpoint, made.from, made.to], |row| row.get(0))?;
    let mut statement = conn.prepare_cached(
        "SELECT message, endpoints FROM queue WHERE message >= ?2 AND message < ?3 AND instr(endpoints, ?1) > 0",
    )?;
    let mut rows = statement.query(params![endpoint.to_be_bytes(), made.from, made.to])?;
    while let Some(row) = rows.next()? {
        let blob: Vec<u8> = row.get(1)?;
        count += i64::from(first_tries_left(conn, row.get(0)?, &blob)?.contains(&endpoint));
    }
    Ok(count)
}
