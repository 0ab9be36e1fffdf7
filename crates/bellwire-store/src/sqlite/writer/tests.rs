//! What cannot be seen from outside: a commit that fails for another reason than space.

use std::sync::atomic::{AtomicUsize, Ordering};

use bellwire_core::EndpointId;
use parking_lot::Mutex;

use super::*;
use crate::Cipher;
use crate::NewMessage;
use crate::sqlite::SqliteOptions;
use crate::sqlite::checkpoint::Checkpointer;
use crate::sqlite::fixture::new_message;

#[derive(Default)]
struct Told(AtomicUsize);

impl CommitSink for Told {
    fn accepted(&self, messages: &[Arc<NewMessage>], _local: &bellwire_core::ShardSet, _begun: std::time::Instant) {
        self.0.fetch_add(messages.len(), Ordering::Relaxed);
    }
    fn requeued(&self, _: &[crate::DueDelivery]) {}
    fn fenced(&self, _: &[AttemptRecord]) {}
    fn recorded(&self, _: &[AttemptRecord]) {}
}

fn message(n: i64) -> Arc<NewMessage> {
    new_message(1_000_000_000 << 32 | n, 0, "{}", vec![EndpointId::from_bytes([0; 20])])
}

type Reasons = Arc<Mutex<Vec<String>>>;

/// A writer at work on files that something is wrong with, and why it would have stopped the process.
fn run(
    dir: &std::path::Path,
    break_it: impl FnOnce(&mut Files),
) -> (Arc<Inbox>, Arc<Told>, Reasons, std::thread::JoinHandle<()>) {
    let reasons = Reasons::default();
    let heard = reasons.clone();
    let mut options = SqliteOptions::new(dir, Cipher::new([1; 32]));
    options.on_fatal = Arc::new(move |reason| heard.lock().push(reason.to_owned()));
    let (checkpointer, _thread) = Checkpointer::start(options.on_fatal.clone()).unwrap();
    let mut files = Files::open(Arc::new(options), checkpointer).unwrap();
    break_it(&mut files);
    let (inbox, told) = (Arc::new(Inbox::new()), Arc::new(Told::default()));
    let sink: Arc<OnceLock<Arc<dyn CommitSink>>> = Arc::new(OnceLock::new());
    assert!(sink.set(told.clone()).is_ok());
    let writer = Writer::new(files, inbox.clone(), sink);
    (inbox, told, reasons, std::thread::spawn(move || writer.run()))
}

#[tokio::test]
async fn a_failed_commit_stops_the_writer_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (inbox, told, reasons, thread) = run(dir.path(), |files| {
        // The second commit on this file fails, and every one after it.
        let commits = AtomicUsize::new(0);
        files.segments[0].file.conn.commit_hook(Some(move || commits.fetch_add(1, Ordering::Relaxed) >= 1)).unwrap();
    });
    assert_eq!(inbox.accept(message(1)).await.unwrap(), Accepted::Fresh);
    let answers = tokio::join!(inbox.accept(message(2)), inbox.accept(message(3)));
    for answer in [answers.0, answers.1, inbox.accept(message(4)).await] {
        assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
    }
    thread.join().unwrap();
    assert_eq!(told.0.load(Ordering::Relaxed), 1, "only what is durable is told");
    assert_eq!(reasons.lock().len(), 1, "the process would have been stopped once: {:?}", reasons.lock());
    let refused = inbox.run(false, |_| Ok(())).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "nothing is tried again");
}

#[tokio::test]
async fn a_failed_sync_stops_the_writer_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (inbox, told, reasons, thread) = run(dir.path(), |files| {
        // A commit goes through, and its sync fails.
        files.segments[0].file.logs = [0; WRITERS].map(|_| Arc::new(std::fs::File::open("/dev/null").unwrap()));
    });
    let answers = tokio::join!(inbox.accept(message(1)), inbox.accept(message(2)));
    for answer in [answers.0, answers.1, inbox.accept(message(3)).await] {
        assert!(matches!(answer, Err(StoreError::Closed)), "{answer:?}");
    }
    thread.join().unwrap();
    assert_eq!(told.0.load(Ordering::Relaxed), 0, "only what is durable is told");
    assert_eq!(reasons.lock().len(), 1, "the process would have been stopped once: {:?}", reasons.lock());
    assert!(matches!(inbox.run(false, |_| Ok(())).await, Err(StoreError::Closed)), "nothing is tried again");
}
