//! [`EventTypeStore`] on PostgreSQL.

use async_trait::async_trait;
use bellwire_core::{EventType, OrgId, Page, PageQuery};
use tokio_postgres::Row;

use super::connection::Conn;
use super::fault::Outcome;
use super::param::p;
use super::{PostgresStore, idempotency, row};
use crate::event_type::is_still;
use crate::keyset::Keyset;
use crate::{EventTypeStore, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "org, name, description, archived, deprecated, schemas, feature_flags, group_name, created_at, updated_at";
/// What a new row's content replaces in an old one; the creation time apart.
const REPLACE: &str = "description = excluded.description, archived = excluded.archived, deprecated = excluded.deprecated, \
     schemas = excluded.schemas, feature_flags = excluded.feature_flags, group_name = excluded.group_name, \
     updated_at = excluded.updated_at";

fn read(row: &Row) -> Outcome<EventType> {
    Ok(EventType {
        org: row::whole_id(row, 0)?,
        name: row::get(row, 1)?,
        description: row::get(row, 2)?,
        archived: row::get(row, 3)?,
        deprecated: row::get(row, 4)?,
        schemas: row::get(row, 5)?,
        feature_flags: row::json_opt(row, 6).unwrap_or_default(),
        group_name: row::get(row, 7)?,
        created_at: row::time(row, 8)?,
        updated_at: row::time(row, 9)?,
    })
}

/// `lock` goes after the condition.
async fn get(conn: &Conn, org: OrgId, name: &str, lock: &str) -> Outcome<Option<EventType>> {
    let sql = format!("SELECT {COLUMNS} FROM event_type WHERE org = $1 AND name = $2 {lock}");
    conn.query_opt(&sql, &[p(&row::bytes(&org)), p(&name)]).await?.as_ref().map(read).transpose()
}

/// Inserts it, or does what `conflict` says with the one of this name. Creation time and whether it is new of what was written.
async fn put(conn: &Conn, event_type: &EventType, conflict: &str) -> Outcome<Option<Row>> {
    // A row that nobody has replaced yet is the one just inserted.
    let sql = format!(
        "INSERT INTO event_type ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (org, name) DO UPDATE SET {REPLACE}{conflict} RETURNING created_at, xmax = 0"
    );
    let flags = event_type.feature_flags.as_ref().map(row::to_json).transpose()?;
    conn.query_opt(
        &sql,
        &[
            p(&row::bytes(&event_type.org)),
            p(&event_type.name),
            p(&event_type.description),
            p(&event_type.archived),
            p(&event_type.deprecated),
            p(&event_type.schemas),
            p(&flags),
            p(&event_type.group_name),
            p(&event_type.created_at.as_millis()),
            p(&event_type.updated_at.as_millis()),
        ],
    )
    .await
}

impl PostgresStore {
    async fn create_event_type_inner(
        &self,
        event_type: EventType,
        idem: Option<&IdempotencyRecord>,
    ) -> Outcome<Written<EventType>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            let is_written =
                put(&tx, &event_type, ", created_at = excluded.created_at WHERE event_type.archived").await?.is_some();
            if !is_written {
                return Err(StoreError::Conflict { what: "event type name", value: event_type.name.clone() }.into());
            }
            Ok(Written::Fresh(event_type))
        }
        .await;
        tx.end(result).await
    }

    async fn change_event_type_inner(&self, read: &EventType, mut event_type: EventType) -> Outcome<EventType> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            // Differs from SQLite, whose writes come one after another anyway: the row is locked before it is compared.
            let stored = get(&tx, read.org, &read.name, "FOR NO KEY UPDATE").await?.ok_or(StoreError::NotFound("event type"))?;
            if !is_still(read, &stored) {
                return Err(StoreError::Outdated("event type").into());
            }
            event_type.created_at = stored.created_at;
            put(&tx, &event_type, "").await?;
            Ok(event_type)
        }
        .await;
        tx.end(result).await
    }

    async fn list_event_types_inner(
        &self,
        org: OrgId,
        include_archived: bool,
        page: PageQuery<String>,
    ) -> Outcome<Page<EventType>> {
        let keyset = Keyset::of(page, |name| name);
        let beyond = match &keyset.after {
            Some(_) => format!("AND name {} $2", keyset.beyond_sql()),
            None => "AND $2 IS NULL".to_owned(),
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM event_type WHERE org = $1 {beyond} AND archived <= $3 ORDER BY name {} LIMIT $4",
            keyset.order_sql()
        );
        let conn = self.db.get().await?;
        let rows =
            conn.query(&sql, &[p(&row::bytes(&org)), p(&keyset.after), p(&include_archived), p(&keyset.wanted_sql())]).await?;
        Ok(keyset.page(rows.iter().map(read).collect::<Outcome<_>>()?))
    }
}

#[async_trait]
impl EventTypeStore for PostgresStore {
    async fn create_event_type(&self, event_type: EventType, idem: Option<IdempotencyRecord>) -> Result<Written<EventType>> {
        Ok(self.create_event_type_inner(event_type, idem.as_ref()).await?)
    }

    async fn get_event_type(&self, org: OrgId, name: &str) -> Result<Option<EventType>> {
        let conn = self.db.get().await?;
        Ok(get(&conn, org, name, "").await?)
    }

    async fn list_event_types(&self, org: OrgId, include_archived: bool, page: PageQuery<String>) -> Result<Page<EventType>> {
        Ok(self.list_event_types_inner(org, include_archived, page).await?)
    }

    async fn put_event_type(&self, mut event_type: EventType) -> Result<(EventType, bool)> {
        let conn = self.db.get().await?;
        let written = put(&conn, &event_type, "").await?;
        let written = written.ok_or_else(|| StoreError::Corrupt(format!("event type {} was not written", event_type.name)))?;
        event_type.created_at = row::time(&written, 0)?;
        Ok((event_type, row::get(&written, 1)?))
    }

    async fn change_event_type(&self, read: &EventType, event_type: EventType) -> Result<EventType> {
        Ok(self.change_event_type_inner(read, event_type).await?)
    }

    async fn expunge_event_type(&self, org: OrgId, name: &str) -> Result<bool> {
        let conn = self.db.get().await?;
        let sql = "DELETE FROM event_type WHERE org = $1 AND name = $2";
        Ok(conn.execute(sql, &[p(&row::bytes(&org)), p(&name)]).await? > 0)
    }
}
