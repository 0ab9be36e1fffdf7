//! Between the store and the workers: what commits becomes jobs, jobs become running attempts.
//! Invariant: whatever is unfinished is in memory here, or the store is known to have more (`overflow`, `watermark`).

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bellwire_core::{AppId, Application, Endpoint, EndpointId, MessageId, ShardSet, Timestamp, Trigger};
use bellwire_store::{AttemptRecord, CommitSink, DeliveryNext, DueDelivery, NewMessage};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Engine;
use crate::retries::{LoadRetries, Retries, retry_job};
use crate::scheduler::{Enqueued, Feedback, Instant, Job, Scheduler, SchedulerLimits};

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
    /// A retry may be due earlier than thought.
    pub retry_changed: Notify,
    started: std::time::Instant,
}

impl Queue {
    pub fn new(limits: SchedulerLimits) -> Self {
        Self {
            scheduler: Mutex::new(Scheduler::new(limits)),
            retries: Mutex::new(Retries::new()),
            queued_quick: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            work: Notify::new(),
            room: Notify::new(),
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

    fn with<R>(&self, act: impl FnOnce(&mut Scheduler) -> R) -> R {
        let mut scheduler = self.scheduler.lock();
        let result = act(&mut scheduler);
        let quick = scheduler.queued_quick();
        let before = self.queued_quick.swap(quick, Ordering::Relaxed);
        self.in_flight.store(scheduler.in_flight(), Ordering::Relaxed);
        drop(scheduler);
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
    pub fn set_rates(&self, application: &Application, endpoint: &Endpoint) {
        self.with(|scheduler| {
            scheduler.set_rates(application.id, endpoint.id, endpoint.throttle_rate, application.throttle_rate);
        });
    }

    /// First tries read from the store. False: there was no room for all; what is left will be read back.
    pub fn offer_first_tries(&self, due: impl IntoIterator<Item = DueDelivery>) -> bool {
        let is_all = self.with(|scheduler| {
            // All of them, also after the first that did not fit: each endpoint must know what it left to the store.
            due.into_iter().fold(true, |is_all, delivery| {
                let job = first_try(delivery.message, delivery.endpoint, delivery.app, None);
                scheduler.enqueue_loaded(job) == Enqueued::Queued && is_all
            })
        });
        self.work.notify_one();
        is_all
    }

    /// See [`Scheduler::begin_read_back`].
    pub fn begin_read_back(&self) -> Option<(EndpointId, AppId, MessageId, HashSet<MessageId>)> {
        self.with(Scheduler::begin_read_back)
    }

    pub fn end_read_back(&self, endpoint: EndpointId) {
        self.with(|scheduler| scheduler.end_read_back(endpoint));
    }

    /// A retry whose row is durable: kept if it is due before the watermark, else the store hands it out in time.
    pub fn offer_retry(&self, delivery: &DueDelivery) {
        if self.retries.lock().offer(delivery) {
            self.retry_changed.notify_one();
        }
    }

    /// A manual try asked for now: takes the place of a waiting retry of the same delivery.
    pub fn offer_manual(&self, delivery: &DueDelivery) {
        self.retries.lock().begin_manual(delivery);
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

    /// A page read from the store.
    pub fn take_loaded_retries(&self, page: &[DueDelivery]) {
        self.retries.lock().take_loaded(page);
    }

    pub fn end_load(&self) {
        self.retries.lock().end_load();
    }
}

fn first_try(message: MessageId, endpoint: EndpointId, app: AppId, content: Option<Arc<NewMessage>>) -> Job {
    Job { message, endpoint, app, tries: 0, trigger: Trigger::Scheduled, resume_at: None, is_first_try: true, content }
}

/// Told of commits by the store's writer thread. Holds the engine weakly: the engine holds the store.
pub struct Sink(pub Weak<Engine>);

impl CommitSink for Sink {
    fn accepted(&self, messages: &[Arc<NewMessage>], _local: &ShardSet) {
        let Some(engine) = self.0.upgrade() else { return };
        let mut queued = false;
        engine.queue.with(|scheduler| {
            for new in messages {
                let message = &new.message;
                if message.deliver_at.is_some() {
                    continue;
                }
                for endpoint in &new.endpoints {
                    let job = first_try(message.id, *endpoint, message.app, Some(new.clone()));
                    queued |= scheduler.enqueue(job) == Enqueued::Queued;
                }
            }
        });
        for new in messages {
            let message = &new.message;
            let Some(due_at) = message.deliver_at else { continue };
            for endpoint in &new.endpoints {
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
            match delivery.trigger {
                Trigger::Manual => engine.queue.offer_manual(delivery),
                Trigger::Scheduled => engine.queue.offer_retry(delivery),
            }
        }
    }

    fn fenced(&self, _attempts: &[AttemptRecord]) {}

    fn recorded(&self, attempts: &[AttemptRecord]) {
        let Some(engine) = self.0.upgrade() else { return };
        engine.metrics.attempts_recorded.inc_by(attempts.len() as u64);
        let mut starts = false;
        engine.queue.with(|scheduler| {
            let was_full = scheduler.is_full();
            scheduler.recorded(attempts.len());
            for record in attempts.iter().filter(|record| record.is_first_try) {
                scheduler.recorded_first_try(record.endpoint, record.message);
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
