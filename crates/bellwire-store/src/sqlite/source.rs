//! [`SourceStore`] on `control.db`.

use async_trait::async_trait;
use bellwire_core::{
    Application, IdKind, MessageId, Metadata, OrgId, Page, PageQuery, ReceiptId, Secret, Source, SourceId, Timestamp, limits,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Outcome;
use super::{SqliteStore, application, endpoint, idempotency, row};
use crate::keyset::Keyset;
use crate::source::{self, Receipt, Sealed, SourceStore, StateChange};
use crate::{Cipher, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "id, tail, org, app, is_app_own, uid, name, kind, settings, metadata, created_at, updated_at, token_hash, token, \
     config, state";
const RECEIPT_COLUMNS: &str = "id, tail, status, reason, detail, duplicate_of, payload, headers, at";

/// A row before its secrets are opened.
type Found = (Source, Sealed, String);

fn read(row: &Row<'_>) -> rusqlite::Result<Found> {
    let source = Source {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        app: row::whole_id(row, 3)?,
        is_app_own: row.get(4)?,
        uid: row.get(5)?,
        name: row.get(6)?,
        kind: row.get(7)?,
        token: Secret::new(""),
        config: Default::default(),
        settings: Default::default(),
        state: Default::default(),
        metadata: row::from_json(row.get_ref(9)?.as_str()?).unwrap_or_else(|_| Metadata::new()),
        created_at: row::time(row, 10)?,
        updated_at: row::time(row, 11)?,
    };
    let sealed = Sealed { token_hash: row.get(12)?, token: row.get(13)?, config: row.get(14)?, state: row.get(15)? };
    Ok((source, sealed, row.get(8)?))
}

fn open(cipher: &Cipher, found: Found) -> Outcome<Source> {
    let (mut source, sealed, settings) = found;
    source.settings = row::from_json(&settings)?;
    Ok(source::open(cipher, source, &sealed)?)
}

fn find(conn: &Connection, cipher: &Cipher, condition: &str, values: &[&dyn rusqlite::ToSql]) -> Outcome<Option<Source>> {
    let sql = format!("SELECT {COLUMNS} FROM source WHERE {condition}");
    let found = conn.prepare_cached(&sql)?.query_row(values, read).optional()?;
    found.map(|found| open(cipher, found)).transpose()
}

/// Conflict if another source of the organisation has this uid.
fn check_uid(conn: &Connection, source: &Source) -> Outcome<()> {
    let Some(uid) = &source.uid else { return Ok(()) };
    let taken = conn.prepare_cached("SELECT 1 FROM source WHERE org = ?1 AND uid = ?2 AND id <> ?3")?.exists(params![
        source.org.as_bytes(),
        uid,
        source.id.key()
    ])?;
    if taken { Err(StoreError::Conflict { what: "uid", value: uid.clone() }.into()) } else { Ok(()) }
}

fn insert(conn: &Connection, cipher: &Cipher, source: &Source) -> Outcome<()> {
    check_uid(conn, source)?;
    let sealed = source::seal(cipher, source)?;
    let sql =
        format!("INSERT INTO source ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)");
    conn.prepare_cached(&sql)?.execute(params![
        source.id.key(),
        source.id.tail(),
        source.org.as_bytes(),
        source.app.as_bytes(),
        source.is_app_own,
        source.uid,
        source.name,
        source.kind,
        row::to_json(&source.settings)?,
        row::to_json(&source.metadata)?,
        source.created_at.as_millis(),
        source.updated_at.as_millis(),
        sealed.token_hash,
        sealed.token,
        sealed.config,
        sealed.state,
    ])?;
    Ok(())
}

fn update(conn: &Connection, cipher: &Cipher, source: &Source) -> Outcome<()> {
    check_uid(conn, source)?;
    let sealed = source::seal(cipher, source)?;
    conn.prepare_cached(
        "UPDATE source SET uid = ?3, name = ?4, kind = ?5, settings = ?6, metadata = ?7, updated_at = ?8, token_hash = ?9, \
         token = ?10, config = ?11 WHERE id = ?1 AND tail = ?2",
    )?
    .execute(params![
        source.id.key(),
        source.id.tail(),
        source.uid,
        source.name,
        source.kind,
        row::to_json(&source.settings)?,
        row::to_json(&source.metadata)?,
        source.updated_at.as_millis(),
        sealed.token_hash,
        sealed.token,
        sealed.config,
    ])?;
    Ok(())
}

fn read_receipt(row: &Row<'_>, source: SourceId) -> rusqlite::Result<Receipt> {
    Ok(Receipt {
        id: row::id(row, 0, 1)?,
        source,
        status: row.get(2)?,
        reason: row.get(3)?,
        detail: row.get(4)?,
        duplicate_of: row.get::<_, Option<[u8; 20]>>(5)?.map(MessageId::from_bytes),
        payload: row.get::<_, Option<Vec<u8>>>(6)?.map(Into::into),
        headers: row::from_json(row.get_ref(7)?.as_str()?).unwrap_or_default(),
        at: row::time(row, 8)?,
    })
}

#[async_trait]
impl SourceStore for SqliteStore {
    async fn create_source(
        &self,
        source: Source,
        application: Option<Application>,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<Source>> {
        let cipher = self.cipher.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || {
                if let Some(application) = &application {
                    application::insert(conn, application)?;
                }
                insert(conn, &cipher, &source)?;
                Ok(source)
            })
        })
        .await
    }

    async fn find_source(&self, org: OrgId, id_or_uid: &str) -> Result<Option<Source>> {
        let (cipher, text) = (self.cipher.clone(), id_or_uid.to_owned());
        self.read(move |files| {
            let conn = files.control()?;
            if let Ok(id) = text.parse::<SourceId>() {
                let condition = "id = ?1 AND tail = ?2 AND org = ?3";
                if let Some(found) = find(&conn, &cipher, condition, &[&id.key(), &id.tail(), org.as_bytes()])? {
                    return Ok(Some(found));
                }
            }
            find(&conn, &cipher, "org = ?1 AND uid = ?2", &[org.as_bytes(), &text])
        })
        .await
    }

    async fn find_source_by_token(&self, token: &str) -> Result<Option<Source>> {
        let (cipher, hash) = (self.cipher.clone(), source::token_hash(token));
        self.read(move |files| find(&*files.control()?, &cipher, "token_hash = ?1", &[&hash])).await
    }

    async fn list_sources(&self, org: OrgId, page: PageQuery<SourceId>) -> Result<Page<Source>> {
        let (cipher, keyset) = (self.cipher.clone(), Keyset::of(page, |id| id.key()));
        self.scan(move |files| {
            let sql = format!(
                "SELECT {COLUMNS} FROM source WHERE org = ?1 AND id {} ?2 ORDER BY id {} LIMIT ?3",
                keyset.beyond_sql(),
                keyset.order_sql()
            );
            let conn = files.control()?;
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![org.as_bytes(), keyset.from(), keyset.wanted_sql()], read)?;
            let mut found = Vec::new();
            for row in rows {
                found.push(open(&cipher, row?)?);
            }
            Ok(keyset.page(found))
        })
        .await
    }

    async fn sources_of_kind(&self, kind: &str) -> Result<Vec<Source>> {
        let (cipher, kind) = (self.cipher.clone(), kind.to_owned());
        self.scan(move |files| {
            let sql = format!("SELECT {COLUMNS} FROM source WHERE kind = ?1 ORDER BY id LIMIT ?2");
            let conn = files.control()?;
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![kind, limits::CRON_SOURCES_MAX], read)?;
            rows.map(|row| open(&cipher, row?)).collect()
        })
        .await
    }

    async fn change_source(&self, read: &Source, source: Source, idem: Option<IdempotencyRecord>) -> Result<Written<Source>> {
        let (cipher, read) = (self.cipher.clone(), read.clone());
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || {
                let stored = find(conn, &cipher, "id = ?1 AND tail = ?2", &[&read.id.key(), &read.id.tail()])?;
                if !source::is_still(&read, &stored.ok_or(StoreError::NotFound("source"))?) {
                    return Err(StoreError::Outdated("source").into());
                }
                update(conn, &cipher, &source)?;
                Ok(source)
            })
        })
        .await
    }

    async fn set_source_state(&self, id: SourceId, values: StateChange, unless: Option<&str>, now: Timestamp) -> Result<bool> {
        let (cipher, unless) = (self.cipher.clone(), unless.map(str::to_owned));
        self.write(move |files| {
            let conn = files.control.tx()?;
            let found = find(conn, &cipher, "id = ?1 AND tail = ?2", &[&id.key(), &id.tail()])?;
            let Some(mut source) = found else { return Err(StoreError::NotFound("source").into()) };
            if !source::change_state(&mut source.state, values, unless.as_deref()) {
                return Ok(false);
            }
            let state = source::seal_secrets(&cipher, source.org, id, "state", &source.state)?;
            conn.prepare_cached("UPDATE source SET state = ?2, updated_at = ?3 WHERE id = ?1")?.execute(params![
                id.key(),
                state,
                now.as_millis()
            ])?;
            Ok(true)
        })
        .await
    }

    async fn delete_source(&self, org: OrgId, id: SourceId, now: Timestamp) -> Result<bool> {
        self.write_freeing(move |files| {
            let conn = files.control.tx()?;
            let own: Option<Option<[u8; 20]>> = conn
                .prepare_cached(
                    "DELETE FROM source WHERE id = ?1 AND tail = ?2 AND org = ?3 RETURNING iif(is_app_own, app, NULL)",
                )?
                .query_row(params![id.key(), id.tail(), org.as_bytes()], |row| row.get(0))
                .optional()?;
            let Some(own) = own else { return Ok(false) };
            conn.prepare_cached("DELETE FROM receipt WHERE source = ?1")?.execute([id.key()])?;
            if let Some(app) = own.map(bellwire_core::AppId::from_bytes) {
                conn.prepare_cached(
                    "UPDATE application SET deleted_at = ?2, uid = NULL, metadata = '{}' WHERE id = ?1 AND deleted_at IS NULL",
                )?
                .execute([app.key(), now.as_millis()])?;
                endpoint::bury(conn, "app = ?1", app.key(), now)?;
            }
            Ok(true)
        })
        .await
    }

    async fn add_receipts(&self, receipts: Vec<Receipt>) -> Result<()> {
        self.write(move |files| {
            let conn = files.control.tx()?;
            let sql = format!(
                "INSERT OR IGNORE INTO receipt ({RECEIPT_COLUMNS}, source) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
            );
            let mut insert = conn.prepare_cached(&sql)?;
            let mut sources = Vec::new();
            for receipt in &receipts {
                insert.execute(params![
                    receipt.id.key(),
                    receipt.id.tail(),
                    receipt.status,
                    receipt.reason,
                    receipt.detail,
                    receipt.duplicate_of.as_ref().map(IdKind::as_bytes),
                    receipt.payload.as_deref(),
                    row::to_json(&receipt.headers)?,
                    receipt.at.as_millis(),
                    receipt.source.key(),
                ])?;
                sources.push(receipt.source.key());
            }
            sources.sort_unstable();
            sources.dedup();
            for source in sources {
                conn.prepare_cached(
                    "DELETE FROM receipt WHERE source = ?1 AND id <= \
                     (SELECT id FROM receipt WHERE source = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                )?
                .execute([source, limits::SOURCE_LOG_ENTRIES_KEPT])?;
            }
            Ok(())
        })
        .await
    }

    async fn list_receipts(&self, source: SourceId, page: PageQuery<ReceiptId>) -> Result<Page<Receipt>> {
        let keyset = Keyset::of(page, |id| id.key());
        self.scan(move |files| {
            let sql = format!(
                "SELECT {RECEIPT_COLUMNS} FROM receipt WHERE source = ?1 AND id {} ?2 ORDER BY id {} LIMIT ?3",
                keyset.beyond_sql(),
                keyset.order_sql()
            );
            let conn = files.control()?;
            let mut statement = conn.prepare_cached(&sql)?;
            let rows =
                statement.query_map([source.key(), keyset.from(), keyset.wanted_sql()], |row| read_receipt(row, source))?;
            Ok(keyset.page(rows.collect::<rusqlite::Result<_>>()?))
        })
        .await
    }
}
