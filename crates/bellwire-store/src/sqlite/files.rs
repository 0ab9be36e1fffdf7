//! The writer's side of the files: one writing connection each, transactions over those a write touches, new segments.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwire_core::{IdKind, Timestamp, id::key_to_timestamp, limits};
use rusqlite::{Connection, OptionalExtension};

use super::SqliteOptions;
use super::checkpoint::{Checkpointer, Due};
use super::fault::{Fault, Outcome, io};
use super::keys::Keys;
use super::migrate;
use super::outstanding::Outstanding;
use super::pack::Press;
use super::segment::{Catalogue, Segment, companions, place_of, sync_dir};
use super::transaction::File;
use super::url::Urls;
use crate::Result;

/// A new segment that could not be started is tried again after this.
const ROLL_OVER_PAUSE: Duration = Duration::from_secs(10);

/// What the writer has done, for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    pub commits: AtomicU64,
    pub items: AtomicU64,
    pub commit_nanos: AtomicU64,
}

impl Stats {
    pub fn add_time(&self, since: Instant) {
        let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.commit_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// A segment as the writer has it.
pub struct SegmentFile {
    pub segment: Arc<Segment>,
    pub file: File,
    /// Keys of the first and last message in it.
    pub oldest: Option<i64>,
    pub newest: Option<i64>,
    pub keys: RefCell<Keys>,
}

/// Whether the writer can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Sound,
    /// Nothing can be written until there is space.
    Full,
    /// A commit failed: what is durable is not known any more, so nothing may be written.
    Dead,
}

pub struct Files {
    pub control: File,
    /// By start; the last one takes new messages.
    pub segments: Vec<SegmentFile>,
    pub catalogue: Arc<Catalogue>,
    pub options: Arc<SqliteOptions>,
    pub stats: Arc<Stats>,
    pub outstanding: Outstanding,
    pub urls: Urls,
    pub press: RefCell<Press>,
    pub health: Health,
    /// The latest time any write has told of.
    pub latest: Timestamp,
    checkpointer: Checkpointer,
    roll_over_again_at: Option<Instant>,
}

impl Files {
    /// Opens (and where needed creates and migrates) every file.
    pub fn open(options: Arc<SqliteOptions>, checkpointer: Checkpointer) -> Outcome<Self> {
        let control = File::open(&options.dir.join("control.db"), limits::OLD_SEGMENT_CACHE_BYTES, &options, migrate::CONTROL)?
            .read_when_durable()?;
        let mut found = super::segment::scan(&options.dir)?;
        if found.is_empty() {
            let first = Arc::new(Segment::new(&options.dir, 0));
            create_segment(&first, &options)?;
            found.push(first);
        }
        let last = found.len() - 1;
        let mut segments = Vec::with_capacity(found.len());
        for (at, segment) in found.into_iter().enumerate() {
            let opened = open_segment(segment, options.cache_bytes, &options)?;
            if at < last {
                settle_down(&opened.file.conn)?;
            }
            segments.push(opened);
        }
        sync_dir(&options.dir)?;
        let latest = segments.iter().filter_map(|s| s.newest).max().map_or(Timestamp(0), key_to_timestamp);
        let catalogue = Arc::new(Catalogue::new(segments.iter().map(|s| s.segment.clone()).collect()));
        Ok(Self {
            control,
            segments,
            catalogue,
            options,
            stats: Arc::default(),
            outstanding: Outstanding::default(),
            urls: Urls::default(),
            press: RefCell::new(Press::new()),
            health: Health::Sound,
            latest,
            checkpointer,
            roll_over_again_at: None,
        })
    }

    /// Where the messages of this key are.
    pub fn place_of(&self, key: i64) -> usize {
        place_of(self.segments.iter().map(|s| s.segment.start), key)
    }

    pub fn segment_of(&self, id: &impl IdKind) -> &SegmentFile {
        &self.segments[self.place_of(id.key())]
    }

    /// Runs one write: all files it touches are committed (segments before the control file) if it succeeds, and none if it fails.
    pub fn transact<T>(&mut self, act: impl FnOnce(&Self) -> Outcome<T>) -> Result<T> {
        match act(self) {
            Ok(value) => {
                self.commit(1)?;
                Ok(value)
            }
            Err(fault) => {
                self.roll_back(&fault);
                Err(fault.into())
            }
        }
    }

    /// Commits what is open. On a full disk all is rolled back; any other failure ends the writer.
    pub fn commit(&mut self, items: usize) -> Result<()> {
        let started = Instant::now();
        let mut commits = 0;
        let files = self.segments.iter().map(|s| &s.file).chain([&self.control]);
        let mut failed = None;
        for file in files {
            match file.commit() {
                Ok(did) => commits += u64::from(did),
                Err(fault) => {
                    failed = Some(fault);
                    break;
                }
            }
        }
        if let Some(fault) = failed {
            self.roll_back(&fault);
            if !fault.is_full() {
                self.die(&fault);
            }
            return Err(fault.into());
        }
        if commits > 0 {
            for segment in &self.segments {
                segment.keys.borrow_mut().committed();
            }
            self.stats.commits.fetch_add(commits, Ordering::Relaxed);
            self.stats.items.fetch_add(items as u64, Ordering::Relaxed);
            self.stats.add_time(started);
            self.checkpoint_if_due();
        }
        Ok(())
    }

    /// Commits what is open in one segment, as far as the kernel: it is durable when its log is synced.
    pub fn commit_unsynced(&mut self, at: usize, items: usize) -> Outcome<()> {
        let started = Instant::now();
        if self.segments[at].file.commit_unsynced()? {
            self.segments[at].keys.borrow_mut().committed();
            self.stats.commits.fetch_add(1, Ordering::Relaxed);
            self.stats.items.fetch_add(items as u64, Ordering::Relaxed);
            self.stats.add_time(started);
            self.checkpoint_if_due();
        }
        Ok(())
    }

    /// Undoes what is open, because of `fault`.
    pub fn roll_back(&mut self, fault: &Fault) {
        for file in self.segments.iter().map(|s| &s.file).chain([&self.control]) {
            file.roll_back();
        }
        for segment in &self.segments {
            segment.keys.borrow_mut().rolled_back();
        }
        // What was learned inside the transaction is not true any more.
        self.outstanding.clear();
        self.urls.clear();
        if fault.is_full() && self.health == Health::Sound {
            self.health = Health::Full;
        }
    }

    /// A failed sync must never be repeated: the kernel may have dropped the pages and would report success.
    pub fn die(&mut self, fault: &Fault) {
        self.health = Health::Dead;
        tracing::error!(error = %fault, "a commit failed; stopping, so that nothing is acknowledged that is not durable");
        (self.options.on_fatal)(&fault.to_string());
    }

    fn checkpoint_if_due(&mut self) {
        let mut failed = None;
        for file in self.segments.iter().map(|s| &s.file).chain([&self.control]) {
            let pages = file.log_pages.load(Ordering::Relaxed);
            let mut copied = file.copied_pages.load(Ordering::Relaxed);
            if copied > pages {
                // The log has begun anew.
                copied = 0;
                file.copied_pages.store(copied, Ordering::Relaxed);
            }
            match Due::of(pages, copied, self.checkpointer.is_busy()) {
                Due::Nothing => {}
                Due::Copy => self.checkpointer.ask(&file.path, &file.copied_pages),
                Due::Finish => match super::checkpoint::run(&file.conn, "PASSIVE") {
                    Ok(copied) => file.copied_pages.store(copied, Ordering::Relaxed),
                    Err(fault) => failed = Some(fault),
                },
            }
        }
        if let Some(fault) = failed.filter(super::checkpoint::is_fatal) {
            self.die(&fault);
        }
    }

    /// Copies a segment's log into it now, after the checkpointer, which would otherwise be in the way.
    pub fn copy_log(&self, at: usize) -> Outcome<()> {
        let file = &self.segments[at].file;
        self.checkpointer.forget(&file.path);
        super::checkpoint::run(&file.conn, "PASSIVE").map(drop)
    }

    /// Starts a new segment if the message of `key` is too late for the current one. Where that fails, the current one goes on.
    pub fn roll_over_if_due(&mut self, key: i64) {
        let Some(current) = self.segments.last() else { return };
        let (Some(oldest), Some(newest)) = (current.oldest, current.newest) else { return };
        if key_to_timestamp(key).since(key_to_timestamp(oldest)) < self.options.segment_span {
            return;
        }
        if self.roll_over_again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.roll_over_again_at = None;
        if let Err(error) = self.roll_over(key.max(newest + 1)) {
            tracing::error!(%error, "no new segment could be started; the current one goes on");
            self.roll_over_again_at = Some(Instant::now() + ROLL_OVER_PAUSE);
        }
    }

    fn roll_over(&mut self, start: i64) -> Outcome<()> {
        let segment = Arc::new(Segment::new(&self.options.dir, start));
        create_segment(&segment, &self.options)?;
        let opened = match open_segment(segment.clone(), self.options.cache_bytes, &self.options) {
            Ok(opened) => opened,
            Err(fault) => {
                // A segment that exists takes all later ids at the next start: it must be in use, or not be there.
                if std::fs::remove_file(&segment.path).and_then(|()| std::fs::File::open(&self.options.dir)?.sync_all()).is_err()
                {
                    self.die(&fault);
                }
                return Err(fault);
            }
        };
        tracing::info!(path = %opened.segment.path.display(), "new segment");
        self.segments.push(opened);
        self.urls.clear();
        self.publish();
        let previous = &self.segments[self.segments.len() - 2];
        if let Err(fault) = settle_down(&previous.file.conn) {
            self.die(&fault);
        }
        Ok(())
    }

    /// Takes the segment out of the store and deletes its files. Returns the bytes freed.
    pub fn drop_segment(&mut self, at: usize) -> Outcome<u64> {
        let dropped = self.segments.remove(at);
        self.publish();
        let path = dropped.segment.path.clone();
        let bytes = super::segment::bytes_on_disk(&path);
        self.checkpointer.forget(&path);
        if let Err((_, error)) = dropped.file.conn.close() {
            tracing::warn!(%error, "a segment did not close cleanly");
        }
        for file in companions(&path) {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("deleting a segment", &error).into()),
                _ => {}
            }
        }
        sync_dir(&self.options.dir)?;
        Ok(bytes)
    }

    fn publish(&self) {
        self.catalogue.set(self.segments.iter().map(|s| s.segment.clone()).collect());
    }

    /// Copies every log into its database and closes the connections.
    pub fn close(self) {
        for file in self.segments.into_iter().map(|s| s.file).chain([self.control]) {
            if let Err(error) = super::checkpoint::run(&file.conn, "TRUNCATE") {
                tracing::warn!(%error, path = %file.path.display(), "the log was not emptied at the end; it is read at the next start");
            }
        }
    }
}

/// Made beside its place and moved there, so that a segment exists whole or not at all.
fn create_segment(segment: &Segment, options: &SqliteOptions) -> Outcome<()> {
    let draft = segment.path.with_extension("new");
    for leftover in companions(&draft) {
        match std::fs::remove_file(&leftover) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("creating a segment", &error).into()),
            _ => {}
        }
    }
    let file = File::open(&draft, limits::OLD_SEGMENT_CACHE_BYTES, options, migrate::SEGMENT)?;
    // The last connection to close empties and removes the log.
    file.conn.close().map_err(|(_, error)| error)?;
    std::fs::rename(&draft, &segment.path).map_err(|error| io("creating a segment", &error))?;
    sync_dir(&options.dir)
}

/// A segment that takes no new messages needs little memory and no long log. The log is emptied if no reader is in the way.
/// An error: a sync failed.
fn settle_down(conn: &Connection) -> Outcome<()> {
    let kibibytes = limits::OLD_SEGMENT_CACHE_BYTES / 1024;
    conn.execute_batch(&format!("PRAGMA cache_size = -{kibibytes}; PRAGMA journal_size_limit = 0;"))?;
    conn.release_memory()?;
    conn.busy_timeout(Duration::ZERO)?;
    let emptied = super::checkpoint::run(conn, "TRUNCATE");
    conn.busy_timeout(super::file::LOCK_WAIT)?;
    match emptied {
        Err(fault) if super::checkpoint::is_fatal(&fault) => Err(fault),
        _ => Ok(()),
    }
}

fn open_segment(segment: Arc<Segment>, cache_bytes: usize, options: &SqliteOptions) -> Outcome<SegmentFile> {
    let file = File::open(&segment.path, cache_bytes, options, migrate::SEGMENT)?;
    let edge = |sql: &str| file.conn.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).optional().map(Option::flatten);
    let (oldest, newest) = (edge("SELECT min(id) FROM message")?, edge("SELECT max(id) FROM message")?);
    let keys = RefCell::new(Keys::load(&file.conn)?);
    Ok(SegmentFile { segment, file, oldest, newest, keys })
}
