//! [`ApplicationStore`] on PostgreSQL, and the version that goes up with every write to an application or its endpoints.

use async_trait::async_trait;
use bellwire_core::{AppId, Application, ApplicationKind, IdKind, OrgId, Page, PageQuery, Timestamp};
use tokio_postgres::Row;

use super::connection::Conn;
use super::fault::{Fault, Outcome};
use super::param::p;
use super::{PostgresStore, endpoint, idempotency, row};
use crate::application::is_still;
use crate::keyset::Keyset;
use crate::{ApplicationFilter, ApplicationStore, IdempotencyRecord, Result, StoreError, Written};

const COLUMNS: &str = "id, tail, org, kind, uid, name, throttle_rate, metadata, created_at, updated_at";

fn read(row: &Row) -> Outcome<Application> {
    Ok(Application {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        kind: if row::get::<i16>(row, 3)? == 0 { ApplicationKind::Customer } else { ApplicationKind::Operational },
        uid: row::get(row, 4)?,
        name: row::get(row, 5)?,
        throttle_rate: row::rate(row, 6)?,
        metadata: row::from_json(row::get(row, 7)?).unwrap_or_default(),
        created_at: row::time(row, 8)?,
        updated_at: row::time(row, 9)?,
    })
}

/// A live application by id.
pub async fn get(conn: &Conn, id: AppId) -> Outcome<Option<Application>> {
    get_as(conn, id, "").await
}

/// `lock` goes after the condition.
async fn get_as(conn: &Conn, id: AppId, lock: &str) -> Outcome<Option<Application>> {
    let sql = format!("SELECT {COLUMNS} FROM application WHERE id = $1 AND tail = $2 AND deleted_at IS NULL {lock}");
    conn.query_opt(&sql, &[p(&id.key()), p(&row::tail(&id))]).await?.as_ref().map(read).transpose()
}

/// Raises the version of a live application and tells the other nodes; the row stays locked until the transaction ends, so that
/// writes to one application and its endpoints come one after another. Returns its organisation.
pub async fn touch(conn: &Conn, id: AppId, now: Timestamp) -> Outcome<OrgId> {
    let sql = "WITH touched AS (UPDATE application SET version = version + 1 \
             WHERE id = $1 AND tail = $2 AND deleted_at IS NULL RETURNING id, tail, org), \
         told AS (INSERT INTO change (app, tail, made_at) SELECT id, tail, $3 FROM touched) SELECT org FROM touched";
    let touched = conn.query_opt(sql, &[p(&id.key()), p(&row::tail(&id)), p(&now.as_millis())]).await?;
    match touched {
        Some(row) => row::whole_id(&row, 0),
        None => Err(StoreError::NotFound("application").into()),
    }
}

/// What breaking the uniqueness of a uid means to callers. The transaction it happened in is at its end.
pub fn uid_conflict(fault: Fault, index: &str, uid: Option<&String>) -> Fault {
    match uid {
        Some(uid) if fault.unique_index() == Some(index) => StoreError::Conflict { what: "uid", value: uid.clone() }.into(),
        _ => fault,
    }
}

fn application_conflict(fault: Fault, app: &Application) -> Fault {
    uid_conflict(fault, "application_by_uid", app.uid.as_ref())
}

/// Inserts it and tells the other nodes. False: it is an operational one, and the organisation has one.
pub async fn insert(conn: &Conn, app: &Application) -> Outcome<bool> {
    let sql = "WITH made AS (INSERT INTO application \
             (id, tail, org, kind, uid, name, throttle_rate, metadata, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (org) WHERE kind = 1 AND deleted_at IS NULL DO NOTHING RETURNING id, tail) \
         INSERT INTO change (app, tail, made_at) SELECT id, tail, $9 FROM made";
    let made = conn
        .execute(
            sql,
            &[
                p(&app.id.key()),
                p(&row::tail(&app.id)),
                p(&row::bytes(&app.org)),
                p(&i16::from(app.kind as u8)),
                p(&app.uid),
                p(&app.name),
                p(&row::rate_sql(app.throttle_rate)),
                p(&row::to_json(&app.metadata)?),
                p(&app.created_at.as_millis()),
                p(&app.updated_at.as_millis()),
            ],
        )
        .await
        .map_err(|fault| application_conflict(fault, app))?;
    Ok(made > 0)
}

async fn operational(conn: &Conn, org: OrgId) -> Outcome<Option<Application>> {
    let sql = format!("SELECT {COLUMNS} FROM application WHERE org = $1 AND kind = 1 AND deleted_at IS NULL");
    conn.query_opt(&sql, &[p(&row::bytes(&org))]).await?.as_ref().map(read).transpose()
}

/// Deletes it and its endpoints, in the caller's transaction. False if there was none.
pub async fn bury(conn: &Conn, org: OrgId, id: AppId, now: Timestamp) -> Outcome<bool> {
    let sql = "WITH changed AS (UPDATE application SET version = version + 1, deleted_at = $4, uid = NULL, metadata = '{}' \
             WHERE id = $1 AND tail = $2 AND org = $3 AND deleted_at IS NULL RETURNING id, tail) \
         INSERT INTO change (app, tail, made_at) SELECT id, tail, $4 FROM changed";
    let is_there = conn.execute(sql, &[p(&id.key()), p(&row::tail(&id)), p(&row::bytes(&org)), p(&now.as_millis())]).await? > 0;
    if is_there {
        // A statement of its own: it also sees endpoints made by whom the first one waited for.
        endpoint::bury(conn, "app = $1", id.key(), now).await?;
    }
    Ok(is_there)
}

/// Replaces what can be changed about one whose row is locked, and tells the other nodes.
async fn replace(conn: &Conn, app: &Application) -> Outcome<()> {
    let sql = "WITH changed AS (UPDATE application SET version = version + 1, name = $3, uid = $4, throttle_rate = $5, \
             metadata = $6, updated_at = $7 WHERE id = $1 AND tail = $2 AND deleted_at IS NULL RETURNING id, tail) \
         INSERT INTO change (app, tail, made_at) SELECT id, tail, $7 FROM changed";
    conn.execute(
        sql,
        &[
            p(&app.id.key()),
            p(&row::tail(&app.id)),
            p(&app.name),
            p(&app.uid),
            p(&row::rate_sql(app.throttle_rate)),
            p(&row::to_json(&app.metadata)?),
            p(&app.updated_at.as_millis()),
        ],
    )
    .await
    .map(|_| ())
    .map_err(|fault| application_conflict(fault, app))
}

impl PostgresStore {
    async fn create_application_inner(
        &self,
        app: Application,
        idem: Option<&IdempotencyRecord>,
    ) -> Outcome<Written<Application>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            insert(&tx, &app).await?;
            Ok(Written::Fresh(app))
        }
        .await;
        tx.end(result).await
    }

    async fn find_application_inner(&self, org: OrgId, id_or_uid: &str) -> Outcome<Option<Application>> {
        let conn = self.db.get().await?;
        if let Ok(id) = id_or_uid.parse::<AppId>()
            && let Some(app) = get(&conn, id).await?
        {
            return Ok(Some(app).filter(|app| app.org == org && app.kind == ApplicationKind::Customer));
        }
        let sql = format!("SELECT {COLUMNS} FROM application WHERE org = $1 AND uid = $2 AND kind = 0 AND deleted_at IS NULL");
        conn.query_opt(&sql, &[p(&row::bytes(&org)), p(&id_or_uid)]).await?.as_ref().map(read).transpose()
    }

    async fn operational_application_inner(&self, org: OrgId, new_id: AppId, now: Timestamp) -> Outcome<Application> {
        let conn = self.db.get().await?;
        if let Some(app) = operational(&conn, org).await? {
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
        if insert(&conn, &app).await? {
            return Ok(app);
        }
        // Another node was quicker; a new statement sees its row.
        Ok(operational(&conn, org).await?.ok_or(StoreError::Busy("the operational application is being made"))?)
    }

    async fn list_applications_inner(
        &self,
        org: OrgId,
        filter: ApplicationFilter,
        page: PageQuery<AppId>,
    ) -> Outcome<Page<Application>> {
        const ANY: &str = "SELECT 1 FROM endpoint e WHERE e.app = application.id AND e.deleted_at IS NULL";
        let keyset = Keyset::of(page, |id| id.key());
        let mut sql = format!(
            "SELECT {COLUMNS} FROM application WHERE org = $1 AND kind = 0 AND deleted_at IS NULL AND id {} $2",
            keyset.beyond_sql()
        );
        if filter.exclude_without_endpoints {
            sql.push_str(&format!(" AND EXISTS ({ANY})"));
        }
        if filter.exclude_with_disabled_endpoints {
            sql.push_str(&format!(" AND (EXISTS ({ANY} AND NOT e.disabled) OR NOT EXISTS ({ANY}))"));
        }
        sql.push_str(&format!(" ORDER BY id {} LIMIT $3", keyset.order_sql()));
        let conn = self.db.get().await?;
        let rows = conn.query(&sql, &[p(&row::bytes(&org)), p(&keyset.from()), p(&keyset.wanted_sql())]).await?;
        Ok(keyset.page(rows.iter().map(read).collect::<Outcome<_>>()?))
    }

    async fn change_application_inner(&self, read: &Application, app: Application) -> Outcome<Application> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            // Differs from SQLite, whose writes come one after another anyway: the row is locked before it is compared.
            let stored = get_as(&tx, read.id, "FOR NO KEY UPDATE").await?.ok_or(StoreError::NotFound("application"))?;
            if !is_still(read, &stored) {
                return Err(StoreError::Outdated("application").into());
            }
            replace(&tx, &app).await?;
            Ok(app)
        }
        .await;
        tx.end(result).await
    }

    async fn delete_application_inner(&self, org: OrgId, id: AppId, now: Timestamp) -> Outcome<bool> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async { bury(&tx, org, id, now).await }.await;
        tx.end(result).await
    }
}

#[async_trait]
impl ApplicationStore for PostgresStore {
    async fn create_application(&self, app: Application, idem: Option<IdempotencyRecord>) -> Result<Written<Application>> {
        Ok(self.create_application_inner(app, idem.as_ref()).await?)
    }

    async fn find_application(&self, org: OrgId, id_or_uid: &str) -> Result<Option<Application>> {
        Ok(self.find_application_inner(org, id_or_uid).await?)
    }

    async fn get_application(&self, id: AppId) -> Result<Option<Application>> {
        let conn = self.db.get().await?;
        Ok(get(&conn, id).await?)
    }

    async fn operational_application(&self, org: OrgId, new_id: AppId, now: Timestamp) -> Result<Application> {
        Ok(self.operational_application_inner(org, new_id, now).await?)
    }

    async fn list_applications(
        &self,
        org: OrgId,
        filter: ApplicationFilter,
        page: PageQuery<AppId>,
    ) -> Result<Page<Application>> {
        Ok(self.list_applications_inner(org, filter, page).await?)
    }

    async fn change_application(&self, read: &Application, app: Application) -> Result<Application> {
        Ok(self.change_application_inner(read, app).await?)
    }

    async fn delete_application(&self, org: OrgId, id: AppId, now: Timestamp) -> Result<bool> {
        Ok(self.delete_application_inner(org, id, now).await?)
    }
}
