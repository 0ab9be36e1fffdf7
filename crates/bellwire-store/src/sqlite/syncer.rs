//! The second half of a group's commit: syncs the log it stands in, and only then tells the sink and answers who waits. The thread
//! that committed a group does it, while another thread writes the next one; all is told in the order of the commits.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::files::Stats;
use super::inbox::{Accept, Inbox};
use crate::{Accepted, AttemptRecord, CommitSink, NewMessage, Result, StoreError};

/// A committed group.
pub struct Committed {
    pub accepts: Vec<Accept>,
    pub results: Vec<Result<Accepted>>,
    pub attempts: Vec<AttemptRecord>,
    /// The log that it was written to, as the thread that wrote has it open.
    pub log: Arc<File>,
    pub taken_at: Instant,
}

impl Committed {
    /// What only repeats what came before is durable with that: groups are told of in their order.
    fn has_written(&self) -> bool {
        !self.attempts.is_empty() || self.results.iter().any(|result| matches!(result, Ok(Accepted::Fresh)))
    }
}

/// Whose turn it is to tell.
#[derive(Default)]
struct Turns {
    given: u64,
    now: u64,
}

pub struct Syncer {
    inbox: Arc<Inbox>,
    sink: Arc<OnceLock<Arc<dyn CommitSink>>>,
    stats: Arc<Stats>,
    on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
    is_dead: AtomicBool,
    turns: Mutex<Turns>,
    turned: Condvar,
}

/// However a thread ends, nobody waits for it.
struct Turn<'a>(&'a Syncer, u64);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_dead.store(true, Ordering::Release);
        }
        self.0.turns.lock().now = self.1 + 1;
        self.0.turned.notify_all();
    }
}

impl Syncer {
    pub fn new(
        inbox: Arc<Inbox>,
        sink: Arc<OnceLock<Arc<dyn CommitSink>>>,
        stats: Arc<Stats>,
        on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        let (turns, turned) = (Mutex::default(), Condvar::new());
        Self { inbox, sink, stats, on_fatal, is_dead: AtomicBool::new(false), turns, turned }
    }

    /// A sync failed: what is durable is not known any more.
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    /// Nobody goes on.
    pub fn give_up(&self) {
        self.is_dead.store(true, Ordering::Release);
        self.inbox.syncs_ended();
        // Nobody is between looking and waiting.
        drop(self.turns.lock());
        self.turned.notify_all();
    }

    /// The place of what was committed last, to be taken before anything else is committed.
    pub fn take_turn(&self) -> u64 {
        let mut turns = self.turns.lock();
        turns.given += 1;
        turns.given - 1
    }

    /// Syncs what was committed, and tells of it when it is its turn.
    pub fn finish(&self, turn: u64, groups: Vec<Committed>) {
        let turn = Turn(self, turn);
        let count = groups.len();
        let messages = groups.iter().map(|group| group.accepts.len()).sum();
        let taken_at = groups.iter().map(|group| group.taken_at).min();
        if !self.is_dead()
            && let Err(error) = self.sync(&groups)
        {
            // Never repeated: the kernel may have dropped the pages and would report success.
            self.is_dead.store(true, Ordering::Release);
            tracing::error!(%error, "a commit could not be synced; stopping, so that nothing is acknowledged that is not durable");
            (self.on_fatal)(&error.to_string());
        }
        self.inbox.synced(count, taken_at.map(|at| at.elapsed()).unwrap_or_default());
        self.wait_for(turn.1);
        // Of an earlier group too: this one stands behind it in the log.
        let is_durable = !self.is_dead();
        for group in groups {
            if is_durable { self.announce(group) } else { refuse(group) }
        }
        drop(turn);
        self.inbox.announced(count, messages);
    }

    fn wait_for(&self, turn: u64) {
        let mut turns = self.turns.lock();
        while turns.now != turn && !self.is_dead() {
            self.turned.wait(&mut turns);
        }
    }

    fn sync(&self, groups: &[Committed]) -> std::io::Result<()> {
        let started = Instant::now();
        let mut synced: Vec<&Arc<File>> = Vec::with_capacity(1);
        for group in groups.iter().filter(|group| group.has_written()) {
            if !synced.iter().any(|log| Arc::ptr_eq(log, &group.log)) {
                group.log.sync_data()?;
                synced.push(&group.log);
            }
        }
        self.stats.add_time(started);
        Ok(())
    }

    /// Sink first, answers after it: who is answered finds the deliveries under way.
    fn announce(&self, group: Committed) {
        let Committed { accepts, results, attempts, taken_at, .. } = group;
        if let Some(sink) = self.sink.get() {
            let fresh: Vec<Arc<NewMessage>> = accepts
                .iter()
                .zip(&results)
                .filter(|(_, result)| matches!(result, Ok(Accepted::Fresh)))
                .map(|(accept, _)| accept.new.clone())
                .collect();
            if !fresh.is_empty() {
                sink.accepted(&fresh, &bellwire_core::ShardSet::ALL, taken_at);
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
}

fn refuse(group: Committed) {
    for accept in group.accepts {
        let _ = accept.reply.send(Err(StoreError::Closed));
    }
}

#[cfg(test)]
mod tests {
    use bellwire_core::{AppId, EndpointId, IdKind, MessageId, ShardSet};

    use super::*;
    use crate::{DeliveryNext, DueDelivery};

    #[derive(Default)]
    struct Told(Mutex<Vec<i64>>);

    impl CommitSink for Told {
        fn accepted(&self, _: &[Arc<NewMessage>], _: &ShardSet, _: Instant) {}
        fn requeued(&self, _: &[DueDelivery]) {}
        fn fenced(&self, _: &[AttemptRecord]) {}
        fn recorded(&self, records: &[AttemptRecord]) {
            self.0.lock().extend(records.iter().map(|record| record.message.key()));
        }
    }

    fn group(number: i64, log: File) -> Vec<Committed> {
        let record = AttemptRecord {
            message: MessageId::from_key_and_tail(number, [0; 12]),
            endpoint: EndpointId::from_bytes([0; 20]),
            app: AppId::from_bytes([0; 20]),
            attempt: None,
            next: DeliveryNext::Delivered,
            is_first_try: true,
            epoch: 0,
        };
        vec![Committed { accepts: vec![], results: vec![], attempts: vec![record], log: Arc::new(log), taken_at: Instant::now() }]
    }

    fn syncer() -> (Arc<Syncer>, Arc<Told>) {
        let (told, sink) = (Arc::new(Told::default()), OnceLock::new());
        assert!(sink.set(told.clone() as Arc<dyn CommitSink>).is_ok());
        let syncer = Syncer::new(Arc::new(Inbox::new()), Arc::new(sink), Arc::default(), Arc::new(|_: &str| {}));
        (Arc::new(syncer), told)
    }

    /// A group committed later, whose sync ends earlier.
    fn later_first(earlier: File) -> (Arc<Syncer>, Vec<i64>) {
        let (syncer, told) = syncer();
        let turns = [syncer.take_turn(), syncer.take_turn()];
        let later = {
            let syncer = syncer.clone();
            std::thread::spawn(move || syncer.finish(turns[1], group(2, tempfile::tempfile().unwrap())))
        };
        // It has synced; now it waits for its turn.
        while syncer.stats.commit_nanos.load(Ordering::Relaxed) == 0 && !later.is_finished() {
            std::thread::yield_now();
        }
        assert!(told.0.lock().is_empty(), "told before what was committed earlier");
        syncer.finish(turns[0], group(1, earlier));
        later.join().unwrap();
        let told = told.0.lock().clone();
        (syncer, told)
    }

    #[test]
    fn groups_are_told_of_in_the_order_of_their_commits() {
        assert_eq!(later_first(tempfile::tempfile().unwrap()).1, [1, 2]);
    }

    /// The log ends before the group whose sync failed: the later one would be gone with it.
    #[test]
    fn nothing_behind_a_failed_sync_is_told_of() {
        let (syncer, told) = later_first(File::open("/dev/null").unwrap());
        assert!(told.is_empty(), "{told:?}");
        assert!(syncer.is_dead());
    }

    #[test]
    fn a_thread_that_panics_leaves_nobody_waiting() {
        let (syncer, told) = syncer();
        let turns = [syncer.take_turn(), syncer.take_turn()];
        let other = syncer.clone();
        let ended = std::thread::spawn(move || {
            let _turn = Turn(&other, turns[0]);
            panic!("on purpose");
        });
        assert!(ended.join().is_err());
        syncer.finish(turns[1], group(2, tempfile::tempfile().unwrap()));
        assert!(told.0.lock().is_empty() && syncer.is_dead());
    }
}
