//! Copying write-ahead logs into their databases, beside the writer, so that no commit waits for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bellwire_core::limits;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::fault::{Fault, Outcome};

/// What is to be done about a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Some of it is to be copied beside the writer.
    Copy,
    /// The writer copies the rest, and the log begins anew with the next commit: only then is everything in it copied.
    Finish,
}

impl Due {
    /// Of a log of so many pages, some of which are copied.
    pub fn of(pages: u32, copied: u32, is_busy: bool) -> Self {
        let left = pages.saturating_sub(copied);
        let is_nearly_copied = pages >= limits::LOG_PAGES && (1..=limits::CHECKPOINT_PAGES).contains(&left) && !is_busy;
        if pages >= limits::LOG_PAGES_MAX || is_nearly_copied {
            Self::Finish
        } else if left >= limits::CHECKPOINT_PAGES && !is_busy {
            Self::Copy
        } else {
            Self::Nothing
        }
    }
}

enum Order {
    Copy(PathBuf, Arc<AtomicU32>),
    /// The file is about to be deleted: let go of it.
    Forget(PathBuf, SyncSender<()>),
}

/// The writer's handle to the thread; the thread ends with it.
pub struct Checkpointer {
    orders: SyncSender<Order>,
    is_busy: Arc<AtomicBool>,
}

impl Checkpointer {
    pub fn start(on_fatal: Arc<dyn Fn(&str) + Send + Sync>) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (orders, inbox) = sync_channel(4);
        let is_busy = Arc::new(AtomicBool::new(false));
        let busy = is_busy.clone();
        let thread =
            std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || work(&inbox, &busy, &*on_fatal))?;
        Ok((Self { orders, is_busy }, thread))
    }

    /// Never waits; to be asked again later, if it is busy. `copied` shows how many pages of the log are copied.
    pub fn ask(&self, path: &Path, copied: &Arc<AtomicU32>) {
        if !self.is_busy.swap(true, Ordering::AcqRel) {
            let _ = self.orders.try_send(Order::Copy(path.to_owned(), copied.clone()));
        }
    }

    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Waits until the thread has closed the file.
    pub fn forget(&self, path: &Path) {
        let (done, wait) = sync_channel(1);
        if self.orders.send(Order::Forget(path.to_owned(), done)).is_ok() {
            let _ = wait.recv();
        }
    }
}

fn work(inbox: &Receiver<Order>, is_busy: &AtomicBool, on_fatal: &(dyn Fn(&str) + Send + Sync)) {
    let mut open: Option<(PathBuf, Connection)> = None;
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Copy(path, copied) => {
                if open.as_ref().is_none_or(|(known, _)| *known != path) {
                    open = connect(&path).map(|conn| (path, conn));
                }
                if let Some((path, conn)) = &open
                    && let Err(fault) = run(conn, "PASSIVE").map(|pages| copied.store(pages, Ordering::Relaxed))
                {
                    if is_fatal(&fault) {
                        tracing::error!(error = %fault, path = %path.display(), "a checkpoint could not be synced; stopping");
                        on_fatal(&fault.to_string());
                        return;
                    }
                    tracing::warn!(error = %fault, path = %path.display(), "a checkpoint failed; it is tried again later");
                }
                is_busy.store(false, Ordering::Release);
            }
            Order::Forget(path, done) => {
                open = open.filter(|(known, _)| *known != path);
                let _ = done.send(());
            }
        }
    }
}

fn connect(path: &Path) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).and_then(|conn| {
        conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -64; PRAGMA wal_autocheckpoint = 0;").map(|()| conn)
    });
    conn.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "no connection for a checkpoint")).ok()
}

/// One pass in the given mode (`PASSIVE`, `TRUNCATE`). Returns how many pages of the log are copied.
pub fn run(conn: &Connection, mode: &str) -> Outcome<u32> {
    let copied = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(2))?;
    // Less than none: another connection was copying.
    Ok(u32::try_from(copied).unwrap_or(0))
}

/// A failed sync: see `Files::die`. Anything else leaves the log as it was, to be copied later.
pub fn is_fatal(fault: &Fault) -> bool {
    matches!(fault, Fault::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
        && error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_FSYNC))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: while commits come without a pause, there is always something that is not copied yet, and the log grows to its limit.
    #[test]
    fn a_log_that_is_nearly_copied_is_finished_and_begins_anew() {
        const STEP: u32 = limits::CHECKPOINT_PAGES;
        for (pages, copied, is_busy, due) in [
            (STEP - 1, 0, false, Due::Nothing),
            (STEP, 0, false, Due::Copy),
            (STEP, 0, true, Due::Nothing),
            (limits::LOG_PAGES - 1, limits::LOG_PAGES - 2, false, Due::Nothing),
            (limits::LOG_PAGES, limits::LOG_PAGES - 1, false, Due::Finish),
            (limits::LOG_PAGES, limits::LOG_PAGES - STEP, false, Due::Finish),
            // Much at once is what the slowest answers would wait for.
            (limits::LOG_PAGES, limits::LOG_PAGES - STEP - 1, false, Due::Copy),
            (limits::LOG_PAGES, limits::LOG_PAGES - 1, true, Due::Nothing),
            // It begins anew by itself.
            (limits::LOG_PAGES, limits::LOG_PAGES, false, Due::Nothing),
            // Before it grows without bound.
            (limits::LOG_PAGES_MAX, 0, true, Due::Finish),
        ] {
            assert_eq!(Due::of(pages, copied, is_busy), due, "{copied} of {pages} copied, busy: {is_busy}");
        }
    }
}
