//! [`EndpointStore`] on `control.db`. Signing keys and header values are sealed for the row they stand in.

use async_trait::async_trait;
use bellwire_core::{AppId, Application, Endpoint, EndpointHealth, EndpointId, IdKind, Page, PageQuery, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Outcome;
use super::{SqliteStore, application, idempotency, row};
use crate::endpoint::is_still;
use crate::keyset::Keyset;
use crate::sealed::{SealedEndpoint, seal_endpoint};
use crate::{Cipher, EndpointStore, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "id, tail, uid, url, description, event_types, channels, throttle_rate, disabled, metadata, headers, secret, \
     failing_since, created_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<SealedEndpoint> {
    Ok(SealedEndpoint {
        id: row::id(row, 0, 1)?,
        uid: row.get(2)?,
        url: row.get(3)?,
        description: row.get(4)?,
        event_types: row.get(5)?,
        channels: row.get(6)?,
        throttle_rate: row::rate(row, 7)?,
        disabled: row.get(8)?,
        metadata: row.get(9)?,
        headers: row.get(10)?,
        secret: row.get(11)?,
        failing_since: row::time_opt(row, 12)?,
        created_at: row::time(row, 13)?,
        updated_at: row::time(row, 14)?,
    })
}

/// A live endpoint of a live application; both.
pub fn get(conn: &Connection, cipher: &Cipher, id: EndpointId) -> Outcome<Option<(Application, Endpoint)>> {
    let sql = format!("SELECT {COLUMNS}, app FROM endpoint WHERE id = ?1 AND tail = ?2 AND deleted_at IS NULL");
    let found = conn
        .prepare_cached(&sql)?
        .query_row(params![id.key(), id.tail()], |row| Ok((read(row)?, row.get::<_, i64>(15)?)))
        .optional()?;
    let Some((sealed, app)) = found else { return Ok(None) };
    let Some(app) = of_key(conn, app)? else { return Ok(None) };
    let endpoint = sealed.open(cipher, app.org, app.id)?;
    Ok(Some((app, endpoint)))
}

/// As [`get`], of one that has to be there.
fn stored(conn: &Connection, cipher: &Cipher, id: EndpointId) -> Outcome<Endpoint> {
    Ok(get(conn, cipher, id)?.ok_or(StoreError::NotFound("endpoint"))?.1)
}

fn of_key(conn: &Connection, app: i64) -> Outcome<Option<Application>> {
    let tail: Option<[u8; 12]> = conn
        .prepare_cached("SELECT tail FROM application WHERE id = ?1 AND deleted_at IS NULL")?
        .query_row([app], |row| row.get(0))
        .optional()?;
    match tail {
        Some(tail) => application::get(conn, AppId::from_key_and_tail(app, tail)),
        None => Ok(None),
    }
}

/// The live application an endpoint is or will be in.
fn home(conn: &Connection, app: AppId) -> Outcome<Application> {
    Ok(application::get(conn, app)?.ok_or(StoreError::NotFound("application"))?)
}

fn check_uid(conn: &Connection, endpoint: &Endpoint) -> Outcome<()> {
    let Some(uid) = &endpoint.uid else { return Ok(()) };
    let taken = conn
        .prepare_cached("SELECT 1 FROM endpoint WHERE app = ?1 AND uid = ?2 AND id <> ?3 AND deleted_at IS NULL")?
        .exists(params![endpoint.app.key(), uid, endpoint.id.key()])?;
    if taken { Err(StoreError::Conflict { what: "uid", value: uid.clone() }.into()) } else { Ok(()) }
}

fn put(conn: &Connection, cipher: &Cipher, endpoint: &Endpoint, sql: &str) -> Outcome<()> {
    let app = home(conn, endpoint.app)?;
    check_uid(conn, endpoint)?;
    let (headers, secret) = seal_endpoint(cipher, app.org, endpoint)?;
    let json = |list: &Option<Vec<String>>| list.as_ref().map(row::to_json).transpose();
    conn.prepare_cached(sql)?.execute(params![
        endpoint.id.key(),
        endpoint.id.tail(),
        endpoint.app.key(),
        endpoint.uid,
        endpoint.url,
        endpoint.description,
        json(&endpoint.event_types)?,
        json(&endpoint.channels)?,
        endpoint.throttle_rate,
        endpoint.disabled,
        row::to_json(&endpoint.metadata)?,
        headers,
        secret,
        endpoint.health.failing_since.map(Timestamp::as_millis),
        endpoint.updated_at.as_millis(),
        endpoint.created_at.as_millis(),
    ])?;
    Ok(())
}

/// Makes tombstones of live endpoints: their secrets go, what old attempts show stays.
pub fn bury(conn: &Connection, which: &str, key: i64, now: Timestamp) -> Outcome<usize> {
    let sql = format!(
        "UPDATE endpoint SET deleted_at = ?2, uid = NULL, headers = NULL, secret = NULL, metadata = '{{}}' \
         WHERE {which} AND deleted_at IS NULL"
    );
    Ok(conn.prepare_cached(&sql)?.execute([key, now.as_millis()])?)
}

fn list(conn: &Connection, cipher: &Cipher, app: &Application, keyset: Option<&Keyset<i64>>) -> Outcome<Vec<Endpoint>> {
    let (beyond, order) = keyset.map_or((">", "ASC"), |keyset| (keyset.beyond_sql(), keyset.order_sql()));
    let sql = format!(
        "SELECT {COLUMNS} FROM endpoint WHERE app = ?1 AND deleted_at IS NULL AND id {beyond} ?2 ORDER BY id {order} LIMIT ?3"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let from = keyset.map_or(i64::MIN, Keyset::from);
    let rows = statement.query_map([app.id.key(), from, keyset.map_or(-1, Keyset::wanted_sql)], read)?;
    rows.map(|sealed| Ok(sealed?.open(cipher, app.org, app.id)?)).collect()
}

/// Replaces a row, but for what [`EndpointStore::change_endpoint`] leaves. ?16 is the creation time, which stays.
const REPLACE: &str = "UPDATE endpoint SET disabled = ?10, \
     failing_since = CASE WHEN disabled > ?10 THEN NULL ELSE failing_since END, \
     enabled_at = CASE WHEN disabled > ?10 THEN ?15 ELSE enabled_at END, \
     uid = ?4, url = ?5, description = ?6, event_types = ?7, channels = ?8, throttle_rate = ?9, metadata = ?11, headers = ?12, \
     secret = ?13, updated_at = ?15 \
     WHERE id = ?1 AND tail = ?2 AND app = ?3 AND deleted_at IS NULL AND ?16 IS NOT NULL";

#[async_trait]
impl EndpointStore for SqliteStore {
    async fn create_endpoint(&self, endpoint: Endpoint, idem: Option<IdempotencyRecord>) -> Result<Written<Endpoint>> {
        let cipher = self.cipher.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || {
                put(
                    conn,
                    &cipher,
                    &endpoint,
                    "INSERT INTO endpoint (id, tail, app, uid, url, description, event_types, channels, throttle_rate, disabled, \
                     metadata, headers, secret, failing_since, updated_at, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
                )?;
                Ok(endpoint)
            })
        })
        .await
    }

    async fn find_endpoint(&self, app: AppId, id_or_uid: &str) -> Result<Option<Endpoint>> {
        let (cipher, id_or_uid) = (self.cipher.clone(), id_or_uid.to_owned());
        self.read(move |files| {
            let conn = files.control()?;
            if let Ok(id) = id_or_uid.parse::<EndpointId>()
                && let Some((_, endpoint)) = get(&conn, &cipher, id)?
            {
                return Ok(Some(endpoint).filter(|endpoint| endpoint.app == app));
            }
            let Some(app) = application::get(&conn, app)? else { return Ok(None) };
            let sql = format!("SELECT {COLUMNS} FROM endpoint WHERE app = ?1 AND uid = ?2 AND deleted_at IS NULL");
            let found = conn.prepare_cached(&sql)?.query_row(params![app.id.key(), id_or_uid], read).optional()?;
            Ok(found.map(|sealed| sealed.open(&cipher, app.org, app.id)).transpose()?)
        })
        .await
    }

    async fn list_endpoints(&self, app: AppId, page: PageQuery<EndpointId>) -> Result<Page<Endpoint>> {
        let cipher = self.cipher.clone();
        let keyset = Keyset::of(page, |id| id.key());
        self.read(move |files| {
            let conn = files.control()?;
            let Some(app) = application::get(&conn, app)? else { return Ok(keyset.page(Vec::new())) };
            Ok(keyset.page(list(&conn, &cipher, &app, Some(&keyset))?))
        })
        .await
    }

    async fn endpoints_of(&self, app: AppId) -> Result<Vec<Endpoint>> {
        let cipher = self.cipher.clone();
        self.read(move |files| {
            let conn = files.control()?;
            match application::get(&conn, app)? {
                Some(app) => list(&conn, &cipher, &app, None),
                None => Ok(Vec::new()),
            }
        })
        .await
    }

    async fn endpoint_for_delivery(&self, id: EndpointId) -> Result<Option<(Application, Endpoint)>> {
        let cipher = self.cipher.clone();
        self.read(move |files| get(&*files.control()?, &cipher, id)).await
    }

    async fn change_endpoint(
        &self,
        read: &Endpoint,
        endpoint: Endpoint,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<Endpoint>> {
        let (cipher, read) = (self.cipher.clone(), read.clone());
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || {
                if !is_still(&read, &stored(conn, &cipher, read.id)?) {
                    return Err(StoreError::Outdated("endpoint").into());
                }
                put(conn, &cipher, &endpoint, REPLACE)?;
                stored(conn, &cipher, read.id)
            })
        })
        .await
    }

    async fn set_endpoint_health(&self, id: EndpointId, health: EndpointHealth, disable: bool, now: Timestamp) -> Result<bool> {
        self.write(move |files| {
            let conn = files.control.tx()?;
            let since = health.failing_since.map(Timestamp::as_millis);
            // Attempts under way while it was enabled again may still tell of the time before.
            let known = conn
                .prepare_cached(
                    "UPDATE endpoint SET failing_since = ?3 WHERE id = ?1 AND tail = ?2 AND deleted_at IS NULL \
                     AND (?3 IS NULL OR enabled_at IS NULL OR ?3 >= enabled_at)",
                )?
                .execute(params![id.key(), id.tail(), since])?;
            if !disable || known == 0 {
                return Ok(false);
            }
            let changed = conn
                .prepare_cached(
                    "UPDATE endpoint SET disabled = 1, updated_at = ?3 WHERE id = ?1 AND tail = ?2 AND disabled = 0 AND deleted_at IS NULL",
                )?
                .execute(params![id.key(), id.tail(), now.as_millis()])?;
            Ok(changed > 0)
        })
        .await
    }

    async fn delete_endpoint(&self, app: AppId, id: EndpointId, now: Timestamp) -> Result<bool> {
        self.write_freeing(move |files| {
            let conn = files.control.tx()?;
            let is_there = conn
                .prepare_cached("SELECT 1 FROM endpoint WHERE id = ?1 AND tail = ?2 AND app = ?3 AND deleted_at IS NULL")?
                .exists(params![id.key(), id.tail(), app.key()])?;
            Ok(is_there && bury(conn, "id = ?1", id.key(), now)? > 0)
        })
        .await
    }
}
