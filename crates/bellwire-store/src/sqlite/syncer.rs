//! The second half of a group's commit: syncs the log it stands in, and only then tells the sink and answers who waits. On a thread
//! of its own, so that the writer works on the next group while the disk works on this one.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::files::Stats;
use super::inbox::{Accept, Inbox};
use crate::{Accepted, AttemptRecord, CommitSink, NewMessage, Result, StoreError};

/// Groups that are committed and not yet synced, beside those being synced: one, or the writer runs ahead of the disk.
const GROUPS_WAITING_MAX: usize = 1;

/// A committed group.
pub struct Committed {
    pub accepts: Vec<Accept>,
    pub results: Vec<Result<Accepted>>,
    pub attempts: Vec<AttemptRecord>,
    /// The log that it was written to.
    pub log: Arc<File>,
}

impl Committed {
    /// What only repeats what came before is durable with that: groups are synced in their order.
    fn has_written(&self) -> bool {
        !self.attempts.is_empty() || self.results.iter().any(|result| matches!(result, Ok(Accepted::Fresh)))
    }
}

/// The writer's handle to the thread; the thread ends with it.
pub struct Syncer {
    groups: SyncSender<Committed>,
    is_dead: Arc<AtomicBool>,
}

/// What the thread works with.
pub struct Around {
    pub inbox: Arc<Inbox>,
    pub sink: Arc<OnceLock<Arc<dyn CommitSink>>>,
    pub stats: Arc<Stats>,
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Syncer {
    pub fn start(around: Around) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (groups, waiting) = sync_channel(GROUPS_WAITING_MAX);
        let is_dead = Arc::new(AtomicBool::new(false));
        let died = is_dead.clone();
        let work = move || work(&waiting, &around, &died);
        let thread = std::thread::Builder::new().name("store-sync".to_owned()).spawn(work)?;
        Ok((Self { groups, is_dead }, thread))
    }

    /// Waits while too many groups wait.
    pub fn sync(&self, inbox: &Inbox, group: Committed) {
        inbox.handed_over();
        if let Err(unsent) = self.groups.send(group) {
            inbox.syncs_ended();
            refuse(unsent.0);
        }
    }

    /// A sync failed: what is durable is not known any more.
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }
}

/// However the thread ends, the writer neither waits for it nor goes on without it.
struct End<'a>(&'a Inbox, &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Release);
        self.0.syncs_ended();
    }
}

fn work(waiting: &Receiver<Committed>, around: &Around, is_dead: &AtomicBool) {
    let _end = End(&around.inbox, is_dead);
    while let Ok(first) = waiting.recv() {
        let mut groups = vec![first];
        groups.extend(waiting.try_iter());
        let synced = if is_dead.load(Ordering::Acquire) { Ok(()) } else { sync(&groups, around) };
        if let Err(error) = synced {
            // Never repeated: the kernel may have dropped the pages and would report success.
            is_dead.store(true, Ordering::Release);
            tracing::error!(%error, "a commit could not be synced; stopping, so that nothing is acknowledged that is not durable");
            (around.on_fatal)(&error.to_string());
        }
        let is_durable = !is_dead.load(Ordering::Acquire);
        let count = groups.len();
        around.inbox.synced(count);
        for group in groups {
            if is_durable { announce(around, group) } else { refuse(group) }
        }
        around.inbox.announced(count);
    }
}

fn sync(groups: &[Committed], around: &Around) -> std::io::Result<()> {
    let started = Instant::now();
    let mut synced: Vec<&Arc<File>> = Vec::with_capacity(1);
    for group in groups.iter().filter(|group| group.has_written()) {
        if !synced.iter().any(|log| Arc::ptr_eq(log, &group.log)) {
            group.log.sync_data()?;
            synced.push(&group.log);
        }
    }
    around.stats.add_time(started);
    Ok(())
}

/// Sink first, answers after it: who is answered finds the deliveries under way.
fn announce(around: &Around, group: Committed) {
    let Committed { accepts, results, attempts, .. } = group;
    if let Some(sink) = around.sink.get() {
        let fresh: Vec<Arc<NewMessage>> = accepts
            .iter()
            .zip(&results)
            .filter(|(_, result)| matches!(result, Ok(Accepted::Fresh)))
            .map(|(accept, _)| accept.new.clone())
            .collect();
        if !fresh.is_empty() {
            sink.accepted(&fresh, &bellwire_core::ShardSet::ALL);
        }
        if !attempts.is_empty() {
            sink.recorded(&attempts);
        }
    }
    for (accept, result) in accepts.into_iter().zip(results) {
        let Accept { new, payload, origin, reply } = accept;
        // Before the answer, so that the caller may have the message to itself again.
        drop((new, payload, origin));
        let _ = reply.send(result);
    }
}

fn refuse(group: Committed) {
    for accept in group.accepts {
        let _ = accept.reply.send(Err(StoreError::Closed));
    }
}
