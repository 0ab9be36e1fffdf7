//! The embedded backend: SQLite, one writing thread with group commit, a few reading threads.
//!
//! | file of the store | what is in it |
//! |---|---|
//! | `control.db` | applications, endpoints, event types, keys, tasks: small and kept |
//! | `seg-<start>.db` | messages of a range of ids, with all that hangs on them; dropped whole by retention |
//! | `bellwire.lock` | held while a process has the store |
//!
//! `inbox.rs` → `writer.rs` → (`accept.rs`, `record.rs`) → `syncer.rs` is the way of a write, on one of two threads that take turns, `reader.rs` that of a read; the files named
//! after nouns implement the traits of the same name.

mod accept;
mod application;
mod attempt;
mod attempted;
mod checkpoint;
mod credential;
mod delivery;
mod endpoint;
mod event_type;
pub(crate) mod export;
mod fault;
mod file;
mod files;
#[cfg(test)]
mod fixture;
mod idempotency;
mod inbox;
mod keys;
mod maintenance;
mod message;
mod migrate;
mod outstanding;
mod pack;
mod reader;
mod record;
mod row;
mod segment;
mod shard;
mod source;
mod state;
mod syncer;
mod tail;
mod task;
mod transaction;
mod url;
mod writer;

use std::fs::TryLockError;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bellwire_core::{IdKind, OrgId};
use parking_lot::Mutex;
use rusqlite::OptionalExtension;

use crate::{Cipher, CommitSink, Result, Store, StoreError};
use checkpoint::Checkpointer;
use fault::{Outcome, io};
use files::{Files, Stats};
use inbox::Inbox;
use reader::{Haste, ReadFiles, Readers};
use segment::Catalogue;
use tail::Tails;
use writer::Writer;

/// How the embedded store is opened. [`SqliteOptions::new`] has defaults for all but place and key.
#[derive(Clone)]
pub struct SqliteOptions {
    /// The data directory; created if it is missing.
    pub dir: PathBuf,
    pub cipher: Cipher,
    /// How long messages are kept. Payloads that expire earlier are deleted one by one.
    pub retention: Duration,
    /// How long one segment takes new messages: what retention frees at a time.
    pub segment_span: Duration,
    pub reader_threads: usize,
    /// Page cache of the writer for the newest segment.
    pub cache_bytes: usize,
    /// Largest size of each file in pages ([`bellwire_core::limits::PAGE_BYTES`]); `None`: the disk's. Beyond it the disk counts as full.
    pub pages_max: Option<u32>,
    /// What happens when a commit cannot be synced. By default the process aborts: what is durable is not known any more.
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl SqliteOptions {
    pub fn new(dir: impl Into<PathBuf>, cipher: Cipher) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            dir: dir.into(),
            cipher,
            retention: 90 * DAY,
            segment_span: 7 * DAY,
            reader_threads: 3,
            cache_bytes: 32 * 1024 * 1024,
            pages_max: None,
            on_fatal: Arc::new(|_| std::process::abort()),
        }
    }

    /// With segments of a twelfth of it, at most a week and at least a second: retention is then late by no more than that.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self.segment_span = self.segment_span.min(retention / 12).max(Duration::from_secs(1));
        self
    }
}

/// The embedded store.
pub struct SqliteStore {
    dir: PathBuf,
    cipher: Cipher,
    inbox: Arc<Inbox>,
    readers: Readers,
    sink: Arc<OnceLock<Arc<dyn CommitSink>>>,
    catalogue: Arc<Catalogue>,
    stats: Arc<Stats>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held until the store is closed.
    lock: Mutex<Option<std::fs::File>>,
}

impl Store for SqliteStore {}

impl SqliteStore {
    /// Opens or creates the store. Errors: [`StoreError::Locked`], [`StoreError::TooNew`], [`StoreError::Cipher`] (another
    /// master key), or what the file system says.
    pub fn open(options: SqliteOptions) -> Result<Arc<Self>> {
        Ok(Self::open_inner(options)?)
    }

    fn open_inner(options: SqliteOptions) -> Outcome<Arc<Self>> {
        file::check_version()?;
        let dir = options.dir.clone();
        std::fs::create_dir_all(&dir).map_err(|error| io(&format!("creating {}", dir.display()), &error))?;
        let lock = take_lock(&dir)?;
        let options = Arc::new(options);
        let tails = Arc::new(Tails::default());
        let no_thread = |error: std::io::Error| io("starting a thread", &error);
        let (checkpointer, checkpoints) = Checkpointer::start(options.on_fatal.clone()).map_err(no_thread)?;
        let files = Files::open(options.clone(), checkpointer)?;
        check_key(&files, &options.cipher)?;
        let (catalogue, stats) = (files.catalogue.clone(), files.stats.clone());
        let inbox = Arc::new(Inbox::new());
        let sink = Arc::new(OnceLock::new());
        let readers = Readers::start(options.reader_threads, dir.clone(), &catalogue, &tails).map_err(no_thread)?;
        let writer = Writer::new(files, inbox.clone(), sink.clone());
        let writing =
            std::thread::Builder::new().name("store-write".to_owned()).spawn(move || writer.run()).map_err(no_thread)?;
        Ok(Arc::new(Self {
            dir,
            cipher: options.cipher.clone(),
            inbox,
            readers,
            sink,
            catalogue,
            stats,
            threads: Mutex::new(vec![writing, checkpoints]),
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Runs a write on the writer's thread, in one transaction.
    async fn write<T: Send + 'static>(&self, act: impl FnOnce(&Files) -> Outcome<T> + Send + 'static) -> Result<T> {
        self.inbox.run(false, |files| files.transact(act)).await
    }

    /// As [`Self::write`], also while the disk is full: for what frees space.
    async fn write_freeing<T: Send + 'static>(&self, act: impl FnOnce(&Files) -> Outcome<T> + Send + 'static) -> Result<T> {
        self.inbox.run(true, |files| files.transact(act)).await
    }

    /// A short read, of a row or a page of rows that are needed for going on.
    async fn read<T: Send + 'static>(&self, act: impl FnOnce(&ReadFiles) -> Outcome<T> + Send + 'static) -> Result<T> {
        self.readers.read(Haste::Short, act).await
    }

    /// A read that may take long: lists and counts for people. Never makes short ones wait.
    async fn scan<T: Send + 'static>(&self, act: impl FnOnce(&ReadFiles) -> Outcome<T> + Send + 'static) -> Result<T> {
        self.readers.read(Haste::Long, act).await
    }

    /// Writes what waits, ends the threads, releases the lock. Blocks; a second call does nothing.
    fn shut(&self) {
        self.inbox.close();
        self.readers.close();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
        self.lock.lock().take();
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shut();
    }
}

fn take_lock(dir: &std::path::Path) -> Outcome<std::fs::File> {
    let path = dir.join("bellwire.lock");
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| io(&format!("opening {}", path.display()), &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: dir.display().to_string() }.into()),
        Err(TryLockError::Error(error)) => Err(io(&format!("locking {}", path.display()), &error).into()),
    }
}

/// Notices a wrong master key at the start and not at the first delivery.
fn check_key(files: &Files, cipher: &Cipher) -> Outcome<()> {
    let nobody = OrgId::from_bytes([0; 20]);
    let conn = &files.control.conn;
    let known: Option<Vec<u8>> =
        conn.query_row("SELECT value FROM meta WHERE name = 'key_check'", [], |row| row.get(0)).optional()?;
    match known {
        Some(sealed) => cipher
            .open(&nobody, "meta/key_check", &sealed)
            .map(|_| ())
            .map_err(|_| StoreError::Cipher("the master key is not the one this store was created with".to_owned()).into()),
        None => {
            let sealed = cipher.seal(&nobody, "meta/key_check", b"bellwire")?;
            conn.execute("INSERT INTO meta (name, value) VALUES ('key_check', ?1)", [sealed])?;
            Ok(())
        }
    }
}
