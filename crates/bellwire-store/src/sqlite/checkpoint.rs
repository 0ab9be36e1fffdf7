//! Copying write-ahead logs into their databases, beside the writer, so that no commit waits for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::fault::{Fault, Outcome};

enum Order {
    Copy(PathBuf),
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

    /// Never waits. False: it is busy, ask again later.
    pub fn ask(&self, path: &Path) -> bool {
        !self.is_busy.swap(true, Ordering::AcqRel) && self.orders.try_send(Order::Copy(path.to_owned())).is_ok()
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
            Order::Copy(path) => {
                if open.as_ref().is_none_or(|(known, _)| *known != path) {
                    open = connect(&path).map(|conn| (path, conn));
                }
                if let Some((path, conn)) = &open
                    && let Err(fault) = run(conn, "PASSIVE")
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

/// One pass in the given mode (`PASSIVE`, `TRUNCATE`).
pub fn run(conn: &Connection, mode: &str) -> Outcome<()> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))?;
    Ok(())
}

/// A failed sync: see `Files::die`. Anything else leaves the log as it was, to be copied later.
pub fn is_fatal(fault: &Fault) -> bool {
    matches!(fault, Fault::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
        && error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_FSYNC))
}
