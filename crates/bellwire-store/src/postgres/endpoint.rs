//! [`EndpointStore`] on PostgreSQL. Signing keys and header values are sealed for the row they stand in.
//!
//! Every write locks the application's row first ([`application::touch`]), so that no two of them wait for each other.

use async_trait::async_trait;
use bellwire_core::{AppId, Application, Endpoint, EndpointHealth, EndpointId, IdKind, OrgId, Page, PageQuery, Timestamp};
use tokio_postgres::Row;

use super::connection::Conn;
use super::fault::Outcome;
use super::param::p;
use super::{PostgresStore, application, idempotency, row};
use crate::endpoint::is_still;
use crate::keyset::Keyset;
use crate::sealed::{SealedEndpoint, seal_endpoint};
use crate::{Cipher, EndpointStore, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "id, tail, uid, url, description, event_types, channels, throttle_rate, disabled, metadata, headers, secret, \
     failing_since, created_at, updated_at";

const INSERT: &str = "INSERT INTO endpoint (id, tail, app, uid, url, description, event_types, channels, throttle_rate, disabled, \
     metadata, headers, secret, failing_since, updated_at, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

/// Replaces a row, but for what [`EndpointStore::change_endpoint`] leaves. $14 and $16 are health and creation time, which stay;
/// named, because every parameter has to be.
const REPLACE: &str = "UPDATE endpoint SET disabled = $10, \
     failing_since = CASE WHEN disabled AND NOT $10 THEN NULL ELSE failing_since END, \
     enabled_at = CASE WHEN disabled AND NOT $10 THEN $15 ELSE enabled_at END, \
     uid = $4, url = $5, description = $6, event_types = $7, channels = $8, throttle_rate = $9, metadata = $11, headers = $12, \
     secret = $13, updated_at = $15 \
     WHERE id = $1 AND tail = $2 AND app = $3 AND deleted_at IS NULL AND ($14 IS NULL OR TRUE) AND $16 IS NOT NULL";

fn read(row: &Row) -> Outcome<SealedEndpoint> {
    Ok(SealedEndpoint {
        id: row::id(row, 0, 1)?,
        uid: row::get(row, 2)?,
        url: row::get(row, 3)?,
        description: row::get(row, 4)?,
        event_types: row::get(row, 5)?,
        channels: row::get(row, 6)?,
        throttle_rate: row::rate(row, 7)?,
        disabled: row::get(row, 8)?,
        metadata: row::get(row, 9)?,
        headers: row::get(row, 10)?,
        secret: row::get(row, 11)?,
        failing_since: row::time_opt(row, 12)?,
        created_at: row::time(row, 13)?,
        updated_at: row::time(row, 14)?,
    })
}

/// A live endpoint of a live application; both.
pub async fn get(conn: &Conn, cipher: &Cipher, id: EndpointId) -> Outcome<Option<(Application, Endpoint)>> {
    let sql = format!(
        "SELECT {COLUMNS}, app, (SELECT a.tail FROM application a WHERE a.id = endpoint.app) FROM endpoint \
         WHERE id = $1 AND tail = $2 AND deleted_at IS NULL"
    );
    let Some(found) = conn.query_opt(&sql, &[p(&id.key()), p(&row::tail(&id))]).await? else { return Ok(None) };
    let Some(app) = application::get(conn, row::id(&found, 15, 16)?).await? else { return Ok(None) };
    let endpoint = read(&found)?.open(cipher, app.org, app.id)?;
    Ok(Some((app, endpoint)))
}

/// As [`get`], of one that has to be there.
async fn stored(conn: &Conn, cipher: &Cipher, id: EndpointId) -> Outcome<Endpoint> {
    Ok(get(conn, cipher, id).await?.ok_or(StoreError::NotFound("endpoint"))?.1)
}

/// Inserts or replaces its row, sealed for the organisation that [`application::touch`] names. Conflict on the uid.
async fn put(conn: &Conn, cipher: &Cipher, org: OrgId, endpoint: &Endpoint, sql: &str) -> Outcome<()> {
    let (headers, secret) = seal_endpoint(cipher, org, endpoint)?;
    let json = |list: &Option<Vec<String>>| list.as_ref().map(row::to_json).transpose();
    conn.execute(
        sql,
        &[
            p(&endpoint.id.key()),
            p(&row::tail(&endpoint.id)),
            p(&endpoint.app.key()),
            p(&endpoint.uid),
            p(&endpoint.url),
            p(&endpoint.description),
            p(&json(&endpoint.event_types)?),
            p(&json(&endpoint.channels)?),
            p(&row::rate_sql(endpoint.throttle_rate)),
            p(&endpoint.disabled),
            p(&row::to_json(&endpoint.metadata)?),
            p(&headers),
            p(&secret),
            p(&endpoint.health.failing_since.map(Timestamp::as_millis)),
            p(&endpoint.updated_at.as_millis()),
            p(&endpoint.created_at.as_millis()),
        ],
    )
    .await
    .map(|_| ())
    .map_err(|fault| application::uid_conflict(fault, "endpoint_by_uid", endpoint.uid.as_ref()))
}

/// Makes tombstones of live endpoints: their secrets go, what old attempts show stays.
pub async fn bury(conn: &Conn, which: &str, key: i64, now: Timestamp) -> Outcome<u64> {
    let sql = format!(
        "UPDATE endpoint SET deleted_at = $2, uid = NULL, headers = NULL, secret = NULL, metadata = '{{}}' \
         WHERE {which} AND deleted_at IS NULL"
    );
    conn.execute(&sql, &[p(&key), p(&now.as_millis())]).await
}

/// Endpoints of a live application, of a page or all.
async fn list(conn: &Conn, cipher: &Cipher, app: AppId, keyset: &Keyset<i64>) -> Outcome<Vec<Endpoint>> {
    let Some(app) = application::get(conn, app).await? else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT {COLUMNS} FROM endpoint WHERE app = $1 AND deleted_at IS NULL AND id {} $2 ORDER BY id {} LIMIT $3",
        keyset.beyond_sql(),
        keyset.order_sql()
    );
    let rows = conn.query(&sql, &[p(&app.id.key()), p(&keyset.from()), p(&keyset.wanted_sql())]).await?;
    rows.iter().map(|row| Ok(read(row)?.open(cipher, app.org, app.id)?)).collect()
}

impl PostgresStore {
    async fn create_endpoint_inner(&self, endpoint: Endpoint, idem: Option<&IdempotencyRecord>) -> Outcome<Written<Endpoint>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            let org = application::touch(&tx, endpoint.app, endpoint.updated_at).await?;
            put(&tx, &self.cipher, org, &endpoint, INSERT).await?;
            Ok(Written::Fresh(endpoint))
        }
        .await;
        tx.end(result).await
    }

    async fn find_endpoint_inner(&self, app: AppId, id_or_uid: &str) -> Outcome<Option<Endpoint>> {
        let conn = self.db.get().await?;
        if let Ok(id) = id_or_uid.parse::<EndpointId>()
            && let Some((_, endpoint)) = get(&conn, &self.cipher, id).await?
        {
            return Ok(Some(endpoint).filter(|endpoint| endpoint.app == app));
        }
        let Some(app) = application::get(&conn, app).await? else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS} FROM endpoint WHERE app = $1 AND uid = $2 AND deleted_at IS NULL");
        let found = conn.query_opt(&sql, &[p(&app.id.key()), p(&id_or_uid)]).await?;
        found.map(|row| Ok(read(&row)?.open(&self.cipher, app.org, app.id)?)).transpose()
    }

    async fn change_endpoint_inner(
        &self,
        read: &Endpoint,
        endpoint: Endpoint,
        idem: Option<&IdempotencyRecord>,
    ) -> Outcome<Written<Endpoint>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            // Differs from SQLite, whose writes come one after another anyway: whoever writes to the endpoint waits for its
            // application's row from here on, and what is compared is what others have committed until now.
            let org = application::touch(&tx, read.app, endpoint.updated_at).await?;
            if !is_still(read, &stored(&tx, &self.cipher, read.id).await?) {
                return Err(StoreError::Outdated("endpoint").into());
            }
            put(&tx, &self.cipher, org, &endpoint, REPLACE).await?;
            Ok(Written::Fresh(stored(&tx, &self.cipher, read.id).await?))
        }
        .await;
        tx.end(result).await
    }

    async fn set_health(&self, id: EndpointId, health: EndpointHealth, disable: bool, now: Timestamp) -> Outcome<bool> {
        // Attempts under way while it was enabled again may still tell of the time before.
        const NOTE: &str = "UPDATE endpoint SET failing_since = $3 WHERE id = $1 AND tail = $2 AND deleted_at IS NULL \
             AND ($3 IS NULL OR enabled_at IS NULL OR $3 >= enabled_at)";
        let (key, tail) = (id.key(), row::tail(&id));
        let since = health.failing_since.map(Timestamp::as_millis);
        let mut conn = self.db.get().await?;
        if !disable {
            conn.execute(NOTE, &[p(&key), p(&tail), p(&since)]).await?;
            return Ok(false);
        }
        let tx = conn.begin().await?;
        let result = async {
            let sql = "SELECT a.id, a.tail FROM application a JOIN endpoint e ON e.app = a.id \
                 WHERE e.id = $1 AND e.tail = $2 AND e.deleted_at IS NULL AND a.deleted_at IS NULL FOR NO KEY UPDATE OF a";
            let Some(app) = tx.query_opt(sql, &[p(&key), p(&tail)]).await? else { return Ok(false) };
            if tx.execute(NOTE, &[p(&key), p(&tail), p(&since)]).await? == 0 {
                return Ok(false);
            }
            let sql = "UPDATE endpoint SET disabled = TRUE, updated_at = $3 \
                 WHERE id = $1 AND tail = $2 AND NOT disabled AND deleted_at IS NULL";
            let is_disabled = tx.execute(sql, &[p(&key), p(&tail), p(&now.as_millis())]).await? > 0;
            if is_disabled {
                application::touch(&tx, row::id(&app, 0, 1)?, now).await?;
            }
            Ok(is_disabled)
        }
        .await;
        tx.end(result).await
    }

    async fn delete_endpoint_inner(&self, app: AppId, id: EndpointId, now: Timestamp) -> Outcome<bool> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            application::touch(&tx, app, now).await?;
            let sql = "SELECT 1 FROM endpoint WHERE id = $1 AND tail = $2 AND app = $3 AND deleted_at IS NULL";
            let is_there = tx.query_opt(sql, &[p(&id.key()), p(&row::tail(&id)), p(&app.key())]).await?.is_some();
            if !is_there {
                return Err(StoreError::NotFound("endpoint").into());
            }
            bury(&tx, "id = $1", id.key(), now).await
        }
        .await;
        match tx.end(result).await.map_err(StoreError::from) {
            Ok(buried) => Ok(buried > 0),
            // Rolled back: nothing has changed, so no version goes up.
            Err(StoreError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[async_trait]
impl EndpointStore for PostgresStore {
    async fn create_endpoint(&self, endpoint: Endpoint, idem: Option<IdempotencyRecord>) -> Result<Written<Endpoint>> {
        Ok(self.create_endpoint_inner(endpoint, idem.as_ref()).await?)
    }

    async fn find_endpoint(&self, app: AppId, id_or_uid: &str) -> Result<Option<Endpoint>> {
        Ok(self.find_endpoint_inner(app, id_or_uid).await?)
    }

    async fn list_endpoints(&self, app: AppId, page: PageQuery<EndpointId>) -> Result<Page<Endpoint>> {
        let keyset = Keyset::of(page, |id| id.key());
        let conn = self.db.get().await?;
        Ok(keyset.page(list(&conn, &self.cipher, app, &keyset).await?))
    }

    async fn endpoints_of(&self, app: AppId) -> Result<Vec<Endpoint>> {
        let conn = self.db.get().await?;
        Ok(list(&conn, &self.cipher, app, &Keyset::ascending(None)).await?)
    }

    async fn endpoint_for_delivery(&self, id: EndpointId) -> Result<Option<(Application, Endpoint)>> {
        let conn = self.db.get().await?;
        Ok(get(&conn, &self.cipher, id).await?)
    }

    async fn change_endpoint(
        &self,
        read: &Endpoint,
        endpoint: Endpoint,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<Endpoint>> {
        Ok(self.change_endpoint_inner(read, endpoint, idem.as_ref()).await?)
    }

    async fn set_endpoint_health(&self, id: EndpointId, health: EndpointHealth, disable: bool, now: Timestamp) -> Result<bool> {
        Ok(self.set_health(id, health, disable, now).await?)
    }

    async fn delete_endpoint(&self, app: AppId, id: EndpointId, now: Timestamp) -> Result<bool> {
        Ok(self.delete_endpoint_inner(app, id, now).await?)
    }
}
