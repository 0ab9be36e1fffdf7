//! One file as the writer has it: a connection, and the transaction of the running write.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bellwire_core::limits;
use rusqlite::Connection;

use super::SqliteOptions;
use super::fault::Outcome;
use super::file::open_writer;
use super::migrate::{self, migrate};

/// One database file and its writing connection.
pub struct File {
    pub conn: Connection,
    pub path: PathBuf,
    pub log_pages: Arc<AtomicU32>,
    /// Log length at which the checkpointer is asked next.
    pub checkpoint_at: Cell<u32>,
    is_in_transaction: Cell<bool>,
}

impl File {
    pub fn open(path: &Path, cache_bytes: usize, options: &SqliteOptions, steps: migrate::Steps) -> Outcome<Self> {
        let (mut conn, log_pages) = open_writer(path, cache_bytes, options.pages_max)?;
        migrate(&mut conn, steps)?;
        Ok(Self {
            conn,
            path: path.to_owned(),
            log_pages,
            checkpoint_at: Cell::new(limits::CHECKPOINT_PAGES),
            is_in_transaction: Cell::new(false),
        })
    }

    /// The connection, inside the running write's transaction on this file (begun by the first call).
    pub fn tx(&self) -> Outcome<&Connection> {
        if !self.is_in_transaction.get() {
            self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            self.is_in_transaction.set(true);
        }
        Ok(&self.conn)
    }

    /// Commits what [`File::tx`] began. False: nothing was open.
    pub fn commit(&self) -> Outcome<bool> {
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
