//! Idempotency records of everything but publishing: found, replayed or stored in the transaction of what they stand for.

use bellwire_core::{OrgId, Timestamp};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Outcome;
use super::row;
use crate::sealed::{open_answer, seal_answer};
use crate::{Cipher, Idempotency, IdempotencyRecord, StoreError, Written};

/// Does `act` once per key, in the transaction open on `conn` (the control file).
pub fn once<T>(
    conn: &Connection,
    cipher: &Cipher,
    record: Option<&IdempotencyRecord>,
    act: impl FnOnce() -> Outcome<T>,
) -> Outcome<Written<T>> {
    let Some(record) = record else { return act().map(Written::Fresh) };
    if let Some((status, response)) = find(conn, cipher, &record.idempotency, record.idempotency.made_at())? {
        return Ok(Written::Replayed { status, response });
    }
    let done = act()?;
    conn.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (key, request, org, status, response, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        record.idempotency.key,
        record.idempotency.request,
        bellwire_core::IdKind::as_bytes(&record.org),
        record.status,
        seal_answer(cipher, record)?,
        record.idempotency.expires_at.as_millis(),
    ])?;
    Ok(Written::Fresh(done))
}

/// The answer stored under a key in the control file or in a segment, if it has not expired.
pub fn find(conn: &Connection, cipher: &Cipher, key: &Idempotency, now: Timestamp) -> Outcome<Option<(u16, Bytes)>> {
    let found = conn
        .prepare_cached(
            "SELECT request, org, status, response FROM idempotency WHERE key = ?1 AND expires_at > ?2 AND response IS NOT NULL",
        )?
        .query_row(params![key.key, now.as_millis()], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row::whole_id::<OrgId>(row, 1)?, row.get::<_, u16>(2)?, row.get::<_, Vec<u8>>(3)?))
        })
        .optional()?;
    let Some((request, org, status, sealed)) = found else { return Ok(None) };
    if request != key.request {
        return Err(StoreError::IdempotencyMismatch.into());
    }
    Ok(Some((status, open_answer(cipher, org, key, &sealed)?)))
}
