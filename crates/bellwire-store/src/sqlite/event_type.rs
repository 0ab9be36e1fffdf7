//! [`EventTypeStore`] on `control.db`.

use async_trait::async_trait;
use bellwire_core::{EventType, IdKind, OrgId, Page, PageQuery};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Outcome;
use super::{SqliteStore, idempotency, row};
use crate::event_type::is_still;
use crate::keyset::Keyset;
use crate::{EventTypeStore, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "org, name, description, archived, deprecated, schemas, feature_flags, group_name, created_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<EventType> {
    let flags: Option<String> = row.get(6)?;
    Ok(EventType {
        org: row::whole_id(row, 0)?,
        name: row.get(1)?,
        description: row.get(2)?,
        archived: row.get(3)?,
        deprecated: row.get(4)?,
        schemas: row.get(5)?,
        feature_flags: row::from_json_opt(flags).unwrap_or_default(),
        group_name: row.get(7)?,
        created_at: row::time(row, 8)?,
        updated_at: row::time(row, 9)?,
    })
}

fn get(conn: &Connection, org: OrgId, name: &str) -> Outcome<Option<EventType>> {
    let sql = format!("SELECT {COLUMNS} FROM event_type WHERE org = ?1 AND name = ?2");
    Ok(conn.prepare_cached(&sql)?.query_row(params![org.as_bytes(), name], read).optional()?)
}

fn put(conn: &Connection, event_type: &EventType) -> Outcome<()> {
    let sql = format!("INSERT OR REPLACE INTO event_type ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    conn.prepare_cached(&sql)?.execute(params![
        event_type.org.as_bytes(),
        event_type.name,
        event_type.description,
        event_type.archived,
        event_type.deprecated,
        event_type.schemas,
        event_type.feature_flags.as_ref().map(row::to_json).transpose()?,
        event_type.group_name,
        event_type.created_at.as_millis(),
        event_type.updated_at.as_millis(),
    ])?;
    Ok(())
}

#[async_trait]
impl EventTypeStore for SqliteStore {
    async fn create_event_type(&self, event_type: EventType, idem: Option<IdempotencyRecord>) -> Result<Written<EventType>> {
        let cipher = self.cipher.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || {
                if get(conn, event_type.org, &event_type.name)?.is_some_and(|known| !known.archived) {
                    return Err(StoreError::Conflict { what: "event type name", value: event_type.name.clone() }.into());
                }
                put(conn, &event_type)?;
                Ok(event_type)
            })
        })
        .await
    }

    async fn get_event_type(&self, org: OrgId, name: &str) -> Result<Option<EventType>> {
        let name = name.to_owned();
        self.read(move |files| get(&*files.control()?, org, &name)).await
    }

    async fn list_event_types(&self, org: OrgId, include_archived: bool, page: PageQuery<String>) -> Result<Page<EventType>> {
        let keyset = Keyset::of(page, |name| name);
        self.read(move |files| {
            let beyond = match &keyset.after {
                Some(_) => format!("AND name {} ?2", keyset.beyond_sql()),
                None => "AND ?2 IS NULL".to_owned(),
            };
            let sql = format!(
                "SELECT {COLUMNS} FROM event_type WHERE org = ?1 {beyond} AND archived <= ?3 ORDER BY name {} LIMIT ?4",
                keyset.order_sql()
            );
            let conn = files.control()?;
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![org.as_bytes(), keyset.after, include_archived, keyset.wanted_sql()], read)?;
            Ok(keyset.page(rows.collect::<rusqlite::Result<_>>()?))
        })
        .await
    }

    async fn put_event_type(&self, mut event_type: EventType) -> Result<(EventType, bool)> {
        self.write(move |files| {
            let conn = files.control.tx()?;
            let known = get(conn, event_type.org, &event_type.name)?;
            if let Some(known) = &known {
                event_type.created_at = known.created_at;
            }
            put(conn, &event_type)?;
            Ok((event_type, known.is_none()))
        })
        .await
    }

    async fn change_event_type(&self, read: &EventType, mut event_type: EventType) -> Result<EventType> {
        let read = read.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            let stored = get(conn, read.org, &read.name)?.ok_or(StoreError::NotFound("event type"))?;
            if !is_still(&read, &stored) {
                return Err(StoreError::Outdated("event type").into());
            }
            event_type.created_at = stored.created_at;
            put(conn, &event_type)?;
            Ok(event_type)
        })
        .await
    }

    async fn expunge_event_type(&self, org: OrgId, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.write_freeing(move |files| {
            let conn = files.control.tx()?;
            let sql = "DELETE FROM event_type WHERE org = ?1 AND name = ?2";
            Ok(conn.prepare_cached(sql)?.execute(params![org.as_bytes(), name])? > 0)
        })
        .await
    }
}
