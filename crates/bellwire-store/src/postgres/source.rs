//! [`SourceStore`]: sources and their logs.

use async_trait::async_trait;
use bellwire_core::{
    Application, IdKind, MessageId, Metadata, OrgId, Page, PageQuery, ReceiptId, Secret, Source, SourceId, Timestamp, limits,
};
use tokio_postgres::Row;

use super::connection::Conn;
use super::fault::Outcome;
use super::param::{Param, p};
use super::row::{self, get};
use super::{PostgresStore, application, idempotency};
use crate::keyset::Keyset;
use crate::source::{self, Receipt, Sealed, SourceStore, StateChange};
use crate::{Cipher, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "id, tail, org, app, is_app_own, uid, name, kind, settings, metadata, created_at, updated_at, token_hash, token, \
     config, state";
const RECEIPT_COLUMNS: &str = "id, tail, status, reason, detail, duplicate_of, payload, headers, at";

fn read(row: &Row, cipher: &Cipher) -> Outcome<Source> {
    let source = Source {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        app: row::whole_id(row, 3)?,
        is_app_own: get(row, 4)?,
        uid: get(row, 5)?,
        name: get(row, 6)?,
        kind: get(row, 7)?,
        token: Secret::new(""),
        config: Default::default(),
        settings: row::from_json(get(row, 8)?)?,
        state: Default::default(),
        metadata: row::from_json(get(row, 9)?).unwrap_or_else(|_| Metadata::new()),
        created_at: row::time(row, 10)?,
        updated_at: row::time(row, 11)?,
    };
    let sealed = Sealed { token_hash: get(row, 12)?, token: get(row, 13)?, config: get(row, 14)?, state: get(row, 15)? };
    Ok(source::open(cipher, source, &sealed)?)
}

async fn find(conn: &Conn, cipher: &Cipher, condition: &str, values: &[Param<'_>]) -> Outcome<Option<Source>> {
    let sql = format!("SELECT {COLUMNS} FROM source WHERE {condition}");
    conn.query_opt(&sql, values).await?.map(|row| read(&row, cipher)).transpose()
}

async fn insert(conn: &Conn, cipher: &Cipher, source: &Source) -> Outcome<()> {
    let sealed = source::seal(cipher, source)?;
    let sql =
        format!("INSERT INTO source ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)");
    let inserted = conn
        .execute(
            &sql,
            &[
                p(&source.id.key()),
                p(&row::tail(&source.id)),
                p(&row::bytes(&source.org)),
                p(&row::bytes(&source.app)),
                p(&source.is_app_own),
                p(&source.uid),
                p(&source.name),
                p(&source.kind),
                p(&row::to_json(&source.settings)?),
                p(&row::to_json(&source.metadata)?),
                p(&source.created_at.as_millis()),
                p(&source.updated_at.as_millis()),
                p(&sealed.token_hash),
                p(&sealed.token),
                p(&sealed.config),
                p(&sealed.state),
            ],
        )
        .await;
    inserted.map(|_| ()).map_err(|fault| application::uid_conflict(fault, "source_by_uid", source.uid.as_ref()))
}

async fn update(conn: &Conn, cipher: &Cipher, source: &Source) -> Outcome<()> {
    let sealed = source::seal(cipher, source)?;
    let updated = conn
        .execute(
            "UPDATE source SET uid = $3, name = $4, kind = $5, settings = $6, metadata = $7, updated_at = $8, token_hash = $9, \
             token = $10, config = $11 WHERE id = $1 AND tail = $2",
            &[
                p(&source.id.key()),
                p(&row::tail(&source.id)),
                p(&source.uid),
                p(&source.name),
                p(&source.kind),
                p(&row::to_json(&source.settings)?),
                p(&row::to_json(&source.metadata)?),
                p(&source.updated_at.as_millis()),
                p(&sealed.token_hash),
                p(&sealed.token),
                p(&sealed.config),
            ],
        )
        .await;
    updated.map(|_| ()).map_err(|fault| application::uid_conflict(fault, "source_by_uid", source.uid.as_ref()))
}

fn read_receipt(row: &Row, source: SourceId) -> Outcome<Receipt> {
    let duplicate_of: Option<&[u8]> = get(row, 5)?;
    let duplicate_of = duplicate_of
        .map(|bytes| bytes.try_into().map(MessageId::from_bytes))
        .transpose()
        .map_err(|_| StoreError::Corrupt("a receipt names a message of another width".to_owned()))?;
    Ok(Receipt {
        id: row::id(row, 0, 1)?,
        source,
        status: u16::try_from(get::<i32>(row, 2)?).unwrap_or(0),
        reason: get(row, 3)?,
        detail: get(row, 4)?,
        duplicate_of,
        payload: get::<Option<Vec<u8>>>(row, 6)?.map(Into::into),
        headers: row::from_json(get(row, 7)?).unwrap_or_default(),
        at: row::time(row, 8)?,
    })
}

impl PostgresStore {
    async fn create_source_inner(
        &self,
        source: Source,
        application: Option<&Application>,
        idem: Option<&IdempotencyRecord>,
    ) -> Outcome<Written<Source>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            if let Some(application) = application {
                application::insert(&tx, application).await?;
            }
            insert(&tx, &self.cipher, &source).await?;
            Ok(Written::Fresh(source))
        }
        .await;
        tx.end(result).await
    }

    async fn change_source_inner(
        &self,
        read: &Source,
        source: Source,
        idem: Option<&IdempotencyRecord>,
    ) -> Outcome<Written<Source>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            // Differs from SQLite, whose writes come one after another anyway: the row is locked before it is compared.
            let condition = "id = $1 AND tail = $2 FOR NO KEY UPDATE";
            let stored = find(&tx, &self.cipher, condition, &[p(&read.id.key()), p(&row::tail(&read.id))]).await?;
            if !source::is_still(read, &stored.ok_or(StoreError::NotFound("source"))?) {
                return Err(StoreError::Outdated("source").into());
            }
            update(&tx, &self.cipher, &source).await?;
            Ok(Written::Fresh(source))
        }
        .await;
        tx.end(result).await
    }

    async fn find_source_inner(&self, org: OrgId, id_or_uid: &str) -> Outcome<Option<Source>> {
        let conn = self.db.get().await?;
        let org = row::bytes(&org);
        if let Ok(id) = id_or_uid.parse::<SourceId>() {
            let condition = "id = $1 AND tail = $2 AND org = $3";
            let found = find(&conn, &self.cipher, condition, &[p(&id.key()), p(&row::tail(&id)), p(&org)]).await?;
            if let Some(found) = found {
                return Ok(Some(found));
            }
        }
        find(&conn, &self.cipher, "org = $1 AND uid = $2", &[p(&org), p(&id_or_uid)]).await
    }

    async fn list_sources_inner(&self, org: OrgId, keyset: &Keyset<i64>) -> Outcome<Page<Source>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM source WHERE org = $1 AND id {} $2 ORDER BY id {} LIMIT $3",
            keyset.beyond_sql(),
            keyset.order_sql()
        );
        let conn = self.db.get().await?;
        let rows = conn.query(&sql, &[p(&row::bytes(&org)), p(&keyset.from()), p(&keyset.wanted_sql())]).await?;
        Ok(keyset.page(rows.iter().map(|row| read(row, &self.cipher)).collect::<Outcome<_>>()?))
    }

    async fn set_state(&self, id: SourceId, values: StateChange, unless: Option<&str>, now: Timestamp) -> Outcome<bool> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            // SQLite has one writer; here the row's lock makes those who come at once take turns.
            let condition = "id = $1 AND tail = $2 FOR UPDATE";
            let found = find(&tx, &self.cipher, condition, &[p(&id.key()), p(&row::tail(&id))]).await?;
            let Some(mut source) = found else { return Err(StoreError::NotFound("source").into()) };
            if !source::change_state(&mut source.state, values, unless) {
                return Ok(false);
            }
            let state = source::seal_secrets(&self.cipher, source.org, id, "state", &source.state)?;
            let sql = "UPDATE source SET state = $2, updated_at = $3 WHERE id = $1";
            tx.execute(sql, &[p(&id.key()), p(&state), p(&now.as_millis())]).await?;
            Ok(true)
        }
        .await;
        tx.end(result).await
    }

    async fn remove_source(&self, org: OrgId, id: SourceId, now: Timestamp) -> Outcome<bool> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            let sql = "DELETE FROM source WHERE id = $1 AND tail = $2 AND org = $3 RETURNING app, is_app_own";
            let gone = tx.query_opt(sql, &[p(&id.key()), p(&row::tail(&id)), p(&row::bytes(&org))]).await?;
            let Some(gone) = gone else { return Ok(false) };
            tx.execute("DELETE FROM receipt WHERE source = $1", &[p(&id.key())]).await?;
            if get(&gone, 1)? {
                application::bury(&tx, org, row::whole_id(&gone, 0)?, now).await?;
            }
            Ok(true)
        }
        .await;
        tx.end(result).await
    }

    async fn insert_receipts(&self, receipts: &[Receipt]) -> Outcome<()> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
        let mut sources = Vec::new();
        for receipt in receipts {
            let sql = format!(
                "INSERT INTO receipt ({RECEIPT_COLUMNS}, source) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING"
            );
            tx.execute(
                &sql,
                &[
                    p(&receipt.id.key()),
                    p(&row::tail(&receipt.id)),
                    p(&i32::from(receipt.status)),
                    p(&receipt.reason),
                    p(&receipt.detail),
                    p(&receipt.duplicate_of.as_ref().map(row::bytes)),
                    p(&receipt.payload.as_ref().map(|payload| payload.to_vec())),
                    p(&row::to_json(&receipt.headers)?),
                    p(&receipt.at.as_millis()),
                    p(&receipt.source.key()),
                ],
            )
            .await?;
            sources.push(receipt.source.key());
        }
        sources.sort_unstable();
        sources.dedup();
        for source in sources {
            tx.execute(
                "DELETE FROM receipt WHERE source = $1 AND id <= \
                 (SELECT id FROM receipt WHERE source = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
                &[p(&source), p(&limits::SOURCE_LOG_ENTRIES_KEPT)],
            )
            .await?;
        }
        Ok(())
        }
        .await;
        tx.end(result).await
    }
}

#[async_trait]
impl SourceStore for PostgresStore {
    async fn create_source(
        &self,
        source: Source,
        application: Option<Application>,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<Source>> {
        Ok(self.create_source_inner(source, application.as_ref(), idem.as_ref()).await?)
    }

    async fn find_source(&self, org: OrgId, id_or_uid: &str) -> Result<Option<Source>> {
        Ok(self.find_source_inner(org, id_or_uid).await?)
    }

    async fn find_source_by_token(&self, token: &str) -> Result<Option<Source>> {
        let conn = self.db.get().await?;
        Ok(find(&conn, &self.cipher, "token_hash = $1", &[p(&source::token_hash(token))]).await?)
    }

    async fn list_sources(&self, org: OrgId, page: PageQuery<SourceId>) -> Result<Page<Source>> {
        Ok(self.list_sources_inner(org, &Keyset::of(page, |id| id.key())).await?)
    }

    async fn sources_of_kind(&self, kind: &str) -> Result<Vec<Source>> {
        let sql = format!("SELECT {COLUMNS} FROM source WHERE kind = $1 ORDER BY id LIMIT $2");
        let conn = self.db.get().await?;
        let rows = conn.query(&sql, &[p(&kind), p(&limits::CRON_SOURCES_MAX)]).await?;
        Ok(rows.iter().map(|row| read(row, &self.cipher)).collect::<Outcome<_>>()?)
    }

    async fn change_source(&self, read: &Source, source: Source, idem: Option<IdempotencyRecord>) -> Result<Written<Source>> {
        Ok(self.change_source_inner(read, source, idem.as_ref()).await?)
    }

    async fn set_source_state(&self, id: SourceId, values: StateChange, unless: Option<&str>, now: Timestamp) -> Result<bool> {
        Ok(self.set_state(id, values, unless, now).await?)
    }

    async fn delete_source(&self, org: OrgId, id: SourceId, now: Timestamp) -> Result<bool> {
        Ok(self.remove_source(org, id, now).await?)
    }

    async fn add_receipts(&self, receipts: Vec<Receipt>) -> Result<()> {
        Ok(self.insert_receipts(&receipts).await?)
    }

    async fn list_receipts(&self, source: SourceId, page: PageQuery<ReceiptId>) -> Result<Page<Receipt>> {
        let keyset = Keyset::of(page, |id| id.key());
        let sql = format!(
            "SELECT {RECEIPT_COLUMNS} FROM receipt WHERE source = $1 AND id {} $2 ORDER BY id {} LIMIT $3",
            keyset.beyond_sql(),
            keyset.order_sql()
        );
        let conn = self.db.get().await?;
        let rows = conn.query(&sql, &[p(&source.key()), p(&keyset.from()), p(&keyset.wanted_sql())]).await?;
        Ok(keyset.page(rows.iter().map(|row| read_receipt(row, source)).collect::<Outcome<_>>()?))
    }
}
