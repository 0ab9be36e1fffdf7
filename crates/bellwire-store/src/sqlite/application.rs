//! [`ApplicationStore`] on `control.db`.

use async_trait::async_trait;
use bellwire_core::{AppId, Application, ApplicationKind, IdKind, OrgId, Page, PageQuery, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Outcome;
use super::{SqliteStore, endpoint, idempotency, row};
use crate::application::is_still;
use crate::keyset::Keyset;
use crate::{ApplicationFilter, ApplicationStore, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "id, tail, org, kind, uid, name, throttle_rate, metadata, created_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Application> {
    Ok(Application {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        kind: if row.get::<_, i64>(3)? == 0 { ApplicationKind::Customer } else { ApplicationKind::Operational },
        uid: row.get(4)?,
        name: row.get(5)?,
        throttle_rate: row::rate(row, 6)?,
        metadata: row::from_json(row.get_ref(7)?.as_str()?).unwrap_or_default(),
        created_at: row::time(row, 8)?,
        updated_at: row::time(row, 9)?,
    })
}

/// A live application by id.
pub fn get(conn: &Connection, id: AppId) -> Outcome<Option<Application>> {
    let sql = format!("SELECT {COLUMNS} FROM application WHERE id = ?1 AND tail = ?2 AND deleted_at IS NULL");
    Ok(conn.prepare_cached(&sql)?.query_row(params![id.key(), id.tail()], read).optional()?)
}

fn find(conn: &Connection, org: OrgId, id_or_uid: &str) -> Outcome<Option<Application>> {
    if let Ok(id) = id_or_uid.parse::<AppId>()
        && let Some(app) = get(conn, id)?
    {
        return Ok(Some(app).filter(|app| app.org == org && app.kind == ApplicationKind::Customer));
    }
    let sql = format!("SELECT {COLUMNS} FROM application WHERE org = ?1 AND uid = ?2 AND kind = 0 AND deleted_at IS NULL");
    Ok(conn.prepare_cached(&sql)?.query_row(params![org.as_bytes(), id_or_uid], read).optional()?)
}

/// Conflict if another live application of the organisation has this uid.
fn check_uid(conn: &Connection, app: &Application) -> Outcome<()> {
    let Some(uid) = &app.uid else { return Ok(()) };
    let taken = conn
        .prepare_cached("SELECT 1 FROM application WHERE org = ?1 AND uid = ?2 AND id <> ?3 AND deleted_at IS NULL")?
        .exists(params![app.org.as_bytes(), uid, app.id.key()])?;
    if taken { Err(StoreError::Conflict { what: "uid", value: uid.clone() }.into()) } else { Ok(()) }
}

pub fn insert(conn: &Connection, app: &Application) -> Outcome<()> {
    check_uid(conn, app)?;
    conn.prepare_cached(
        "INSERT INTO application (id, tail, org, kind, uid, name, throttle_rate, metadata, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        app.id.key(),
        app.id.tail(),
        app.org.as_bytes(),
        app.kind as u8,
        app.uid,
        app.name,
        app.throttle_rate,
        row::to_json(&app.metadata)?,
        app.created_at.as_millis(),
        app.updated_at.as_millis(),
    ])?;
    Ok(())
}

fn operational(conn: &Connection, org: OrgId) -> Outcome<Option<Application>> {
    let sql = format!("SELECT {COLUMNS} FROM application WHERE org = ?1 AND kind = 1 AND deleted_at IS NULL");
    Ok(conn.prepare_cached(&sql)?.query_row(params![org.as_bytes()], read).optional()?)
}

#[async_trait]
impl ApplicationStore for SqliteStore {
    async fn create_application(&self, app: Application, idem: Option<IdempotencyRecord>) -> Result<Written<Application>> {
        let cipher = self.cipher.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || insert(conn, &app).map(|()| app))
        })
        .await
    }

    async fn find_application(&self, org: OrgId, id_or_uid: &str) -> Result<Option<Application>> {
        let id_or_uid = id_or_uid.to_owned();
        self.read(move |files| find(&*files.control()?, org, &id_or_uid)).await
    }

    async fn get_application(&self, id: AppId) -> Result<Option<Application>> {
        self.read(move |files| get(&*files.control()?, id)).await
    }

    async fn operational_application(&self, org: OrgId, new_id: AppId, now: Timestamp) -> Result<Application> {
        if let Some(app) = self.read(move |files| operational(&*files.control()?, org)).await? {
            return Ok(app);
        }
        self.write(move |files| {
            let conn = files.control.tx()?;
            if let Some(app) = operational(conn, org)? {
                return Ok(app);
            }
            let app = Application {
                id: new_id,
                org,
                kind: ApplicationKind::Operational,
                uid: None,
                name: "operational webhooks".to_owned(),
                throttle_rate: None,
                metadata: bellwire_core::Metadata::new(),
                created_at: now,
                updated_at: now,
            };
            insert(conn, &app)?;
            Ok(app)
        })
        .await
    }

    async fn list_applications(
        &self,
        org: OrgId,
        filter: ApplicationFilter,
        page: PageQuery<AppId>,
    ) -> Result<Page<Application>> {
        let keyset = Keyset::of(page, |id| id.key());
        self.scan(move |files| {
            const ANY: &str = "SELECT 1 FROM endpoint e WHERE e.app = application.id AND e.deleted_at IS NULL";
            let mut sql = format!(
                "SELECT {COLUMNS} FROM application WHERE org = ?1 AND kind = 0 AND deleted_at IS NULL AND id {} ?2",
                keyset.beyond_sql()
            );
            if filter.exclude_without_endpoints {
                sql.push_str(&format!(" AND EXISTS ({ANY})"));
            }
            if filter.exclude_with_disabled_endpoints {
                sql.push_str(&format!(" AND (EXISTS ({ANY} AND e.disabled = 0) OR NOT EXISTS ({ANY}))"));
            }
            sql.push_str(&format!(" ORDER BY id {} LIMIT ?3", keyset.order_sql()));
            let conn = files.control()?;
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![org.as_bytes(), keyset.from(), keyset.wanted_sql()], read)?;
            Ok(keyset.page(rows.collect::<rusqlite::Result<_>>()?))
        })
        .await
    }

    async fn change_application(&self, read: &Application, app: Application) -> Result<Application> {
        let read = read.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            let stored = get(conn, read.id)?.ok_or(StoreError::NotFound("application"))?;
            if !is_still(&read, &stored) {
                return Err(StoreError::Outdated("application").into());
            }
            check_uid(conn, &app)?;
            conn.prepare_cached(
                "UPDATE application SET name = ?3, uid = ?4, throttle_rate = ?5, metadata = ?6, updated_at = ?7 \
                 WHERE id = ?1 AND tail = ?2 AND deleted_at IS NULL",
            )?
            .execute(params![
                read.id.key(),
                read.id.tail(),
                app.name,
                app.uid,
                app.throttle_rate,
                row::to_json(&app.metadata)?,
                app.updated_at.as_millis(),
            ])?;
            Ok(app)
        })
        .await
    }

    async fn delete_application(&self, org: OrgId, id: AppId, now: Timestamp) -> Result<bool> {
        self.write_freeing(move |files| {
            let conn = files.control.tx()?;
            let changed = conn
                .prepare_cached(
                    "UPDATE application SET deleted_at = ?4, uid = NULL, metadata = '{}' \
                     WHERE id = ?1 AND tail = ?2 AND org = ?3 AND deleted_at IS NULL",
                )?
                .execute(params![id.key(), id.tail(), org.as_bytes(), now.as_millis()])?;
            if changed > 0 {
                endpoint::bury(conn, "app = ?1", id.key(), now)?;
            }
            Ok(changed > 0)
        })
        .await
    }
}
