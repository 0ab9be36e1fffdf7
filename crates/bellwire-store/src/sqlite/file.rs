//! Opening database files: the settings of writing and of reading connections.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwire_core::limits;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault::Outcome;
use crate::StoreError;

/// SQLite versions below have a bug that can corrupt a write-ahead log (fixed in 3.51.3).
const VERSION_MIN: i32 = 3_051_003;
/// Statements kept prepared per connection: all that the writer uses, and most of what readers do.
const STATEMENTS_KEPT: usize = 96;
/// A log that has grown under a burst is cut back to this when it starts over.
const LOG_BYTES_KEPT: u64 = 32 * 1024 * 1024;
/// Connections of one process wait this long for each other's short locks (checkpoints, log restarts).
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How many virtual machine steps pass between looks at the clock: some tens of microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 2_000;

pub fn check_version() -> Outcome<()> {
    if rusqlite::version_number() < VERSION_MIN {
        return Err(StoreError::Io(format!("SQLite {} is too old: 3.51.3 is needed", rusqlite::version())).into());
    }
    Ok(())
}

/// Prepared statements stay as they were planned. Otherwise SQLite plans anew what compares a column with a parameter every time
/// its parameters have been cleared, in case the new values allow a better plan: a third of the writer's time. No index is chosen
/// by values here.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// A connection that writes. `pages` shows the length of the write-ahead log after each commit.
pub fn open_writer(path: &Path, cache_bytes: usize, pages_max: Option<u32>) -> Outcome<(Connection, Arc<AtomicU32>)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(LOCK_WAIT)?;
    // These only have an effect on a new file: how large its pages are, and that space can be given back in steps.
    conn.pragma_update(None, "page_size", limits::PAGE_BYTES)?;
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Io(format!("{} cannot use a write-ahead log (journal mode {mode})", path.display())).into());
    }
    // NORMAL: whoever commits syncs the log (`transaction.rs`, `syncer.rs`); SQLite does it only before it overwrites or copies it.
    conn.execute_batch(&format!(
        "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = {LOG_BYTES_KEPT};
         PRAGMA cache_size = -{}; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF;",
        cache_bytes / 1024
    ))?;
    if let Some(pages) = pages_max {
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let pages = Arc::new(AtomicU32::new(0));
    let shown = pages.clone();
    conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, length: i32| {
        shown.store(u32::try_from(length).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    Ok((conn, pages))
}

/// When the statement running on a reading connection has to end.
#[derive(Clone, Debug)]
pub struct Deadline {
    started: Instant,
    at_ms: Arc<AtomicU64>,
}

impl Deadline {
    pub fn new() -> Self {
        Self { started: Instant::now(), at_ms: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn set(&self, in_ms: u64) {
        self.at_ms.store(self.elapsed_ms().saturating_add(in_ms), Ordering::Relaxed);
    }

    pub fn clear(&self) {
        self.at_ms.store(u64::MAX, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.elapsed_ms() > self.at_ms.load(Ordering::Relaxed)
    }
}

/// A connection that only reads, and stops at the deadline.
pub fn open_reader(path: &Path, cache_bytes: usize, deadline: &Deadline) -> Outcome<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(LOCK_WAIT)?;
    conn.execute_batch(&format!(
        "PRAGMA query_only = ON; PRAGMA cache_size = -{}; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;",
        cache_bytes / 1024
    ))?;
    keep_plans(&conn)?;
    super::pack::teach(&conn)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let deadline = deadline.clone();
    conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || deadline.is_over()))?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_its_deadline_ends_as_busy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let (writer, _) = open_writer(&path, 1024 * 1024, None).unwrap();
        writer.execute_batch("CREATE TABLE t (a)").unwrap();
        let deadline = Deadline::new();
        let reader = open_reader(&path, 1024 * 1024, &deadline).unwrap();
        let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        deadline.set(20);
        let result: Outcome<i64> = reader.query_row(endless, [], |row| row.get(0)).map_err(Into::into);
        let error: StoreError = result.unwrap_err().into();
        assert!(matches!(error, StoreError::Busy(_)), "{error}");
        deadline.clear();
        assert_eq!(reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)), Ok(0), "the next one is not affected");
        assert!(reader.execute("INSERT INTO t VALUES (1)", []).is_err(), "readers cannot write");
    }
}
