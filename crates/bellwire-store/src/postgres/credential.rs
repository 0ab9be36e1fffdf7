//! [`CredentialStore`] on PostgreSQL.

use async_trait::async_trait;
use bellwire_core::{ApiKeyId, AppId, IdKind, OrgId, Timestamp, TokenId};
use bytes::Bytes;
use tokio_postgres::Row;

use super::fault::Outcome;
use super::param::p;
use super::{PostgresStore, idempotency, row};
use crate::{ApiKeyRecord, CredentialStore, Idempotency, IdempotencyRecord, Result, Written};

const COLUMNS: &str = "id, tail, org, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at";
/// Most keys a list shows.
const KEYS_LISTED_MAX: i64 = 1_000;
const MINUTE_MS: i64 = 60_000;

fn read(row: &Row) -> Outcome<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        name: row::get(row, 3)?,
        hash: row::fixed(row, 4)?,
        scopes: row::from_json(row::get(row, 5)?).unwrap_or_default(),
        created_at: row::time(row, 6)?,
        expires_at: row::time_opt(row, 7)?,
        revoked_at: row::time_opt(row, 8)?,
        last_used_at: row::time_opt(row, 9)?,
    })
}

impl PostgresStore {
    async fn create_api_key_inner(&self, key: ApiKeyRecord, idem: Option<&IdempotencyRecord>) -> Outcome<Written<ApiKeyRecord>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            let sql = format!("INSERT INTO api_key ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
            tx.execute(
                &sql,
                &[
                    p(&key.id.key()),
                    p(&row::tail(&key.id)),
                    p(&row::bytes(&key.org)),
                    p(&key.name),
                    p(&key.hash.as_slice()),
                    p(&row::to_json(&key.scopes)?),
                    p(&key.created_at.as_millis()),
                    p(&key.expires_at.map(Timestamp::as_millis)),
                    p(&key.revoked_at.map(Timestamp::as_millis)),
                    p(&key.last_used_at.map(Timestamp::as_millis)),
                ],
            )
            .await?;
            Ok(Written::Fresh(key))
        }
        .await;
        tx.end(result).await
    }

    async fn store_idempotent_inner(&self, record: &IdempotencyRecord) -> Outcome<Written<()>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let claimed = idempotency::claim(&tx, &self.cipher, Some(record)).await;
        tx.end(claimed.map(|replayed| replayed.unwrap_or(Written::Fresh(())))).await
    }
}

#[async_trait]
impl CredentialStore for PostgresStore {
    async fn create_api_key(&self, key: ApiKeyRecord, idem: Option<IdempotencyRecord>) -> Result<Written<ApiKeyRecord>> {
        Ok(self.create_api_key_inner(key, idem.as_ref()).await?)
    }

    async fn get_api_key(&self, id: ApiKeyId) -> Result<Option<ApiKeyRecord>> {
        let conn = self.db.get().await?;
        let sql = format!("SELECT {COLUMNS} FROM api_key WHERE id = $1 AND tail = $2");
        let found = conn.query_opt(&sql, &[p(&id.key()), p(&row::tail(&id))]).await?;
        Ok(found.as_ref().map(read).transpose()?)
    }

    async fn list_api_keys(&self, org: Option<OrgId>) -> Result<Vec<ApiKeyRecord>> {
        let conn = self.db.get().await?;
        let sql = format!("SELECT {COLUMNS} FROM api_key WHERE ($1 IS NULL OR org = $1) ORDER BY id DESC LIMIT $2");
        let rows = conn.query(&sql, &[p(&org.as_ref().map(row::bytes)), p(&KEYS_LISTED_MAX)]).await?;
        Ok(rows.iter().map(read).collect::<Outcome<_>>()?)
    }

    async fn revoke_api_key(&self, org: Option<OrgId>, id: ApiKeyId, now: Timestamp) -> Result<bool> {
        let conn = self.db.get().await?;
        let sql = "UPDATE api_key SET revoked_at = coalesce(revoked_at, $4) \
             WHERE id = $1 AND tail = $2 AND ($3 IS NULL OR org = $3)";
        let org = org.as_ref().map(row::bytes);
        Ok(conn.execute(sql, &[p(&id.key()), p(&row::tail(&id)), p(&org), p(&now.as_millis())]).await? > 0)
    }

    async fn touch_api_key(&self, id: ApiKeyId, now: Timestamp) -> Result<()> {
        let minute = now.as_millis().div_euclid(MINUTE_MS) * MINUTE_MS;
        let conn = self.db.get().await?;
        let sql = "UPDATE api_key SET last_used_at = $3 WHERE id = $1 AND tail = $2 AND coalesce(last_used_at, 0) < $3";
        conn.execute(sql, &[p(&id.key()), p(&row::tail(&id)), p(&minute)]).await?;
        Ok(())
    }

    async fn revoke_token(&self, token: TokenId, app: AppId, expires_at: Timestamp) -> Result<()> {
        let conn = self.db.get().await?;
        let sql = "INSERT INTO revoked_token (id, app, expires_at) VALUES ($1, $2, $3) \
             ON CONFLICT (id) DO UPDATE SET app = excluded.app, expires_at = excluded.expires_at";
        conn.execute(sql, &[p(&row::bytes(&token)), p(&row::bytes(&app)), p(&expires_at.as_millis())]).await?;
        Ok(())
    }

    async fn is_token_revoked(&self, token: TokenId) -> Result<bool> {
        let conn = self.db.get().await?;
        Ok(conn.query_opt("SELECT 1 FROM revoked_token WHERE id = $1", &[p(&row::bytes(&token))]).await?.is_some())
    }

    async fn find_idempotent(&self, key: &Idempotency, now: Timestamp) -> Result<Option<(u16, Bytes)>> {
        let conn = self.db.get().await?;
        Ok(idempotency::find(&conn, &self.cipher, key, now).await?)
    }

    async fn store_idempotent(&self, record: IdempotencyRecord) -> Result<Written<()>> {
        Ok(self.store_idempotent_inner(&record).await?)
    }
}
