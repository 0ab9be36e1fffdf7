//! Reading: a few threads with their own read-only connections, a bounded queue, and a time limit for every read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bellwire_core::{AppId, EndpointId, limits};
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::fault::Outcome;
use super::file::{Deadline, open_reader};
use super::segment::{Catalogue, Segment, Segments, place_of};
use super::tail::Tails;
use crate::{Result, StoreError};

/// Idle readers look around this often, so that deleted files are let go of.
const PATIENCE: Duration = Duration::from_secs(1);

type Read = Box<dyn FnOnce(Result<&ReadFiles>) + Send>;

/// How long a read may take. One thread is kept for the short ones: deliveries need them, whatever people look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    Short,
    Long,
}

#[derive(Default)]
struct State {
    short: VecDeque<Read>,
    long: VecDeque<Read>,
    is_closing: bool,
}

impl State {
    fn next(&mut self, is_for_short: bool) -> Option<Read> {
        self.short.pop_front().or_else(|| if is_for_short { None } else { self.long.pop_front() })
    }
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// The pool.
pub struct Readers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    /// At least two threads, the first of them for short reads only.
    pub fn start(threads: usize, dir: PathBuf, catalogue: &Arc<Catalogue>, tails: &Arc<Tails>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() });
        let threads = (0..threads.max(2))
            .map(|n| {
                let (shared, dir, catalogue, tails) = (shared.clone(), dir.clone(), catalogue.clone(), tails.clone());
                std::thread::Builder::new()
                    .name(format!("store-read-{n}"))
                    .spawn(move || work(&shared, n == 0, &ReadFiles::new(dir, catalogue, tails)))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { shared, threads: Mutex::new(threads) })
    }

    pub async fn read<T: Send + 'static>(
        &self,
        haste: Haste,
        act: impl FnOnce(&ReadFiles) -> Outcome<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |files| {
            let _ = reply.send(files.and_then(|files| act(files).map_err(Into::into)));
        });
        {
            let mut state = self.shared.state.lock();
            if state.is_closing {
                return Err(StoreError::Closed);
            }
            let line = if haste == Haste::Short { &mut state.short } else { &mut state.long };
            if line.len() >= limits::READ_QUEUE_MAX {
                return Err(StoreError::Busy("too many reads are waiting"));
            }
            line.push_back(read);
        }
        // All of them: the one woken might not be one that takes this kind.
        self.shared.wake.notify_all();
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Wakes idle readers, so that they close files that are gone.
    pub fn nudge(&self) {
        self.shared.wake.notify_all();
    }

    /// Ends the threads once what waits is answered.
    pub fn close(&self) {
        self.shared.state.lock().is_closing = true;
        self.shared.wake.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, is_for_short: bool, files: &ReadFiles) {
    loop {
        let mut state = shared.state.lock();
        let read = loop {
            if let Some(read) = state.next(is_for_short) {
                break read;
            }
            if state.is_closing {
                return;
            }
            shared.wake.wait_for(&mut state, PATIENCE);
            if state.short.is_empty() {
                parking_lot::MutexGuard::unlocked(&mut state, || files.let_go());
            }
        };
        drop(state);
        files.let_go();
        files.deadline.set(limits::READ_STATEMENT_MS_MAX);
        // A defect in one read must not take the thread from all others; who asked sees its answer dropped.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(Ok(files)))).is_err() {
            tracing::error!("a read panicked");
        }
        files.deadline.clear();
    }
}

/// One reading thread's connections, opened when first needed.
pub struct ReadFiles {
    dir: PathBuf,
    catalogue: Arc<Catalogue>,
    tails: Arc<Tails>,
    deadline: Deadline,
    control: RefCell<Option<Rc<Connection>>>,
    /// Most recently used last.
    segments: RefCell<Vec<(i64, Rc<Connection>)>>,
    generation: std::cell::Cell<u64>,
}

impl ReadFiles {
    fn new(dir: PathBuf, catalogue: Arc<Catalogue>, tails: Arc<Tails>) -> Self {
        Self {
            dir,
            catalogue,
            tails,
            deadline: Deadline::new(),
            control: RefCell::default(),
            segments: RefCell::default(),
            generation: std::cell::Cell::new(0),
        }
    }

    /// Closes connections to segments that have been dropped: their space is only free then.
    fn let_go(&self) {
        let generation = self.catalogue.generation();
        if self.generation.replace(generation) != generation {
            self.segments.borrow_mut().retain(|(start, _)| self.catalogue.has(*start));
        }
    }

    pub fn control(&self) -> Outcome<Rc<Connection>> {
        let mut control = self.control.borrow_mut();
        if let Some(conn) = &*control {
            return Ok(conn.clone());
        }
        let conn = Rc::new(open_reader(&self.dir.join("control.db"), limits::READER_CACHE_BYTES, &self.deadline)?);
        *control = Some(conn.clone());
        Ok(conn)
    }

    /// All segments of this moment, by start.
    pub fn segments(&self) -> Segments {
        self.catalogue.get()
    }

    /// A connection to the segment; `None` if it has been dropped meanwhile.
    pub fn open(&self, segment: &Segment) -> Outcome<Option<Rc<Connection>>> {
        self.check_deadline()?;
        let mut open = self.segments.borrow_mut();
        if let Some(at) = open.iter().position(|(start, _)| *start == segment.start) {
            let entry = open.remove(at);
            let conn = entry.1.clone();
            open.push(entry);
            return Ok(Some(conn));
        }
        let conn = match open_reader(&segment.path, limits::READER_CACHE_BYTES, &self.deadline) {
            Ok(conn) => Rc::new(conn),
            Err(_) if !self.catalogue.has(segment.start) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        if open.len() >= limits::READER_SEGMENTS_OPEN_MAX {
            open.remove(0);
        }
        open.push((segment.start, conn.clone()));
        Ok(Some(conn))
    }

    /// A connection to the segment a message of this key is in.
    pub fn of_key(&self, key: i64) -> Outcome<Option<Rc<Connection>>> {
        let segments = self.segments();
        match segments.get(place_of(segments.iter().map(|s| s.start), key)) {
            Some(segment) => self.open(segment),
            None => Ok(None),
        }
    }

    /// For reads of many statements: each of them alone may be quick.
    pub fn check_deadline(&self) -> Outcome<()> {
        if self.deadline.is_over() {
            return Err(StoreError::Busy("a read took too long; ask for less at a time").into());
        }
        Ok(())
    }

    pub fn app_id(&self, key: i64) -> Outcome<AppId> {
        self.tails.app(&*self.control()?, key)
    }

    pub fn endpoint_id(&self, key: i64) -> Outcome<EndpointId> {
        self.tails.endpoint(&*self.control()?, key)
    }
}
