//! [`MaintenanceStore`]: retention, sizes, health, closing.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bellwire_core::{Timestamp, id::key_to_timestamp, id::timestamp_to_key, limits};
use rusqlite::Connection;

use super::SqliteStore;
use super::fault::Outcome;
use super::file::{Deadline, open_reader};
use super::files::Files;
use super::message::shredding;
use super::pack;
use super::record::first_tries_left;
use super::segment::bytes_on_disk;
use crate::{MaintenanceStore, Result, RetentionReport, StoreError, StoreReport};

/// Free pages a segment keeps: below, giving them back costs more than it brings.
const FREE_PAGES_KEPT: u32 = 64;
/// Of the newest segment's pages, one in so many may be free: new messages will fill them.
const FREE_SHARE_KEPT: u32 = 8;

/// Whether anything in the segment has yet to be delivered.
fn is_unfinished(conn: &Connection) -> Outcome<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM queue) OR EXISTS (SELECT 1 FROM retry WHERE state = 0)";
    Ok(conn.query_row(sql, [], |row| row.get(0))?)
}

/// Deletes queue rows whose endpoints are all done, a bounded number. There are some only where a process ended between a
/// manual try and the first one.
fn prune_queue(files: &mut Files, at: usize) -> Outcome<()> {
    let conn = &files.segments[at].file.conn;
    let mut done = Vec::new();
    {
        let mut statement = conn.prepare_cached("SELECT message, endpoints FROM queue ORDER BY message LIMIT ?1")?;
        let mut rows = statement.query([i64::try_from(limits::RETAIN_ROWS_MAX).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            let (message, blob): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            if first_tries_left(conn, message, &blob)?.is_empty() {
                done.push(message);
            }
        }
    }
    if !done.is_empty() {
        files.transact(|files| {
            let mut delete = files.segments[at].file.tx()?.prepare_cached("DELETE FROM queue WHERE message = ?1")?;
            for message in &done {
                delete.execute([message])?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Drops one segment that is old enough and has nothing unfinished.
fn drop_old(files: &mut Files, oldest_kept: Timestamp, report: &mut RetentionReport) -> Outcome<()> {
    let mut dropped = None;
    for at in 0..files.segments.len().saturating_sub(1) {
        let last = files.segments[at].newest.unwrap_or(files.segments[at + 1].segment.start);
        if key_to_timestamp(last) > oldest_kept {
            break;
        }
        if let Err(fault) = prune_queue(files, at) {
            // On a full disk this cannot be written; another segment may be free to go without it.
            if fault.is_full() {
                continue;
            }
            return Err(fault);
        }
        if is_unfinished(&files.segments[at].file.conn)? {
            continue;
        }
        if dropped.is_some() {
            report.more = true;
            break;
        }
        dropped = Some(at);
    }
    if let Some(at) = dropped {
        report.bytes_freed += files.drop_segment(at)?;
        report.segments_removed += 1;
    }
    Ok(())
}

/// Deletes payloads past their own expiry, a bounded number.
fn expire_payloads(files: &Files, now: Timestamp, report: &mut RetentionReport) -> Outcome<()> {
    let mut left = limits::RETAIN_ROWS_MAX;
    for segment in &files.segments {
        let conn = &segment.file.conn;
        let due = conn.prepare_cached("SELECT 1 FROM message WHERE payload_dies_at <= ?1 LIMIT 1")?.exists([now.as_millis()])?;
        if !due {
            continue;
        }
        let conn = segment.file.tx()?;
        let Due { messages, packed, is_cut } = due_payloads(conn, now, left)?;
        shredding(conn, || {
            pack::shred(conn, packed)?;
            let sql = "UPDATE message SET payload = NULL, payload_bytes = NULL, payload_dies_at = NULL WHERE id = ?1";
            let mut expire = conn.prepare_cached(sql)?;
            messages.iter().try_for_each(|id| Ok(expire.execute([id]).map(drop)?))
        })?;
        let expired = messages.len();
        report.payloads_expired += expired as u64;
        left -= expired.min(left);
        if left == 0 || is_cut {
            report.more = true;
            return Ok(());
        }
    }
    Ok(())
}

/// Messages whose payload is to go, in the order of its end.
struct Due {
    messages: Vec<i64>,
    packed: Vec<pack::Range>,
    /// There are more, but this is work enough for one step.
    is_cut: bool,
}

fn due_payloads(conn: &Connection, now: Timestamp, rows: usize) -> Outcome<Due> {
    let sql = format!(
        "SELECT id, {} FROM message WHERE payload_dies_at <= ?1 ORDER BY payload_dies_at, id LIMIT ?2",
        pack::Range::COLUMNS
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut found = statement.query([now.as_millis(), i64::try_from(rows).unwrap_or(i64::MAX)])?;
    let mut due = Due { messages: Vec::new(), packed: Vec::new(), is_cut: false };
    let mut packs = HashSet::new();
    while let Some(row) = found.next()? {
        let packed = pack::Range::read(row, 1)?;
        if let Some(range) = packed {
            packs.insert(range.pack);
            if packs.len() > limits::RETAIN_PACKS_MAX {
                due.is_cut = true;
                break;
            }
        }
        due.messages.push(row.get(0)?);
        due.packed.extend(packed);
    }
    Ok(due)
}

/// Forgets what has expired in the control file, a bounded number.
fn forget_expired(files: &Files, now: Timestamp, report: &mut RetentionReport) -> Outcome<()> {
    let rows = i64::try_from(limits::RETAIN_ROWS_MAX).unwrap_or(i64::MAX);
    for (find, forget) in [
        (
            "SELECT 1 FROM idempotency WHERE expires_at <= ?1 LIMIT 1",
            "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)",
        ),
        (
            "SELECT 1 FROM revoked_token WHERE expires_at <= ?1 LIMIT 1",
            "DELETE FROM revoked_token WHERE id IN (SELECT id FROM revoked_token WHERE expires_at <= ?1 LIMIT ?2)",
        ),
    ] {
        if files.control.conn.prepare_cached(find)?.exists([now.as_millis()])? {
            let forgotten = files.control.tx()?.prepare_cached(forget)?.execute([now.as_millis(), rows])?;
            report.more |= forgotten == limits::RETAIN_ROWS_MAX;
        }
    }
    // A segment that takes no messages needs no memory for keys.
    for segment in files.segments.iter().rev().skip(1) {
        let mut keys = segment.keys.borrow_mut();
        if !keys.is_settled() {
            keys.settle_some(segment.file.tx()?, limits::RETAIN_ROWS_MAX)?;
            report.more = true;
        }
    }
    // A segment that has taken no message for a day has no key that still counts.
    for pair in files.segments.windows(2) {
        let conn = &pair[0].file.conn;
        if key_to_timestamp(pair[1].segment.start).plus(crate::idempotency::WINDOW) < now
            && conn.prepare_cached("SELECT 1 FROM idempotency WHERE expires_at <= ?1 LIMIT 1")?.exists([now.as_millis()])?
        {
            let sql = "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE expires_at <= ?1 LIMIT ?2)";
            let forgotten = pair[0].file.tx()?.prepare_cached(sql)?.execute([now.as_millis(), rows])?;
            report.more |= forgotten == limits::RETAIN_ROWS_MAX;
        }
    }
    Ok(())
}

fn pages(conn: &Connection, pragma: &str) -> Outcome<u32> {
    Ok(conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))?)
}

/// Gives free pages of one segment back to the file system, a bounded number.
fn give_back(files: &mut Files, report: &mut RetentionReport) -> Outcome<()> {
    let newest = files.segments.len().saturating_sub(1);
    for at in 0..files.segments.len() {
        let conn = &files.segments[at].file.conn;
        let free = pages(conn, "freelist_count")?;
        if free < FREE_PAGES_KEPT || (at == newest && free < pages(conn, "page_count")? / FREE_SHARE_KEPT) {
            continue;
        }
        {
            let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({})", limits::RETAIN_PAGES_MAX))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        // The file itself shrinks when the log is copied into it.
        files.copy_log(at)?;
        let left = pages(conn, "freelist_count")?;
        report.bytes_freed += u64::from(free.saturating_sub(left)) * u64::from(limits::PAGE_BYTES);
        report.more |= left >= FREE_PAGES_KEPT;
        return Ok(());
    }
    Ok(())
}

fn retain(files: &mut Files, now: Timestamp, retention: Duration) -> Result<RetentionReport> {
    let mut report = RetentionReport::default();
    files.latest = files.latest.max(now);
    // First what frees most and needs no space itself.
    drop_old(files, now.minus(retention), &mut report)?;
    files.roll_over_if_due(timestamp_to_key(now));
    let rows = files.transact(|files| {
        let mut report = RetentionReport::default();
        expire_payloads(files, now, &mut report)?;
        forget_expired(files, now, &mut report)?;
        Ok(report)
    });
    match rows {
        Ok(rows) => {
            report.payloads_expired += rows.payloads_expired;
            report.more |= rows.more;
        }
        // What was dropped makes space for the rest, next time.
        Err(StoreError::Full) if report.segments_removed > 0 => {
            report.more = true;
            return Ok(report);
        }
        Err(error) => return Err(error),
    }
    give_back(files, &mut report)?;
    Ok(report)
}

/// Everything the integrity check has to say about one file.
fn findings(path: &std::path::Path) -> Vec<String> {
    let check = || -> Outcome<Vec<String>> {
        let conn = open_reader(path, limits::OLD_SEGMENT_CACHE_BYTES, &Deadline::new())?;
        let mut statement = conn.prepare("PRAGMA integrity_check(20)")?;
        let lines = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    };
    let lines = check().unwrap_or_else(|fault| vec![fault.to_string()]);
    lines.into_iter().map(|line| format!("{}: {line}", path.display())).collect()
}

#[async_trait]
impl MaintenanceStore for SqliteStore {
    async fn ping(&self) -> Result<()> {
        if self.inbox.is_closed() {
            return Err(StoreError::Closed);
        }
        if self.inbox.is_full() {
            return Err(StoreError::Full);
        }
        self.read(|files| Ok(files.control()?.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    async fn last_key(&self) -> Result<i64> {
        self.scan(|files| {
            let highest = |conn: &Connection, sql: &str| -> Outcome<i64> {
                Ok(conn.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0))
            };
            let control = files.control()?;
            let mut last = 0;
            for table in ["application", "endpoint", "api_key", "task", "source", "receipt"] {
                last = last.max(highest(&control, &format!("SELECT max(id) FROM {table}"))?);
            }
            for segment in files.segments().iter() {
                if let Some(conn) = files.open(segment)? {
                    last = last.max(highest(&conn, "SELECT max(id) FROM message")?);
                    last = last.max(highest(&conn, "SELECT max(id) FROM attempt")?);
                }
            }
            Ok(last)
        })
        .await
    }

    async fn prepare(&self, now: Timestamp) -> Result<()> {
        // Also while the disk is full: where no segment can be made, the current one goes on.
        self.inbox
            .run(true, move |files| {
                files.roll_over_if_due(timestamp_to_key(now));
                Ok(())
            })
            .await
    }

    async fn retain(&self, now: Timestamp, retention: Duration) -> Result<RetentionReport> {
        let report = self.inbox.run(true, move |files| retain(files, now, retention)).await?;
        if report.segments_removed > 0 {
            self.readers.nudge();
        }
        Ok(report)
    }

    async fn report(&self) -> Result<StoreReport> {
        let segments = self.catalogue.get();
        let control = self.dir.join("control.db");
        let paths = segments.iter().map(|segment| &segment.path).chain([&control]);
        Ok(StoreReport {
            bytes_on_disk: paths.map(|path| bytes_on_disk(path)).sum(),
            segments: segments.len() as u64,
            commits_total: self.stats.commits.load(Ordering::Relaxed),
            commit_items_total: self.stats.items.load(Ordering::Relaxed),
            commit_seconds_total: Duration::from_nanos(self.stats.commit_nanos.load(Ordering::Relaxed)).as_secs_f64(),
            writer_queue: self.inbox.len() as u64,
            is_full: self.inbox.is_full(),
            notes: vec![
                format!("SQLite {}, write-ahead log, synced before every answer", rusqlite::version()),
                format!("data directory {}", self.dir.display()),
            ],
        })
    }

    async fn check(&self) -> Result<Vec<String>> {
        let mut paths = vec![self.dir.join("control.db")];
        paths.extend(self.catalogue.get().iter().map(|segment| segment.path.clone()));
        let (reply, answer) = tokio::sync::oneshot::channel();
        // On its own thread: it reads everything, which no reading thread has the time for.
        std::thread::Builder::new()
            .name("store-check".to_owned())
            .spawn(move || {
                let _ = reply.send(paths.iter().flat_map(|path| findings(path)).collect());
            })
            .map_err(|error| StoreError::Io(error.to_string()))?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    async fn close(&self) -> Result<()> {
        self.inbox.close();
        self.inbox.wait_until_done().await;
        self.shut();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::migrate;

    /// Without it, one step of retention writes a thousand packs again, and everybody's commits wait for it.
    #[test]
    fn one_step_of_retention_touches_so_many_packs_and_no_more() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate::migrate(&mut conn, migrate::SEGMENT).unwrap();
        let packs = i64::try_from(limits::RETAIN_PACKS_MAX).unwrap();
        let add = |id: i64, pack: Option<i64>, dies_at: i64| {
            let sql = "INSERT INTO message (id, tail, app, event_type, encoding, checksum, payload_expires_at, payload_dies_at, pack, \
                       pack_at, payload_bytes) VALUES (?1, x'', 1, 'a', 0, 0, ?2, ?2, ?3, 0, ?4)";
            conn.execute(sql, rusqlite::params![id, dies_at, pack, pack.map(|_| 1)]).unwrap();
        };
        // Two messages a pack, and one that carries its payload itself; the last pack is one too many.
        for pack in 0..=packs {
            (0..2).for_each(|n| add(10 * pack + n, Some(pack), 10 * pack));
            add(10 * pack + 2, None, 10 * pack);
        }
        add(99_999, None, i64::MAX);
        let due = due_payloads(&conn, Timestamp(i64::MAX - 1), 10_000).unwrap();
        assert_eq!((due.messages.len(), due.packed.len(), due.is_cut), (3 * packs as usize, 2 * packs as usize, true));
        let due = due_payloads(&conn, Timestamp(10 * (packs - 1)), 10_000).unwrap();
        assert_eq!((due.messages.len(), due.is_cut), (3 * packs as usize, false));
        let due = due_payloads(&conn, Timestamp(i64::MAX - 1), 7).unwrap();
        assert_eq!((due.messages, due.packed.len(), due.is_cut), (vec![0, 1, 2, 10, 11, 12, 20], 5, false));
    }
}
