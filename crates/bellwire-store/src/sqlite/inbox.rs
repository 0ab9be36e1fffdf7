//! What waits for the writer: messages to accept, completed attempts, and other writes. Bounded; callers wait, attempts never do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwire_core::limits;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use super::files::Files;
use super::pack;
use super::row::{self, StoredPayload};
use crate::pace::{Pace, Patience};
use crate::{Accepted, AttemptRecord, NewMessage, Result, StoreError};

/// A message to accept, with its payload (compressed, if no pack takes it), and who waits for it.
pub struct Accept {
    pub new: Arc<NewMessage>,
    pub payload: StoredPayload,
    /// Where it came from, as it will be stored.
    pub origin: Option<String>,
    pub reply: oneshot::Sender<Result<Accepted>>,
}

/// Any other write. Run on the writer's thread with the files, or with the reason why it cannot be run now.
pub struct Job {
    pub run: Act,
    /// Retention and deletions go on while the disk is full.
    pub frees_space: bool,
}

type Act = Box<dyn FnOnce(Result<&mut Files>) + Send>;

/// What the writer takes at a time.
pub struct Group {
    pub accepts: Vec<Accept>,
    pub attempts: Vec<AttemptRecord>,
    pub jobs: Vec<Job>,
    pub taken_at: Instant,
    /// Nothing is left and nothing more will come.
    pub is_last: bool,
}

struct State {
    accepts: VecDeque<Accept>,
    attempts: VecDeque<AttemptRecord>,
    jobs: VecDeque<Job>,
    /// Since when the oldest attempt has been waiting.
    attempts_since: Option<Instant>,
    /// When a writer that sleeps will look by itself.
    asleep_until: Option<Instant>,
    is_closing: bool,
    /// Groups that are committed and not yet synced, and not yet told of.
    unsynced: usize,
    untold: usize,
    /// Messages in the latter.
    unanswered: usize,
    pace: Pace,
}

/// A third of a thread's time goes into commits at most, where many publish.
const PATIENCE: Patience = Patience {
    costs: limits::GROUP_COSTS_BETWEEN,
    wait_max: Duration::from_micros(limits::GROUP_WAIT_US_MAX),
    messages: limits::GROUP_ITEMS_ENOUGH..=limits::GROUP_ITEMS_ENOUGH,
};

impl State {
    fn new() -> Self {
        Self {
            accepts: VecDeque::new(),
            attempts: VecDeque::new(),
            jobs: VecDeque::new(),
            attempts_since: None,
            asleep_until: None,
            is_closing: false,
            unsynced: 0,
            untold: 0,
            unanswered: 0,
            pace: Pace::new(PATIENCE),
        }
    }

    /// Whether the writer has a group to write. While the disk is busy with the group before, and until some time has passed since that was
    /// begun, a small one waits: others may join it, and each commit writes some pages that the next one writes again.
    fn is_worth_a_commit(&self, now: Instant) -> bool {
        let is_enough = self.unsynced == 0 || self.accepts.len() >= limits::GROUP_ITEMS_AHEAD_MIN;
        let is_time = || self.waits_until().is_none_or(|until| until <= now);
        !self.jobs.is_empty() || (!self.accepts.is_empty() && is_enough && is_time())
    }

    fn waits_until(&self) -> Option<Instant> {
        self.pace.until(self.accepts.len())
    }

    /// Whether a writer that sleeps would look too late.
    fn oversleeps(&self) -> bool {
        let Some(asleep_until) = self.asleep_until else { return false };
        let now = Instant::now();
        let is_later = |waits_until: Instant| waits_until > now && asleep_until > waits_until;
        self.is_worth_a_commit(now) || (!self.accepts.is_empty() && self.waits_until().is_some_and(is_later))
    }
}

pub struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    /// All groups are told of.
    told: Condvar,
    permits: Semaphore,
    is_full: AtomicBool,
    /// Closed when the writer has ended.
    done: Semaphore,
}

impl Inbox {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            wake: Condvar::new(),
            told: Condvar::new(),
            permits: Semaphore::new(limits::WRITER_QUEUE_MAX),
            is_full: AtomicBool::new(false),
            done: Semaphore::new(0),
        }
    }

    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    pub fn len(&self) -> usize {
        limits::WRITER_QUEUE_MAX.saturating_sub(self.permits.available_permits())
    }

    pub fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }

    async fn reserve(&self) -> Result<()> {
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(StoreError::Closed),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                let wait = Duration::from_millis(limits::WRITER_WAIT_MS_MAX);
                tokio::time::timeout(wait, self.permits.acquire())
                    .await
                    .map_err(|_| StoreError::Busy("too many writes are waiting"))?
                    .map_err(|_| StoreError::Closed)?
            }
        };
        permit.forget();
        Ok(())
    }

    pub async fn accept(&self, new: Arc<NewMessage>) -> Result<Accepted> {
        if self.is_full() {
            return Err(StoreError::Full);
        }
        let origin = new.message.origin.as_deref().map(row::to_json).transpose()?;
        let payload = match pack::packable(&new.message, origin.as_ref()) {
            // The writer compresses it with what comes together with it.
            Some(_) => StoredPayload::plain(new.message.payload.as_ref()),
            None => StoredPayload::of(new.message.payload.as_ref()),
        };
        self.reserve().await?;
        let (reply, answer) = oneshot::channel();
        self.push(|state| state.accepts.push_back(Accept { new, payload, origin, reply }))?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub async fn run<T: Send + 'static>(
        &self,
        frees_space: bool,
        act: impl FnOnce(&mut Files) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_full() && !frees_space {
            return Err(StoreError::Full);
        }
        self.reserve().await?;
        let (reply, answer) = oneshot::channel();
        let run = Box::new(move |files: Result<&mut Files>| {
            let _ = reply.send(files.and_then(act));
        });
        self.push(|state| state.jobs.push_back(Job { run, frees_space }))?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    fn push(&self, put: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_closing {
            return Err(StoreError::Closed);
        }
        put(&mut state);
        if state.oversleeps() {
            self.wake_writer(state);
        }
        Ok(())
    }

    /// Never waits: who calls has bounded what is outstanding.
    pub fn record(&self, record: AttemptRecord) {
        let mut state = self.state.lock();
        if state.is_closing {
            // It is repeated after the next start, as if the process had ended here.
            return;
        }
        state.attempts.push_back(record);
        let is_first = state.attempts_since.is_none();
        if is_first {
            state.attempts_since = Some(Instant::now());
        }
        // The first one sets the timer; a full group need not wait for it.
        if is_first || state.attempts.len() == limits::GROUP_ITEMS_MAX {
            self.wake_writer(state);
        }
    }

    fn wake_writer(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let is_asleep = state.asleep_until.take().is_some();
        drop(state);
        if is_asleep {
            self.wake.notify_one();
        }
    }

    /// Nothing more is taken in; what is in is still written.
    pub fn close(&self) {
        self.permits.close();
        let mut state = self.state.lock();
        state.is_closing = true;
        self.wake_writer(state);
    }

    /// A group is committed and about to be synced.
    pub fn committed(&self, messages: usize) {
        let mut state = self.state.lock();
        state.unsynced += 1;
        state.untold += 1;
        state.unanswered += messages;
    }

    /// `cost`: since the first of them was taken.
    pub fn synced(&self, groups: usize, cost: Duration) {
        let mut state = self.state.lock();
        state.unsynced = state.unsynced.saturating_sub(groups);
        state.pace.end(cost);
        if state.oversleeps() {
            self.wake_writer(state);
        }
    }

    pub fn announced(&self, groups: usize, messages: usize) {
        let mut state = self.state.lock();
        state.unanswered = state.unanswered.saturating_sub(messages);
        state.untold = state.untold.saturating_sub(groups);
        if state.untold == 0 {
            drop(state);
            self.told.notify_all();
        }
    }

    /// Nothing is synced any more.
    pub fn syncs_ended(&self) {
        let mut state = self.state.lock();
        (state.unsynced, state.untold, state.unanswered) = (0, 0, 0);
        self.told.notify_all();
        self.wake_writer(state);
    }

    /// Until the sink and all callers know of every group that was committed.
    pub fn wait_until_told(&self) {
        let mut state = self.state.lock();
        while state.untold > 0 {
            self.told.wait(&mut state);
        }
    }

    /// The next group: at once if anybody waits for an answer, else when the completed attempts have waited long enough.
    /// Sleeps at most `patience` when there is nothing, and then returns an empty group.
    pub fn next(&self, patience: Duration) -> Group {
        let delay = Duration::from_millis(limits::COMPLETION_DELAY_MS_MAX);
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        loop {
            let attempts_due = state.attempts_since.map(|since| since + delay);
            let now = Instant::now();
            let is_due = state.attempts.len() >= limits::GROUP_ITEMS_MAX || attempts_due.is_some_and(|due| due <= now);
            if state.is_worth_a_commit(now) || is_due || state.is_closing || now >= until {
                return self.take(&mut state);
            }
            let waits_until = state.waits_until().filter(|waits_until| *waits_until > now);
            let asleep_until = attempts_due.into_iter().chain(waits_until).fold(until, Instant::min);
            state.asleep_until = Some(asleep_until);
            self.wake.wait_until(&mut state, asleep_until);
            state.asleep_until = None;
        }
    }

    fn take(&self, state: &mut State) -> Group {
        let taken_at = Instant::now();
        let mut group =
            Group { accepts: Vec::new(), attempts: Vec::new(), jobs: Vec::new(), taken_at, is_last: state.is_closing };
        let mut bytes = 0;
        while group.accepts.len() < limits::GROUP_ITEMS_MAX && bytes < limits::GROUP_BYTES_MAX {
            let Some(accept) = state.accepts.pop_front() else { break };
            bytes += accept.new.message.payload.as_ref().map_or(0, bytes::Bytes::len);
            group.accepts.push(accept);
        }
        while group.attempts.len() < limits::GROUP_ITEMS_MAX && bytes < limits::GROUP_BYTES_MAX {
            let Some(record) = state.attempts.pop_front() else { break };
            bytes += record.attempt.as_ref().map_or(0, |attempt| attempt.response.len());
            group.attempts.push(record);
        }
        if state.attempts.is_empty() {
            state.attempts_since = None;
        }
        group.jobs.extend(state.jobs.drain(..));
        if !group.accepts.is_empty() {
            let messages = state.unanswered + group.accepts.len() + state.accepts.len();
            state.pace.begin(taken_at, messages);
        }
        group.is_last &= state.accepts.is_empty() && state.attempts.is_empty();
        self.permits.add_permits(group.accepts.len() + group.jobs.len());
        group
    }

    /// Refuses everything that waits: the writer is gone.
    pub fn abandon(&self) {
        self.close();
        let mut state = self.state.lock();
        let (accepts, jobs) = (std::mem::take(&mut state.accepts), std::mem::take(&mut state.jobs));
        state.attempts.clear();
        drop(state);
        for accept in accepts {
            let _ = accept.reply.send(Err(StoreError::Closed));
        }
        for job in jobs {
            (job.run)(Err(StoreError::Closed));
        }
        self.done.close();
    }

    /// Until the writer has ended: it was asked to close, or died.
    pub async fn wait_until_done(&self) {
        let _ = self.done.acquire().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::fixture::new_message;

    fn put(inbox: &Inbox, key: i64) {
        let new = new_message(key, 1, "{}", Vec::new());
        let payload = StoredPayload::plain(new.message.payload.as_ref());
        let accept = Accept { new, payload, origin: None, reply: oneshot::channel().0 };
        inbox.push(|state| state.accepts.push_back(accept)).unwrap();
    }

    /// Broken: a message waits until the writer looks around anyway, long after its group was due.
    #[test]
    fn a_writer_that_fell_asleep_before_a_group_had_to_wait_is_woken_for_it() {
        let (inbox, patience) = (Inbox::new(), Duration::from_secs(60));
        inbox.state.lock().pace.begin(Instant::now(), 9);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| inbox.next(patience));
            while inbox.state.lock().asleep_until.is_none_or(|until| until < Instant::now() + patience / 2) {
                std::thread::yield_now();
            }
            {
                let mut state = inbox.state.lock();
                state.pace.begin(Instant::now(), 9);
                state.pace.end(Duration::from_millis(1));
            }
            let put_at = Instant::now();
            put(&inbox, 1);
            assert_eq!(writer.join().unwrap().accepts.len(), 1);
            assert!(put_at.elapsed() < patience / 2);
        });
    }

    /// Broken: groups stay small however many come, or a group that is large enough waits.
    #[test]
    fn a_group_waits_for_those_who_were_there_lately() {
        let inbox = Inbox::new();
        let mut state = inbox.state.lock();
        state.pace.begin(Instant::now() + Duration::from_secs(60), 3);
        drop(state);
        put(&inbox, 1);
        put(&inbox, 2);
        assert!(!inbox.state.lock().is_worth_a_commit(Instant::now()));
        put(&inbox, 3);
        assert!(inbox.state.lock().is_worth_a_commit(Instant::now()));
        assert_eq!(inbox.next(Duration::ZERO).accepts.len(), 3);
    }
}
