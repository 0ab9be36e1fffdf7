//! [`TaskStore`] on PostgreSQL. A step of a recovery is one transaction: the deliveries it makes and the task's position.

use async_trait::async_trait;
use bellwire_core::{
    Endpoint, IdKind, MessageId, OrgId, Page, PageQuery, Shard, TaskId, Timestamp, Trigger, id::timestamp_to_key,
};
use tokio_postgres::Row;

use super::connection::Conn;
use super::delivery::hold_fence;
use super::fault::Outcome;
use super::param::p;
use super::unannounced::Unannounced;
use super::{PostgresStore, idempotency, row};
use crate::keyset::Keyset;
use crate::{DueDelivery, IdempotencyRecord, Result, StoreError, Task, TaskKind, TaskStatus, TaskStore, Written};

const COLUMNS: &str = "id, tail, org, kind, status, app, endpoint, since, until, position, messages_sent, created_at, updated_at";

/// Of the messages $1 (with tails $2) those that endpoint $3 has neither got nor waits for become retries due at $6. Shard $4, application $5.
/// $7 and $8 bound the messages, for the planner's choice of days.
const RECOVER: &str = "\
    WITH open AS (\
        SELECT w.message, w.tail FROM unnest($1, $2) AS w (message, tail) \
        WHERE NOT EXISTS (SELECT 1 FROM queue q WHERE q.message = w.message AND q.endpoint = $3) \
        AND NOT EXISTS (SELECT 1 FROM retry r WHERE r.message = w.message AND r.endpoint = $3) \
        AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.message = w.message AND a.endpoint = $3 AND a.status = 0 \
            AND a.message BETWEEN $7 AND $8)), \
    reopened AS (\
        INSERT INTO retry (message, endpoint, shard, app, tail, tries, due_at, trigger, resume_at, is_delivered) \
        SELECT message, $3, $4, $5, tail, 0, $6, $9, NULL, FALSE FROM open ORDER BY message \
        ON CONFLICT (message, endpoint) DO NOTHING RETURNING message, tail), \
    ended AS (\
        DELETE FROM outcome o USING reopened r WHERE o.message = r.message AND o.endpoint = $3 AND o.message BETWEEN $7 AND $8 \
        RETURNING o.state, o.counted_minute), \
    gone AS (\
        SELECT counted_minute AS minute, count(*) FILTER (WHERE state = 1) AS fail, count(*) FILTER (WHERE state = 2) AS canceled \
        FROM ended WHERE counted_minute IS NOT NULL GROUP BY counted_minute), \
    uncounted AS (\
        UPDATE counter c SET fail = c.fail - gone.fail, canceled = c.canceled - gone.canceled FROM gone \
        WHERE c.endpoint = $3 AND c.minute = gone.minute) \
    SELECT message, tail FROM reopened ORDER BY message";

fn read(row: &Row) -> Outcome<Task> {
    Ok(Task {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        kind: TaskKind::EndpointRecover,
        status: match row::get::<i16>(row, 4)? {
            0 => TaskStatus::Running,
            1 => TaskStatus::Finished,
            _ => TaskStatus::Failed,
        },
        app: row::whole_id(row, 5)?,
        endpoint: row::whole_id(row, 6)?,
        since: row::time(row, 7)?,
        until: row::time(row, 8)?,
        position: match row::get::<Option<&[u8]>>(row, 9)? {
            Some(_) => Some(row::whole_id(row, 9)?),
            None => None,
        },
        messages_sent: row::count(row, 10)?,
        created_at: row::time(row, 11)?,
        updated_at: row::time(row, 12)?,
    })
}

fn sent(task: &Task) -> i64 {
    i64::try_from(task.messages_sent).unwrap_or(i64::MAX)
}

fn status_sql(status: TaskStatus) -> i16 {
    i16::from(status as u8)
}

async fn find(conn: &Conn, org: OrgId, id: TaskId) -> Outcome<Option<Task>> {
    let sql = format!("SELECT {COLUMNS} FROM task WHERE id = $1 AND tail = $2 AND org = $3");
    let found = conn.query_opt(&sql, &[p(&id.key()), p(&row::tail(&id)), p(&row::bytes(&org))]).await?;
    found.as_ref().map(read).transpose()
}

/// What a step of a recovery looked at.
struct Look {
    wanted: Vec<MessageId>,
    last: Option<MessageId>,
    is_end: bool,
}

/// Up to `limit` messages of the window after the position, and those of them the endpoint wants.
async fn look(conn: &Conn, task: &Task, endpoint: &Endpoint, limit: usize) -> Outcome<Look> {
    let from = task.position.map_or(i64::MIN, |id| id.key()).max(timestamp_to_key(task.since) - 1);
    let until = timestamp_to_key(Timestamp(task.until.as_millis().saturating_add(1)));
    let sql = "SELECT id, tail, event_type, channels, payload IS NOT NULL FROM message \
         WHERE app = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4";
    let one_more = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let rows = conn.query(sql, &[p(&task.app.key()), p(&from), p(&until), p(&one_more)]).await?;
    let mut look = Look { wanted: Vec::new(), last: None, is_end: rows.len() <= limit };
    for row in rows.iter().take(limit) {
        let id: MessageId = row::id(row, 0, 1)?;
        let channels = row::text_to_list(row::get(row, 3)?);
        if row::get::<bool>(row, 4)? && endpoint.wants(row::get(row, 2)?, &channels) {
            look.wanted.push(id);
        }
        look.last = Some(id);
    }
    Ok(look)
}

/// Requeues what is neither delivered nor unfinished. Done again, it finds them unfinished and does nothing.
async fn recover(conn: &Conn, task: &Task, wanted: &[MessageId], now: Timestamp) -> Outcome<Vec<DueDelivery>> {
    let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(Vec::new()) };
    let keys: Vec<i64> = wanted.iter().map(IdKind::key).collect();
    let tails: Vec<Vec<u8>> = wanted.iter().map(row::tail).collect();
    let rows = conn
        .query(
            RECOVER,
            &[
                p(&keys),
                p(&tails),
                p(&task.endpoint.key()),
                p(&i16::from(Shard::of(task.endpoint).0)),
                p(&task.app.key()),
                p(&now.as_millis()),
                p(&first.key()),
                p(&last.key()),
                p(&i16::from(Trigger::Scheduled as u8)),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(DueDelivery {
                message: row::id(row, 0, 1)?,
                endpoint: task.endpoint,
                app: task.app,
                tries: 0,
                due_at: now,
                trigger: Trigger::Scheduled,
                resume_at: None,
            })
        })
        .collect()
}

impl PostgresStore {
    async fn create_task_inner(&self, task: Task, idem: Option<&IdempotencyRecord>) -> Outcome<Written<Task>> {
        let mut conn = self.db.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            if let Some(replayed) = idempotency::claim(&tx, &self.cipher, idem).await? {
                return Ok(replayed);
            }
            let sql = format!("INSERT INTO task ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)");
            tx.execute(
                &sql,
                &[
                    p(&task.id.key()),
                    p(&row::tail(&task.id)),
                    p(&row::bytes(&task.org)),
                    p(&i16::from(task.kind as u8)),
                    p(&status_sql(task.status)),
                    p(&row::bytes(&task.app)),
                    p(&row::bytes(&task.endpoint)),
                    p(&task.since.as_millis()),
                    p(&task.until.as_millis()),
                    p(&task.position.as_ref().map(row::bytes)),
                    p(&sent(&task)),
                    p(&task.created_at.as_millis()),
                    p(&task.updated_at.as_millis()),
                ],
            )
            .await?;
            Ok(Written::Fresh(task))
        }
        .await;
        tx.end(result).await
    }

    async fn recover_step_inner(
        &self,
        task: &Task,
        endpoint: &Endpoint,
        now: Timestamp,
        limit: usize,
    ) -> Outcome<(Task, Vec<DueDelivery>)> {
        // Held until the sink has been told: what is local stays so.
        let guard = self.writer.local().await;
        let mut conn = self.db.get().await?;
        // Looking is done before anything is locked; what is wanted is checked again when it is requeued.
        let look = look(&conn, task, endpoint, limit).await?;
        let was = task.position.as_ref().map(row::bytes);
        let mut task = task.clone();
        task.position = look.last.or(task.position);
        if look.is_end {
            task.status = TaskStatus::Finished;
        }
        task.updated_at = now;
        let tx = conn.begin().await?;
        let result = async {
            let local = hold_fence(&tx, &guard).await?;
            if !local.has(task.endpoint) {
                return Err(StoreError::Fenced.into());
            }
            let due = recover(&tx, &task, &look.wanted, now).await?;
            task.messages_sent += due.len() as u64;
            // Only from where this step began: who worked on it meanwhile has not worked in vain.
            let sql = "UPDATE task SET position = $3, messages_sent = $4, status = $5, updated_at = $6 \
                 WHERE id = $1 AND tail = $2 AND status = 0 AND position IS NOT DISTINCT FROM $7";
            let changed = tx
                .execute(
                    sql,
                    &[
                        p(&task.id.key()),
                        p(&row::tail(&task.id)),
                        p(&task.position.as_ref().map(row::bytes)),
                        p(&sent(&task)),
                        p(&status_sql(task.status)),
                        p(&now.as_millis()),
                        p(&was),
                    ],
                )
                .await?;
            let has_advanced = changed > 0;
            Ok(has_advanced.then_some((local, due)))
        }
        .await;
        let (local, due) = match result {
            Ok(Some(done)) => done,
            Ok(None) => {
                tx.rollback().await?;
                let found = find(&conn, task.org, task.id).await?.ok_or(StoreError::NotFound("task"))?;
                return Ok((found, Vec::new()));
            }
            Err(fault) => return tx.end(Err(fault)).await,
        };
        let unannounced = Unannounced::new(self.announcer(), due, local, &guard);
        let due = unannounced.settle(tx.commit().await)?;
        Ok((task, due))
    }

    async fn list_tasks_inner(&self, org: Option<OrgId>, running_only: bool, page: PageQuery<TaskId>) -> Outcome<Page<Task>> {
        let keyset = Keyset::of(page, |id| id.key());
        let sql = format!(
            "SELECT {COLUMNS} FROM task WHERE id {} $1 AND ($2 IS NULL OR org = $2) {} ORDER BY id {} LIMIT $3",
            keyset.beyond_sql(),
            if running_only { "AND status = 0" } else { "" },
            keyset.order_sql()
        );
        let conn = self.db.get().await?;
        let rows = conn.query(&sql, &[p(&keyset.from()), p(&org.as_ref().map(row::bytes)), p(&keyset.wanted_sql())]).await?;
        Ok(keyset.page(rows.iter().map(read).collect::<Outcome<_>>()?))
    }
}

#[async_trait]
impl TaskStore for PostgresStore {
    async fn create_task(&self, task: Task, idem: Option<IdempotencyRecord>) -> Result<Written<Task>> {
        Ok(self.create_task_inner(task, idem.as_ref()).await?)
    }

    async fn get_task(&self, org: OrgId, id: TaskId) -> Result<Option<Task>> {
        let conn = self.db.get().await?;
        Ok(find(&conn, org, id).await?)
    }

    async fn list_tasks(&self, org: Option<OrgId>, running_only: bool, page: PageQuery<TaskId>) -> Result<Page<Task>> {
        Ok(self.list_tasks_inner(org, running_only, page).await?)
    }

    async fn recover_step(
        &self,
        task: &Task,
        endpoint: &Endpoint,
        now: Timestamp,
        limit: usize,
    ) -> Result<(Task, Vec<DueDelivery>)> {
        Ok(self.recover_step_inner(task, endpoint, now, limit).await?)
    }

    async fn finish_task(&self, id: TaskId, status: TaskStatus, now: Timestamp) -> Result<()> {
        let conn = self.db.get().await?;
        let sql = "UPDATE task SET status = $3, updated_at = $4 WHERE id = $1 AND tail = $2";
        if conn.execute(sql, &[p(&id.key()), p(&row::tail(&id)), p(&status_sql(status)), p(&now.as_millis())]).await? == 0 {
            Err(StoreError::NotFound("task"))
        } else {
            Ok(())
        }
    }
}
