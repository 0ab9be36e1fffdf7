//! [`TaskStore`]: the task in `control.db`, the deliveries it makes in the segments.

use async_trait::async_trait;
use bellwire_core::{Endpoint, IdKind, MessageId, OrgId, Page, PageQuery, TaskId, Timestamp, Trigger, id::timestamp_to_key};
use rusqlite::{OptionalExtension, Row, params};

use super::fault::Outcome;
use super::files::Files;
use super::pack::HAS_PAYLOAD;
use super::reader::ReadFiles;
use super::record::{PENDING, is_delivered};
use super::state::{is_queued, retry_row};
use super::{SqliteStore, delivery, idempotency, message, row};
use crate::keyset::Keyset;
use crate::{DueDelivery, IdempotencyRecord, Result, StoreError, Task, TaskKind, TaskStatus, TaskStore, Written};

const COLUMNS: &str = "id, tail, org, kind, status, app, endpoint, since, until, position, messages_sent, created_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        id: row::id(row, 0, 1)?,
        org: row::whole_id(row, 2)?,
        kind: TaskKind::EndpointRecover,
        status: match row.get::<_, i64>(4)? {
            0 => TaskStatus::Running,
            1 => TaskStatus::Finished,
            _ => TaskStatus::Failed,
        },
        app: row::whole_id(row, 5)?,
        endpoint: row::whole_id(row, 6)?,
        since: row::time(row, 7)?,
        until: row::time(row, 8)?,
        position: row.get::<_, Option<[u8; 20]>>(9)?.map(MessageId::from_bytes),
        messages_sent: u64::try_from(row.get::<_, i64>(10)?).unwrap_or(0),
        created_at: row::time(row, 11)?,
        updated_at: row::time(row, 12)?,
    })
}

fn sent(task: &Task) -> i64 {
    i64::try_from(task.messages_sent).unwrap_or(i64::MAX)
}

/// What a step of a recovery looked at.
struct Look {
    wanted: Vec<MessageId>,
    last: Option<MessageId>,
    is_end: bool,
}

/// Up to `limit` messages of the window after the position, and those of them the endpoint wants.
fn look(files: &ReadFiles, task: &Task, endpoint: &Endpoint, limit: usize) -> Outcome<Look> {
    let from = task.position.map_or(i64::MIN, |id| id.key()).max(timestamp_to_key(task.since) - 1);
    let until = timestamp_to_key(Timestamp(task.until.as_millis().saturating_add(1)));
    let mut look = Look { wanted: Vec::new(), last: None, is_end: true };
    let mut seen = 0;
    for segment in message::segments_from(files, &Keyset::ascending(Some(from))) {
        let Some(conn) = files.open(&segment)? else { continue };
        let sql = format!(
            "SELECT id, tail, event_type, channels, {HAS_PAYLOAD} FROM message WHERE app = ?1 AND id > ?2 AND id < ?3 ORDER BY id"
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([task.app.key(), from, until])?;
        while let Some(row) = rows.next()? {
            if seen == limit {
                look.is_end = false;
                return Ok(look);
            }
            seen += 1;
            let id: MessageId = row::id(row, 0, 1)?;
            let channels = row::text_to_list(row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?);
            let event_type: String = row.get(2)?;
            if row.get::<_, bool>(4)? && endpoint.wants(&event_type, &channels) {
                look.wanted.push(id);
            }
            look.last = Some(id);
        }
    }
    Ok(look)
}

/// Requeues what is neither delivered nor unfinished. Done again, it finds them unfinished and does nothing.
fn recover(files: &Files, task: &Task, wanted: &[MessageId], now: Timestamp) -> Outcome<Vec<DueDelivery>> {
    let endpoint = task.endpoint.key();
    let mut due = Vec::new();
    for id in wanted {
        let conn = files.segment_of(id).file.tx()?;
        let is_unfinished = match retry_row(conn, id.key(), endpoint)? {
            Some(row) => row.state == PENDING,
            None => is_queued(conn, id.key(), endpoint)?,
        };
        if is_unfinished || is_delivered(conn, id.key(), endpoint)? {
            continue;
        }
        let delivery = DueDelivery {
            message: *id,
            endpoint: task.endpoint,
            app: task.app,
            tries: 0,
            due_at: now,
            trigger: Trigger::Scheduled,
            resume_at: None,
        };
        delivery::reopen(conn, &delivery)?;
        due.push(delivery);
    }
    Ok(due)
}

#[async_trait]
impl TaskStore for SqliteStore {
    async fn create_task(&self, task: Task, idem: Option<IdempotencyRecord>) -> Result<Written<Task>> {
        let cipher = self.cipher.clone();
        self.write(move |files| {
            let conn = files.control.tx()?;
            idempotency::once(conn, &cipher, idem.as_ref(), || {
                let sql = format!("INSERT INTO task ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)");
                conn.prepare_cached(&sql)?.execute(params![
                    task.id.key(),
                    task.id.tail(),
                    task.org.as_bytes(),
                    task.kind as u8,
                    task.status as u8,
                    task.app.as_bytes(),
                    task.endpoint.as_bytes(),
                    task.since.as_millis(),
                    task.until.as_millis(),
                    task.position.as_ref().map(IdKind::as_bytes),
                    sent(&task),
                    task.created_at.as_millis(),
                    task.updated_at.as_millis(),
                ])?;
                Ok(task)
            })
        })
        .await
    }

    async fn get_task(&self, org: OrgId, id: TaskId) -> Result<Option<Task>> {
        self.read(move |files| {
            let sql = format!("SELECT {COLUMNS} FROM task WHERE id = ?1 AND tail = ?2 AND org = ?3");
            let conn = files.control()?;
            Ok(conn.prepare_cached(&sql)?.query_row(params![id.key(), id.tail(), org.as_bytes()], read).optional()?)
        })
        .await
    }

    async fn list_tasks(&self, org: Option<OrgId>, running_only: bool, page: PageQuery<TaskId>) -> Result<Page<Task>> {
        let keyset = Keyset::of(page, |id| id.key());
        self.read(move |files| {
            let sql = format!(
                "SELECT {COLUMNS} FROM task WHERE id {} ?1 AND (?2 IS NULL OR org = ?2) AND (?3 = 0 OR status = 0) \
                 ORDER BY id {} LIMIT ?4",
                keyset.beyond_sql(),
                keyset.order_sql()
            );
            let conn = files.control()?;
            let mut statement = conn.prepare_cached(&sql)?;
            let org = org.as_ref().map(IdKind::as_bytes);
            let rows = statement.query_map(params![keyset.from(), org, running_only, keyset.wanted_sql()], read)?;
            Ok(keyset.page(rows.collect::<rusqlite::Result<_>>()?))
        })
        .await
    }

    async fn recover_step(
        &self,
        task: &Task,
        endpoint: &Endpoint,
        now: Timestamp,
        limit: usize,
    ) -> Result<(Task, Vec<DueDelivery>)> {
        let (mut task, endpoint) = (task.clone(), endpoint.clone());
        // Looking is done beside the writer; it then checks again only what is wanted.
        let (look, mut task) = self
            .read(move |files| {
                let look = look(files, &task, &endpoint, limit)?;
                task.position = look.last.or(task.position);
                if look.is_end {
                    task.status = TaskStatus::Finished;
                }
                task.updated_at = now;
                Ok((look, task))
            })
            .await?;
        let (task, due) = self
            .write(move |files| {
                let due = recover(files, &task, &look.wanted, now)?;
                task.messages_sent += due.len() as u64;
                // Two files: the segments commit first, so a crash between them repeats the step.
                let sql =
                    "UPDATE task SET position = ?3, messages_sent = ?4, status = ?5, updated_at = ?6 WHERE id = ?1 AND tail = ?2";
                let changed = files.control.tx()?.prepare_cached(sql)?.execute(params![
                    task.id.key(),
                    task.id.tail(),
                    task.position.as_ref().map(IdKind::as_bytes),
                    sent(&task),
                    task.status as u8,
                    now.as_millis(),
                ])?;
                if changed == 0 { Err(StoreError::NotFound("task").into()) } else { Ok((task, due)) }
            })
            .await?;
        if let Some(sink) = self.sink.get() {
            sink.requeued(&due);
        }
        Ok((task, due))
    }

    async fn finish_task(&self, id: TaskId, status: TaskStatus, now: Timestamp) -> Result<()> {
        self.write(move |files| {
            let sql = "UPDATE task SET status = ?3, updated_at = ?4 WHERE id = ?1 AND tail = ?2";
            let conn = files.control.tx()?;
            let changed = conn.prepare_cached(sql)?.execute(params![id.key(), id.tail(), status as u8, now.as_millis()])?;
            if changed == 0 { Err(StoreError::NotFound("task").into()) } else { Ok(()) }
        })
        .await
    }
}
