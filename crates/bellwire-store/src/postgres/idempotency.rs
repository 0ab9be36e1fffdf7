//! Idempotency records of everything but publishing: claimed in the transaction of what they stand for.

use bellwire_core::{OrgId, Timestamp};
use bytes::Bytes;

use super::connection::Conn;
use super::fault::Outcome;
use super::param::p;
use super::row;
use crate::sealed::{open_answer, seal_answer};
use crate::{Cipher, Idempotency, IdempotencyRecord, StoreError, Written};

/// How often a key is tried that is neither free nor there: it was freed in between.
const CLAIMS_MAX: usize = 3;

/// Takes the key for what the caller is about to write in the same transaction, before anything else is locked. `Some`: it was
/// taken before, and this is the answer of that time. Whoever has the key in another transaction is waited for.
pub async fn claim<T>(conn: &Conn, cipher: &Cipher, record: Option<&IdempotencyRecord>) -> Outcome<Option<Written<T>>> {
    let Some(record) = record else { return Ok(None) };
    let key = &record.idempotency;
    let sealed = seal_answer(cipher, record)?;
    for _ in 0..CLAIMS_MAX {
        let sql = "INSERT INTO idempotency (key, request, org, status, response, expires_at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (key) DO UPDATE SET request = excluded.request, message = NULL, tail = NULL, org = excluded.org, \
             status = excluded.status, response = excluded.response, expires_at = excluded.expires_at \
             WHERE idempotency.expires_at <= $7";
        let claimed = conn
            .execute(
                sql,
                &[
                    p(&key.key.as_slice()),
                    p(&key.request.as_slice()),
                    p(&row::bytes(&record.org)),
                    p(&status_sql(record.status)),
                    p(&sealed),
                    p(&key.expires_at.as_millis()),
                    p(&key.made_at().as_millis()),
                ],
            )
            .await?;
        if claimed > 0 {
            return Ok(None);
        }
        if let Some((status, response)) = find(conn, cipher, key, key.made_at()).await? {
            return Ok(Some(Written::Replayed { status, response }));
        }
    }
    Err(StoreError::Busy("the idempotency key is in use").into())
}

/// The answer stored under a key, if it has not expired.
pub async fn find(conn: &Conn, cipher: &Cipher, key: &Idempotency, now: Timestamp) -> Outcome<Option<(u16, Bytes)>> {
    let sql = "SELECT request, org, status, response FROM idempotency \
         WHERE key = $1 AND expires_at > $2 AND response IS NOT NULL";
    let Some(found) = conn.query_opt(sql, &[p(&key.key.as_slice()), p(&now.as_millis())]).await? else { return Ok(None) };
    if row::fixed::<16>(&found, 0)? != key.request {
        return Err(StoreError::IdempotencyMismatch.into());
    }
    let org: OrgId = row::whole_id(&found, 1)?;
    let status = u16::try_from(row::get::<i16>(&found, 2)?).unwrap_or(0);
    Ok(Some((status, open_answer(cipher, org, key, row::get(&found, 3)?)?)))
}

/// HTTP knows three digits.
fn status_sql(status: u16) -> i16 {
    i16::try_from(status).unwrap_or(i16::MAX)
}
