//! Between the store and the workers: what commits becomes jobs, jobs become running attempts.
//! Invariant: whatever is unfinished is in memory here, or the store is known to have more (`overflow`, `watermark`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bellwire_core::{AppId, EndpointId, MessageId, ShardSet, Timestamp, Trigger};
use bellwire_store::{AttemptRecord, CommitSink, DeliveryNext, DueDelivery, HandedOver, NewMessage};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::Engine;
use crate::retries::{LoadRetries, Retries, retry_job};
use crate::scheduler::{Enqueued, Feedback, Instant, Job, ReadBack, Scheduler, SchedulerLimits};

/// Deliveries to quick endpoints that may wait before ingest is held back: some tens of milliseconds of work.
const BACKLOG_MAX: usize = 512;

pub struct Queue {
    scheduler: Mutex<Scheduler>,
    retries: Mutex<Retries>,
    /// Mirrors of the scheduler's counters, read without its lock.
    queued_quick: AtomicUsize,
    in_flight: AtomicUsize,
    /// Work has come in from outside the runtime (the store's writer thread).
    pub work: Notify,
    /// The backlog has shrunk.
    room: Notify,
    /// Deliveries to quick endpoints are behind.
    behind: watch::Sender<bool>,
    /// A retry may be due earlier than thought.
    pub retry_changed: Notify,
    started: std::time::Instant,
}

impl Queue {
    /// With all shards, if the store is nobody else's; else with none.
    pub fn new(limits: SchedulerLimits) -> Self {
        let mut scheduler = Scheduler::new(limits);
        let mine = if limits.is_shared { ShardSet::EMPTY } else { ShardSet::ALL };
        if limits.is_shared {
            scheduler.purge(&ShardSet::ALL);
        }
        Self {
            scheduler: Mutex::new(scheduler),
            retries: Mutex::new(Retries::new(mine)),
            queued_quick: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            work: Notify::new(),
            room: Notify::new(),
            behind: watch::Sender::new(false),
            retry_changed: Notify::new(),
            started: std::time::Instant::now(),
        }
    }

    /// Monotonic time as the scheduler counts it.
    pub fn now(&self) -> Instant {
        self.started.elapsed()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// (queued, of these for quick endpoints, in flight, retries waiting in memory)
    pub fn depths(&self) -> (usize, usize, usize, usize) {
        let scheduler = self.scheduler.lock();
        let (queued, quick, in_flight) = (scheduler.queued(), scheduler.queued_quick(), scheduler.in_flight());
        drop(scheduler);
        (queued, quick, in_flight, self.retries.lock().waiting())
    }

    /// Waits while deliveries to quick endpoints are behind and this application is among those who make it so, at most `max`.
    pub async fn hold_back(&self, app: AppId, max: Duration) {
        let is_behind =
            || self.queued_quick.load(Ordering::Relaxed) > BACKLOG_MAX && self.scheduler.lock().is_behind(app, BACKLOG_MAX);
        if !is_behind() {
            return;
        }
        let wait = async {
            loop {
                let room = self.room.notified();
                if !is_behind() {
                    return;
                }
                room.await;
            }
        };
        let _ = tokio::time::timeout(max, wait).await;
    }

    /// Whether deliveries to quick endpoints are behind; it is soon so, if it is said to be.
    pub fn watch_behind(&self) -> watch::Receiver<bool> {
        self.behind.subscribe()
    }

    /// The applications that make it so.
    pub fn behind(&self) -> Vec<AppId> {
        match self.queued_quick.load(Ordering::Relaxed) > BACKLOG_MAX {
            true => self.scheduler.lock().behind(BACKLOG_MAX),
            false => Vec::new(),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Scheduler) -> R) -> R {
        let mut scheduler = self.scheduler.lock();
        let result = act(&mut scheduler);
        let quick = scheduler.queued_quick();
        let before = self.queued_quick.swap(quick, Ordering::Relaxed);
        self.in_flight.store(scheduler.in_flight(), Ordering::Relaxed);
        drop(scheduler);
        if (before > BACKLOG_MAX) != (quick > BACKLOG_MAX) {
            self.behind.send_replace(quick > BACKLOG_MAX);
        }
        if before / BACKLOG_MAX > quick / BACKLOG_MAX || (before > BACKLOG_MAX && quick <= BACKLOG_MAX) {
            self.room.notify_waiters();
        }
        result
    }

    /// Jobs that may run now.
    pub fn poll(&self, out: &mut Vec<Job>) {
        let now = self.now();
        self.with(|scheduler| scheduler.poll(now, out));
    }

    /// An attempt has ended; jobs that may run now.
    pub fn finished(&self, endpoint: EndpointId, feedback: Feedback, out: &mut Vec<Job>, may_start: bool) {
        let now = self.now();
        self.with(|scheduler| {
            scheduler.finished(now, endpoint, feedback);
            if may_start {
                scheduler.poll(now, out);
            }
        });
    }

    /// Puts endpoints that have stopped answering into the slow lane; when to look again.
    pub fn tick(&self) -> Option<Instant> {
        let now = self.now();
        self.with(|scheduler| {
            scheduler.tick(now);
            scheduler.next_wake()
        })
    }

    pub fn next_wake(&self) -> Option<Instant> {
        self.scheduler.lock().next_wake()
    }

    /// Takes over the rate limits of an endpoint and its application.
    pub fn set_rates(&self, app: AppId, endpoint: EndpointId, endpoint_rate: Option<f64>, app_rate: Option<f64>) {
        self.with(|scheduler| scheduler.set_rates(app, endpoint, endpoint_rate, app_rate));
    }

    /// First tries of shards just gained, read from the store under this membership; what does not fit will be read back.
    pub fn offer_adopted(&self, epoch: i64, due: impl IntoIterator<Item = DueDelivery>) {
        self.with(|scheduler| {
            if scheduler.epoch() != epoch {
                return;
            }
            for delivery in due {
                scheduler.enqueue_loaded(first_try(delivery.message, delivery.endpoint, delivery.app, None));
            }
        });
        self.work.notify_one();
    }

    /// First tries read back. False: no more of them now.
    pub fn offer_read_back(&self, read_back: &ReadBack, due: impl IntoIterator<Item = DueDelivery>) -> bool {
        let is_all = self.with(|scheduler| {
            // All of them, also after the first that did not fit: each endpoint must know what it left to the store.
            due.into_iter().fold(true, |is_all, delivery| {
                let job = first_try(delivery.message, delivery.endpoint, delivery.app, None);
                scheduler.enqueue_read_back(read_back, job) == Enqueued::Queued && is_all
            })
        });
        self.work.notify_one();
        is_all
    }

    /// See [`Scheduler::begin_read_back`].
    pub fn begin_read_back(&self) -> Option<ReadBack> {
        self.with(Scheduler::begin_read_back)
    }

    pub fn end_read_back(&self, read_back: &ReadBack) {
        self.with(|scheduler| scheduler.end_read_back(read_back));
    }

    /// What other nodes accepted for shards of this one. How many deliveries.
    pub fn offer_handed_over(&self, handed: HandedOver) -> usize {
        let count = handed.first_tries.len() + handed.retries.len();
        if count == 0 {
            return 0;
        }
        self.with(|scheduler| {
            for (delivery, content) in handed.first_tries {
                scheduler.enqueue(first_try(delivery.message, delivery.endpoint, delivery.app, content));
            }
        });
        for delivery in &handed.retries {
            self.offer_requeued(delivery);
        }
        self.work.notify_one();
        count
    }

    /// First tries that a peer has committed for this node a moment ago.
    pub fn offer_by_word(&self, deliveries: Vec<(EndpointId, Arc<NewMessage>)>) {
        self.with(|scheduler| {
            for (endpoint, new) in deliveries {
                scheduler.enqueue(first_try(new.message.id, endpoint, new.message.app, Some(new)));
            }
        });
        self.work.notify_one();
    }

    /// A delivery made due again.
    pub fn offer_requeued(&self, delivery: &DueDelivery) {
        match delivery.trigger {
            Trigger::Manual => self.offer_manual(delivery),
            Trigger::Scheduled => self.offer_retry(delivery),
        }
    }

    /// Deliveries of these shards are taken in from now on, but not started.
    pub fn gain(&self, shards: &ShardSet) {
        self.with(|scheduler| scheduler.gain(shards));
        self.retries.lock().gain(shards);
    }

    /// All first tries of these shards are being read: nothing of them is to be read back until [`Queue::complete`].
    pub fn incomplete(&self, shards: &ShardSet) {
        self.with(|scheduler| scheduler.incomplete(shards));
    }

    pub fn complete(&self, shards: &ShardSet) {
        self.with(|scheduler| scheduler.complete(shards));
    }

    /// Everything unfinished of these shards has been read, or will be: their deliveries start.
    pub fn activate(&self, shards: &ShardSet) {
        self.retries.lock().rewind(shards);
        self.retry_changed.notify_one();
        self.with(|scheduler| {
            scheduler.complete(shards);
            scheduler.activate(shards);
        });
        self.work.notify_one();
    }

    /// No attempt of these shards starts any more.
    pub fn hold(&self, shards: &ShardSet) {
        self.with(|scheduler| scheduler.hold(shards));
    }

    /// Those of `shards` of which no attempt runs or is not yet recorded.
    pub fn drained(&self, shards: &ShardSet) -> ShardSet {
        self.scheduler.lock().drained(shards)
    }

    /// Forgets these shards.
    pub fn purge(&self, shards: &ShardSet) {
        self.with(|scheduler| scheduler.purge(shards));
        self.retries.lock().purge(shards);
    }

    /// Forgets everything; attempts that start from now on belong to this membership.
    pub fn begin_epoch(&self, epoch: i64) {
        self.with(|scheduler| scheduler.begin_epoch(epoch));
        self.retries.lock().purge(&ShardSet::ALL);
    }

    /// A job that was started is not done: it stays in the store, for whoever its shard belongs to by now.
    pub fn dropped(&self, job: &Job) {
        let now = self.now();
        self.with(|scheduler| {
            scheduler.recorded(1);
            scheduler.ended(job.endpoint);
            if job.is_first_try && job.epoch == scheduler.epoch() {
                scheduler.recorded_first_try(now, job.endpoint, job.message);
            }
        });
    }

    /// A retry whose row is durable: kept if it is due before the watermark, else the store hands it out in time.
    pub fn offer_retry(&self, delivery: &DueDelivery) {
        if self.retries.lock().offer(delivery) {
            self.retry_changed.notify_one();
        }
    }

    /// A manual try asked for now: takes the place of a waiting retry of the same delivery.
    pub fn offer_manual(&self, delivery: &DueDelivery) {
        if !self.retries.lock().begin_manual(delivery) {
            return;
        }
        self.with(|scheduler| scheduler.enqueue(retry_job(delivery)));
        self.work.notify_one();
    }

    /// Moves retries that are due into the scheduler. Returns when the next one in memory is due, and up to when to read from
    /// the store if it is time to.
    pub fn release_due(&self, now: Timestamp) -> (Option<Timestamp>, Option<LoadRetries>) {
        let (due, next, load) = self.retries.lock().release_due(now);
        if !due.is_empty() {
            self.with(|scheduler| {
                for job in due {
                    scheduler.enqueue(job);
                }
            });
            self.work.notify_one();
        }
        (next, load)
    }

    /// A page read from the store. False: do not read on.
    pub fn take_loaded_retries(&self, page: &[DueDelivery]) -> bool {
        self.retries.lock().take_loaded(page)
    }

    pub fn end_load(&self, load: &LoadRetries) {
        self.retries.lock().end_load(load);
    }
}

fn first_try(message: MessageId, endpoint: EndpointId, app: AppId, content: Option<Arc<NewMessage>>) -> Job {
    Job { message, endpoint, app, tries: 0, trigger: Trigger::Scheduled, resume_at: None, is_first_try: true, content, epoch: 0 }
}

/// Told of commits by the store's writer thread. Holds the engine weakly: the engine holds the store.
pub struct Sink(pub Weak<Engine>);

impl CommitSink for Sink {
    fn accepted(&self, messages: &[Arc<NewMessage>], local: &ShardSet, begun: std::time::Instant) {
        let Some(engine) = self.0.upgrade() else { return };
        let mut queued = false;
        engine.queue.with(|scheduler| {
            for new in messages {
                let message = &new.message;
                if message.deliver_at.is_some() {
                    continue;
                }
                for endpoint in new.endpoints.iter().filter(|endpoint| local.has(**endpoint)) {
                    let job = first_try(message.id, *endpoint, message.app, Some(new.clone()));
                    queued |= scheduler.enqueue(job) == Enqueued::Queued;
                }
            }
        });
        engine.links.tell_owners(messages, local, begun);
        for new in messages {
            let message = &new.message;
            let Some(due_at) = message.deliver_at else { continue };
            for endpoint in new.endpoints.iter().filter(|endpoint| local.has(**endpoint)) {
                engine.queue.offer_retry(&DueDelivery {
                    message: message.id,
                    endpoint: *endpoint,
                    app: message.app,
                    tries: 0,
                    due_at,
                    trigger: Trigger::Scheduled,
                    resume_at: None,
                });
            }
        }
        if queued {
            engine.queue.work.notify_one();
        }
    }

    fn requeued(&self, deliveries: &[DueDelivery]) {
        let Some(engine) = self.0.upgrade() else { return };
        for delivery in deliveries {
            engine.queue.offer_requeued(delivery);
        }
    }

    fn fenced(&self, attempts: &[AttemptRecord]) {
        let Some(engine) = self.0.upgrade() else { return };
        engine.metrics.attempts_fenced.inc_by(attempts.len() as u64);
        let now = engine.queue.now();
        engine.queue.with(|scheduler| {
            scheduler.recorded(attempts.len());
            for record in attempts {
                scheduler.ended(record.endpoint);
                // Under a later membership the same message may run anew.
                if record.is_first_try && record.epoch == scheduler.epoch() {
                    scheduler.recorded_first_try(now, record.endpoint, record.message);
                }
            }
        });
        // Nothing more is started under that membership; whether it is this node's present one, the next beat says.
        if attempts.iter().any(|record| record.epoch == engine.shards.epoch()) {
            engine.shards.doubt();
        }
        engine.queue.work.notify_one();
    }

    fn recorded(&self, attempts: &[AttemptRecord]) {
        let Some(engine) = self.0.upgrade() else { return };
        engine.metrics.attempts_recorded.inc_by(attempts.len() as u64);
        let mut starts = false;
        let now = engine.queue.now();
        engine.queue.with(|scheduler| {
            let was_full = scheduler.is_full();
            scheduler.recorded(attempts.len());
            for record in attempts {
                scheduler.ended(record.endpoint);
                if record.is_first_try {
                    scheduler.recorded_first_try(now, record.endpoint, record.message);
                }
            }
            starts = was_full && scheduler.queued() > 0;
        });
        for record in attempts {
            if !record.is_first_try && engine.queue.retries.lock().settle(record.message, record.endpoint) {
                engine.queue.retry_changed.notify_one();
            }
            if let DeliveryNext::RetryAt { at, tries } = record.next {
                engine.queue.offer_retry(&DueDelivery {
                    message: record.message,
                    endpoint: record.endpoint,
                    app: record.app,
                    tries,
                    due_at: at,
                    trigger: Trigger::Scheduled,
                    resume_at: None,
                });
            }
        }
        if starts {
            engine.queue.work.notify_one();
        }
    }
}
