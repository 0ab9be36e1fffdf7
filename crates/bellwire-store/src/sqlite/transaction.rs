//! One file as the writer has it: a connection, and the transaction of the running write.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use rusqlite::Connection;

use super::SqliteOptions;
use super::fault::{Outcome, io};
use super::file::open_writer;
use super::migrate::{self, migrate};
use super::segment::companions;
use super::writer::WRITERS;
use crate::StoreError;

/// One database file and its writing connection.
pub struct File {
    pub conn: Connection,
    pub path: PathBuf,
    pub log_pages: Arc<AtomicU32>,
    /// How much of the log is copied, as the last pass over it told.
    pub copied_pages: Arc<AtomicU32>,
    is_in_transaction: Cell<bool>,
    /// The write-ahead log, to be synced: opened once for each thread that writes, so that each learns of a failure, whoever's sync met
    /// it. SQLite keeps its locks on other files: closing this one loses none of them.
    pub logs: [Arc<std::fs::File>; WRITERS],
    is_synced_by_sqlite: bool,
}

impl File {
    pub fn open(path: &Path, cache_bytes: usize, options: &SqliteOptions, steps: migrate::Steps) -> Outcome<Self> {
        let (mut conn, log_pages) = open_writer(path, cache_bytes, options.pages_max)?;
        migrate(&mut conn, steps)?;
        let [_, log, _] = companions(path);
        let open = || std::fs::File::options().write(true).open(&log).map_err(|error| io("opening a write-ahead log", &error));
        let logs = [Arc::new(open()?), Arc::new(open()?)];
        Ok(Self {
            conn,
            path: path.to_owned(),
            log_pages,
            copied_pages: Arc::default(),
            is_in_transaction: Cell::new(false),
            logs,
            is_synced_by_sqlite: false,
        })
    }

    /// SQLite itself syncs each commit, before anybody can read it: for what is answered from what was read, as answers kept for
    /// their idempotency key are.
    pub fn read_when_durable(mut self) -> Outcome<Self> {
        self.conn.execute_batch("PRAGMA synchronous = FULL")?;
        self.is_synced_by_sqlite = true;
        Ok(self)
    }

    /// The connection, inside the running write's transaction on this file (begun by the first call).
    pub fn tx(&self) -> Outcome<&Connection> {
        if !self.is_in_transaction.get() {
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            self.is_in_transaction.set(true);
        }
        Ok(&self.conn)
    }

    /// Commits and syncs what [`File::tx`] began. False: nothing was open.
    pub fn commit(&self) -> Outcome<bool> {
        let is_committed = self.commit_unsynced()?;
        if is_committed && !self.is_synced_by_sqlite {
            // Never taken for a full disk, after which all would go on: what is durable is not known any more.
            self.logs[0].sync_data().map_err(|error| StoreError::Io(format!("syncing a write-ahead log: {error}")))?;
        }
        Ok(is_committed)
    }

    /// As [`File::commit`], without the sync.
    pub fn commit_unsynced(&self) -> Outcome<bool> {
        if !self.is_in_transaction.get() {
            return Ok(false);
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        self.is_in_transaction.set(false);
        Ok(true)
    }

    pub fn roll_back(&self) {
        if self.is_in_transaction.replace(false)
            && !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a rollback failed");
        }
    }
}
