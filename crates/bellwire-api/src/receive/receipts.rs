//! Sources' logs: entries are gathered, bounded by source and in all, and written in batches. A flood of bad requests must fill
//! neither the disk nor the writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bellwire_core::{MessageId, SourceId, limits};
use bellwire_engine::Engine;
use bellwire_store::Receipt;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::rate::Buckets;

/// An entry before it has an id.
pub struct Entry {
    pub source: SourceId,
    pub status: u16,
    pub reason: String,
    pub detail: String,
    pub duplicate_of: Option<MessageId>,
    pub payload: Option<Bytes>,
    pub headers: Vec<(String, String)>,
}

impl Entry {
    pub fn into_receipt(self, engine: &Engine) -> Receipt {
        let id = engine.new_id();
        Receipt {
            id,
            source: self.source,
            status: self.status,
            reason: self.reason,
            detail: self.detail,
            duplicate_of: self.duplicate_of,
            payload: self.payload,
            headers: self.headers,
            at: bellwire_core::IdKind::created(&id),
        }
    }
}

enum Command {
    Note(Box<Receipt>),
    Flush(oneshot::Sender<()>),
}

pub struct Receipts {
    queue: mpsc::Sender<Command>,
    shares: Buckets,
    /// Not kept, for want of a place.
    dropped: Arc<AtomicU64>,
}

impl Receipts {
    pub fn start(engine: &Arc<Engine>) -> Self {
        let (queue, commands) = mpsc::channel(limits::RECEIPTS_QUEUE_MAX);
        tokio::spawn(run(Arc::downgrade(engine), commands));
        Self { queue, shares: Buckets::new(), dropped: Arc::default() }
    }

    /// Takes an entry, if its source and all together have not had their share.
    pub fn note(&self, engine: &Engine, entry: Entry) {
        let has_share = self.shares.has_place(entry.source, limits::RECEIPTS_PER_SECOND_MAX, Instant::now());
        let taken = has_share && self.queue.try_send(Command::Note(Box::new(entry.into_receipt(engine)))).is_ok();
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Entries that were not kept since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything noted so far is written, or could not be.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let wait = Duration::from_millis(limits::WRITER_WAIT_MS_MAX);
        let asked = tokio::time::timeout(wait, self.queue.send(Command::Flush(done))).await;
        if matches!(asked, Ok(Ok(()))) {
            // If the writer of the log is gone, nothing is left to be written.
            let _ = tokio::time::timeout(wait, written).await;
        }
    }
}

async fn run(engine: Weak<Engine>, mut commands: mpsc::Receiver<Command>) {
    let (mut batch, mut waiting) = (Vec::new(), Vec::new());
    while let Some(command) = commands.recv().await {
        take(command, &mut batch, &mut waiting);
        let deadline = Instant::now() + Duration::from_millis(limits::RECEIPTS_DELAY_MS);
        while waiting.is_empty() && batch.len() < limits::RECEIPTS_BATCH_MAX {
            match tokio::time::timeout_at(deadline, commands.recv()).await {
                Ok(Some(command)) => take(command, &mut batch, &mut waiting),
                Ok(None) | Err(_) => break,
            }
        }
        let Some(engine) = engine.upgrade() else { return };
        write(&engine, std::mem::take(&mut batch)).await;
        for done in waiting.drain(..) {
            // Who asked may have stopped waiting.
            let _: Result<(), ()> = done.send(());
        }
        // A full queue does not become a busy writer.
        tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_millis(limits::RECEIPTS_DELAY_MS / 4))).await;
    }
}

fn take(command: Command, batch: &mut Vec<Receipt>, waiting: &mut Vec<oneshot::Sender<()>>) {
    match command {
        Command::Note(receipt) => batch.push(*receipt),
        Command::Flush(done) => waiting.push(done),
    }
}

async fn write(engine: &Engine, batch: Vec<Receipt>) {
    if batch.is_empty() {
        return;
    }
    let entries = batch.len();
    if let Err(error) = engine.store().add_receipts(batch).await {
        tracing::warn!(%error, entries, "entries of sources' logs are lost");
    }
}
