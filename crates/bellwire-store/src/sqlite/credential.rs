//! [`CredentialStore`] on `control.db`.

use async_trait::async_trait;
use bellwire_core::{ApiKeyId, AppId, IdKind, OrgId, Timestamp, TokenId};
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};

use super::{SqliteStore, idempotency, row};
use crate::{ApiKeyRecord, CredentialStore, Idempotency, IdempotencyRecord, Result, Written};

const COLUMNS: &str = "id, tail, org, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at";
/// Most keys a list shows.
const KEYS_LISTED_MAX: i64 = 1_000;
const MINUTE_MS: i64 = 60_000;

fn read(row: &Row<'_>) -> rusqlite::Result<ApiKeyRecord> {
    Ok(ApiKeyRecord {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        name: row.get(3)?,
        hash: row.get(4)?,
        scopes: row::from_json(row.get_ref(5)?.as_str()?).unwrap_or_default(),
        created_at: row::time(row, 6)?,
        expires_at: row::time_opt(row, 7)?,
        revoked_at: row::time_opt(row, 8)?,
        last_used_at: row::time_opt(row, 9)?,
    })
}

#[async_trait]
impl CredentialStore for SqliteStore {
    async fn create_api_key(&self, key: ApiKeyRecord, idem: Option<IdempotencyRecord>) -> Result<Written<ApiKeyRecord>> {
        let cipher = self.cipher.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || {
                let sql = format!("INSERT INTO api_key ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
                conn.prepare_cached(&sql)?.execute(params![
                    key.id.key(),
                    key.id.tail(),
                    key.org.as_bytes(),
                    key.name,
                    key.hash,
                    row::to_json(&key.scopes)?,
                    key.created_at.as_millis(),
                    key.expires_at.map(Timestamp::as_millis),
                    key.revoked_at.map(Timestamp::as_millis),
                    key.last_used_at.map(Timestamp::as_millis),
                ])?;
                Ok(key)
            })
        })
        .await
    }

    async fn get_api_key(&self, id: ApiKeyId) -> Result<Option<ApiKeyRecord>> {
        self.read(move |files| {
            let sql = format!("SELECT {COLUMNS} FROM api_key WHERE id = ?1 AND tail = ?2");
            Ok(files.control()?.prepare_cached(&sql)?.query_row(params![id.key(), id.tail()], read).optional()?)
        })
        .await
    }

    async fn list_api_keys(&self, org: Option<OrgId>) -> Result<Vec<ApiKeyRecord>> {
        self.read(move |files| {
            let sql = format!("SELECT {COLUMNS} FROM api_key WHERE (?1 IS NULL OR org = ?1) ORDER BY id DESC LIMIT ?2");
            let conn = files.control()?;
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![org.as_ref().map(IdKind::as_bytes), KEYS_LISTED_MAX], read)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn revoke_api_key(&self, org: Option<OrgId>, id: ApiKeyId, now: Timestamp) -> Result<bool> {
        self.write_freeing(move |files| {
            let sql = "UPDATE api_key SET revoked_at = coalesce(revoked_at, ?4) \
                 WHERE id = ?1 AND tail = ?2 AND (?3 IS NULL OR org = ?3)";
            let org = org.as_ref().map(IdKind::as_bytes);
            let changed = files.control.tx()?.prepare_cached(sql)?.execute(params![id.key(), id.tail(), org, now.as_millis()])?;
            Ok(changed > 0)
        })
        .await
    }

    async fn touch_api_key(&self, id: ApiKeyId, now: Timestamp) -> Result<()> {
        let minute = now.as_millis().div_euclid(MINUTE_MS) * MINUTE_MS;
        self.write(move |files| {
            let sql = "UPDATE api_key SET last_used_at = ?3 WHERE id = ?1 AND tail = ?2 AND coalesce(last_used_at, 0) < ?3";
            files.control.tx()?.prepare_cached(sql)?.execute(params![id.key(), id.tail(), minute])?;
            Ok(())
        })
        .await
    }

    async fn revoke_token(&self, token: TokenId, app: AppId, expires_at: Timestamp) -> Result<()> {
        self.write(move |files| {
            let sql = "INSERT OR REPLACE INTO revoked_token (id, app, expires_at) VALUES (?1, ?2, ?3)";
            let conn = files.control.tx()?;
            conn.prepare_cached(sql)?.execute(params![token.as_bytes(), app.as_bytes(), expires_at.as_millis()])?;
            Ok(())
        })
        .await
    }

    async fn is_token_revoked(&self, token: TokenId) -> Result<bool> {
        self.read(move |files| {
            let conn = files.control()?;
            let mut statement = conn.prepare_cached("SELECT 1 FROM revoked_token WHERE id = ?1")?;
            Ok(statement.exists(params![token.as_bytes()])?)
        })
        .await
    }

    async fn find_idempotent(&self, key: &Idempotency, now: Timestamp) -> Result<Option<(u16, Bytes)>> {
        let (key, cipher) = (*key, self.cipher.clone());
        let found = self.read(move |files| {
            if let Some(found) = idempotency::find(&*files.control()?, &cipher, &key, now)? {
                return Ok(Some(found));
            }
            // Resending keeps its key with the message.
            for segment in files.segments().iter().rev() {
                if let Some(conn) = files.open(segment)?
                    && let Some(found) = idempotency::find(&conn, &cipher, &key, now)?
                {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        });
        let found = found.await?;
        if found.is_some() {
            // A segment can be read before its log is synced. After a turn of the writer, what was read is durable.
            self.write(|_| Ok(())).await?;
        }
        Ok(found)
    }

    async fn store_idempotent(&self, record: IdempotencyRecord) -> Result<Written<()>> {
        let cipher = self.cipher.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, Some(&record), || Ok(()))
        })
        .await
    }
}
