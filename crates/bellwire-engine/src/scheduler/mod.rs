//! Who goes next: a state machine without clock, sockets or threads. `queue.rs` feeds it and runs what it hands out.
//!
//! * Each endpoint has a lane for first tries and one for retries, and a window of attempts that may run at once
//!   (`endpoint.rs`: it grows with quick answers and is halved by overload).
//! * Endpoints with work and room stand in their application's ring, applications stand in one ring: round robin on both
//!   levels, so neither an application nor an endpoint can starve another.
//! * Endpoints that answer slowly are in a lane of their own with its own share of the attempts in flight: however many hang,
//!   quick ones find room.
//! * An attempt counts as in flight until it is *recorded*, not just answered: what a crash may repeat is never more than
//!   the limit.

mod backlog;
mod endpoint;
mod ownership;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{AppId, EndpointId, MessageId, Timestamp, Trigger};
use bellwire_store::NewMessage;

use backlog::Backlog;
pub use endpoint::Feedback;
use endpoint::{Bucket, EndpointQueue, FirstTry, Room};
use ownership::Ownership;

/// Monotonic time since the engine's start.
pub type Instant = Duration;

/// One delivery waiting for its next attempt.
#[derive(Clone, Debug)]
pub struct Job {
    pub message: MessageId,
    pub endpoint: EndpointId,
    pub app: AppId,
    /// Tries made before this one.
    pub tries: u32,
    pub trigger: Trigger,
    pub resume_at: Option<Timestamp>,
    /// The first try, which stands in the message's queue row.
    pub is_first_try: bool,
    /// The message, while it is in memory; else it is read from the store when the job runs.
    pub content: Option<Arc<NewMessage>>,
    /// The membership it was started under; set when it starts.
    pub epoch: i64,
}

/// First tries of an endpoint to be read back from the store.
#[derive(Clone, Debug)]
pub struct ReadBack {
    pub endpoint: EndpointId,
    pub from: MessageId,
    /// Those from there on that are in memory already.
    pub known: HashSet<MessageId>,
    /// What was forgotten since is of no use any more.
    purges: u32,
}

/// First tries that every endpoint may have in memory even when the limit of all together is reached: however many dead
/// endpoints fill it, the others go on.
const FIRST_TRIES_RESERVED: usize = 1_024;

/// Limits of the scheduler; see `bellwire_core::limits` for the reasons of the defaults.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerLimits {
    pub in_flight_max: usize,
    pub window_max: usize,
    pub endpoint_queue_max: usize,
    pub queue_max: usize,
    pub payload_bytes_max: usize,
    /// Others may have delivered to an endpoint a moment ago: a rate begins with one token, not with a second's worth.
    pub is_shared: bool,
}

/// What came of handing a job in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    Queued,
    /// No room in memory: it stays in the store, and [`Scheduler::begin_read_back`] names the endpoint once there is room.
    Overflowed,
    /// Its shard is another node's.
    NotMine,
}

#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    endpoints: HashMap<EndpointId, EndpointQueue>,
    /// Applications with a rate of their own.
    app_rates: HashMap<AppId, Bucket>,
    quick: Lane,
    slow: Lane,
    /// Endpoints waiting for a time: paused, or out of tokens.
    timers: BTreeSet<(Instant, EndpointId)>,
    overflowing: BTreeSet<EndpointId>,
    read_back_last: Option<EndpointId>,
    /// Answered but not yet recorded. Below zero for a moment when the store is quicker to record an attempt than its worker
    /// is to say that it has ended.
    unrecorded: isize,
    queued: usize,
    backlog: Backlog,
    payload_bytes: usize,
    own: Ownership,
}

impl Scheduler {
    pub fn new(limits: SchedulerLimits) -> Self {
        Self {
            limits,
            endpoints: HashMap::new(),
            app_rates: HashMap::new(),
            quick: Lane::default(),
            slow: Lane::default(),
            timers: BTreeSet::new(),
            overflowing: BTreeSet::new(),
            read_back_last: None,
            unrecorded: 0,
            queued: 0,
            backlog: Backlog::default(),
            payload_bytes: 0,
            own: Ownership::default(),
        }
    }

    /// Takes a job in. First tries beyond the limits are left to the store; retries are always taken (the caller reads only
    /// so many from the store).
    pub fn enqueue(&mut self, job: Job) -> Enqueued {
        if job.is_first_try && self.own.mine.has(job.endpoint) {
            let queue = self.queue_of(job.app, job.endpoint);
            if queue.is_overflowing {
                let from = queue.overflow_from.get_or_insert(job.message);
                *from = (*from).min(job.message);
                return Enqueued::Overflowed;
            }
        }
        self.enqueue_loaded(job)
    }

    /// As [`Scheduler::enqueue`], for what was read back from the store: an overflow does not keep it out, only the limits do.
    pub fn enqueue_loaded(&mut self, job: Job) -> Enqueued {
        let (id, job_app) = (job.endpoint, job.app);
        if !self.own.mine.has(id) {
            return Enqueued::NotMine;
        }
        let is_full = self.queued >= self.limits.queue_max;
        let endpoint_queue_max = self.limits.endpoint_queue_max;
        let payload_bytes_left = self.limits.payload_bytes_max.saturating_sub(self.payload_bytes);
        let queue = self.queue_of(job.app, id);
        let is_slow = queue.is_slow;
        if job.is_first_try {
            let is_reserved = queue.first.len() < FIRST_TRIES_RESERVED.min(endpoint_queue_max);
            if queue.first.len() >= endpoint_queue_max || (is_full && !is_reserved) {
                queue.is_overflowing = true;
                let from = queue.overflow_from.get_or_insert(job.message);
                *from = (*from).min(job.message);
                self.overflowing.insert(id);
                return Enqueued::Overflowed;
            }
            let bytes = payload_len(job.content.as_ref());
            let fits = bytes <= payload_bytes_left;
            queue.first.push_back(FirstTry { message: job.message, content: job.content.filter(|_| fits) });
            self.payload_bytes += if fits { bytes } else { 0 };
        } else {
            queue.retry.push_back(job);
        }
        self.queued += 1;
        if !is_slow {
            self.backlog.add(job_app, 1);
        }
        self.offer(id);
        Enqueued::Queued
    }

    fn queue_of(&mut self, app: AppId, id: EndpointId) -> &mut EndpointQueue {
        let window_max = self.limits.window_max;
        self.endpoints.entry(id).or_insert_with(|| EndpointQueue::new(app, window_max))
    }

    /// Jobs that may run now; each counts as in flight from here on.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<Job>) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(queue) = self.endpoints.get_mut(&id) {
                queue.timer = None;
            }
            self.offer(id);
        }
        while self.in_flight() < self.room_for_quick() {
            let Some(id) = self.quick.next() else { break };
            self.start(id, now, out);
        }
        // Half of all attempts in flight may belong to slow endpoints; quick ones may use all that is left.
        while self.in_flight() < self.limits.in_flight_max && self.slow.in_flight < self.limits.in_flight_max / 2 {
            let Some(id) = self.slow.next() else { break };
            self.start(id, now, out);
        }
    }

    /// An attempt has been answered (or has failed). It stays in flight until [`Scheduler::recorded`].
    pub fn finished(&mut self, now: Instant, id: EndpointId, feedback: Feedback) {
        let Some(queue) = self.endpoints.get_mut(&id) else { return };
        queue.in_flight = queue.in_flight.saturating_sub(1);
        let was_slow = queue.is_slow;
        queue.judge(now, feedback);
        // In flight moves from its lane to the unrecorded, and the rest follows the endpoint into its new lane.
        let lane = if was_slow { &mut self.slow } else { &mut self.quick };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        self.unrecorded += 1;
        let (app, is_slow, in_flight, waiting) = (queue.app, queue.is_slow, queue.in_flight, queue.len());
        if was_slow != is_slow {
            self.change_lane(app, is_slow, in_flight, waiting);
        }
        self.offer(id);
        self.forget_if_idle(id, now);
    }

    /// `count` attempts are durable.
    pub fn recorded(&mut self, count: usize) {
        self.unrecorded -= isize::try_from(count).unwrap_or(isize::MAX);
    }

    /// A first try is durable: its row is gone from the store, so reading back will not meet it. Or it has come to nothing, and
    /// reading back is to bring it again.
    pub fn recorded_first_try(&mut self, now: Instant, endpoint: EndpointId, message: MessageId) {
        if let Some(queue) = self.endpoints.get_mut(&endpoint) {
            queue.running.remove(&message);
            self.forget_if_idle(endpoint, now);
        }
    }

    /// Endpoints that have attempts running and have not answered any for a second go to the slow lane without waiting for
    /// the end. Called a few times a second.
    pub fn tick(&mut self, now: Instant) {
        let hanging: Vec<_> = self.endpoints.iter().filter(|(_, queue)| queue.is_hanging(now)).map(|(id, _)| *id).collect();
        for id in hanging {
            let Some(queue) = self.endpoints.get_mut(&id) else { continue };
            queue.is_slow = true;
            queue.shrink();
            let (app, in_flight, waiting) = (queue.app, queue.in_flight, queue.len());
            self.change_lane(app, true, in_flight, waiting);
        }
    }

    /// No attempt more of a quick endpoint may start until one is recorded.
    pub fn is_full(&self) -> bool {
        self.in_flight() >= self.room_for_quick()
    }

    /// A quarter of all attempts in flight is not for those that fill the quick lane: endpoints that have begun to hang, and
    /// are not known to yet, must leave some room for when they are.
    fn room_for_quick(&self) -> usize {
        let max = self.limits.in_flight_max;
        let reserve = max / 4;
        if self.quick.in_flight >= max - reserve { (max - reserve).max(1) } else { max }
    }

    /// Attempts per second of an endpoint, and of all endpoints of its application together; `None`: unlimited.
    pub fn set_rates(&mut self, app: AppId, id: EndpointId, endpoint_rate: Option<f64>, app_rate: Option<f64>) {
        let is_full = !self.limits.is_shared;
        self.queue_of(app, id).set_rate(endpoint_rate, is_full);
        let mut slot = self.app_rates.remove(&app);
        Bucket::set(&mut slot, app_rate, is_full);
        if let Some(bucket) = slot {
            self.app_rates.insert(app, bucket);
        }
    }

    /// When [`Scheduler::poll`] should be called again though nothing else happens.
    pub fn next_wake(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// An endpoint whose first tries must be read back from the store now that there is room: from which message on, and which
    /// of those are in memory already. The caller reads, hands them in by [`Scheduler::enqueue_loaded`], and then calls
    /// [`Scheduler::end_read_back`].
    pub fn begin_read_back(&mut self) -> Option<ReadBack> {
        let is_crowded = self.queued >= self.limits.queue_max / 2;
        let most = if is_crowded { FIRST_TRIES_RESERVED } else { usize::MAX }.min(self.limits.endpoint_queue_max);
        let is_ready = |id: &&EndpointId| {
            self.own.complete.has(**id) && self.endpoints.get(id).is_none_or(|queue| queue.first.len() <= most / 2)
        };
        // In turn, beginning after the one served last.
        let after = self.read_back_last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.overflowing.range((after, Bound::Unbounded));
        let id = *rest.find(is_ready).or_else(|| self.overflowing.iter().find(is_ready))?;
        self.read_back_last = Some(id);
        let Some(queue) = self.endpoints.get_mut(&id) else {
            self.overflowing.remove(&id);
            return None;
        };
        let Some(from) = queue.overflow_from.take() else {
            queue.is_overflowing = false;
            self.overflowing.remove(&id);
            return None;
        };
        let queued = queue.first.iter().map(|first| first.message);
        let known = queued.chain(queue.running.iter().copied()).filter(|message| *message >= from).collect();
        Some(ReadBack { endpoint: id, from, known, purges: self.purges_of(id) })
    }

    /// A job of a page read back. [`Enqueued::NotMine`] also if its shard has been forgotten since reading began.
    pub fn enqueue_read_back(&mut self, read_back: &ReadBack, job: Job) -> Enqueued {
        if read_back.purges != self.purges_of(job.endpoint) {
            return Enqueued::NotMine;
        }
        self.enqueue_loaded(job)
    }

    /// Everything the store had was read. If more was left to it meanwhile, reading back goes on; else new first tries go
    /// straight into memory again.
    pub fn end_read_back(&mut self, read_back: &ReadBack) {
        let id = read_back.endpoint;
        if read_back.purges != self.purges_of(id) {
            return;
        }
        if let Some(queue) = self.endpoints.get_mut(&id)
            && queue.overflow_from.is_none()
        {
            queue.is_overflowing = false;
            self.overflowing.remove(&id);
        }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Deliveries waiting for endpoints that answer quickly: the backlog that is our doing, not a receiver's.
    pub fn queued_quick(&self) -> usize {
        self.backlog.total()
    }

    /// Deliveries are behind (more than `max` wait for quick endpoints), and this application is among those who make it so.
    pub fn is_behind(&self, app: AppId, max: usize) -> bool {
        self.backlog.is_made_by(app, max)
    }

    /// The applications that [`Scheduler::is_behind`] is true of.
    pub fn behind(&self, max: usize) -> Vec<AppId> {
        self.backlog.makers(max)
    }

    pub fn in_flight(&self) -> usize {
        (self.quick.in_flight + self.slow.in_flight).saturating_add_signed(self.unrecorded)
    }

    /// Starts one job of an endpoint that has just left its ring, if it still may.
    fn start(&mut self, id: EndpointId, now: Instant, out: &mut Vec<Job>) {
        let Some(queue) = self.endpoints.get_mut(&id) else { return };
        queue.is_offered = false;
        if !self.own.active.has(id) {
            return;
        }
        let app_rate = self.app_rates.get_mut(&queue.app);
        let room = match (queue.room(now), app_rate) {
            (Room::Now, Some(rate)) => rate.room(now),
            (room, _) => room,
        };
        match room {
            Room::Now => {}
            Room::At(at) => {
                // First come, first served among those that wait for the same moment.
                let at = at + Duration::from_nanos(self.timers.len() as u64);
                queue.timer = Some(at);
                self.timers.insert((at, id));
                return;
            }
            Room::None => return,
        }
        let Some(mut job) = queue.take(id) else { return };
        job.epoch = self.own.epoch;
        self.own.begun(id);
        if let Some(rate) = self.app_rates.get_mut(&queue.app) {
            rate.take();
        }
        if queue.in_flight == 0 {
            queue.progress_at = now;
        }
        queue.in_flight += 1;
        self.queued -= 1;
        if queue.is_slow {
            self.slow.in_flight += 1;
        } else {
            self.quick.in_flight += 1;
            self.backlog.remove(queue.app, 1);
        }
        if job.is_first_try {
            queue.running.insert(job.message);
        }
        self.payload_bytes = self.payload_bytes.saturating_sub(payload_len(job.content.as_ref()));
        out.push(job);
        self.offer(id);
    }

    /// Puts the endpoint into its application's ring if it has work and may have room.
    fn offer(&mut self, id: EndpointId) {
        if !self.own.active.has(id) {
            return;
        }
        let Some(queue) = self.endpoints.get_mut(&id) else { return };
        if queue.is_offered || queue.timer.is_some() || queue.len() == 0 || !queue.has_window() {
            return;
        }
        queue.is_offered = true;
        let lane = if queue.is_slow { &mut self.slow } else { &mut self.quick };
        lane.push(queue.app, id);
    }

    fn change_lane(&mut self, app: AppId, to_slow: bool, in_flight: usize, waiting: usize) {
        let (from, to) = if to_slow { (&mut self.quick, &mut self.slow) } else { (&mut self.slow, &mut self.quick) };
        from.in_flight = from.in_flight.saturating_sub(in_flight);
        to.in_flight += in_flight;
        if to_slow {
            self.backlog.remove(app, waiting);
        } else {
            self.backlog.add(app, waiting);
        }
    }

    /// Endpoints without work and with nothing learned are forgotten, so that memory follows activity.
    fn forget_if_idle(&mut self, id: EndpointId, now: Instant) {
        const ENDPOINTS_REMEMBERED: usize = 16_384;
        if self.endpoints.len() <= ENDPOINTS_REMEMBERED {
            return;
        }
        if self.endpoints.get(&id).is_some_and(|queue| queue.is_forgettable(now)) {
            self.endpoints.remove(&id);
        }
    }
}

fn payload_len(content: Option<&Arc<NewMessage>>) -> usize {
    content.and_then(|content| content.message.payload.as_ref()).map_or(0, bytes::Bytes::len)
}

/// Applications in turn, and in each its endpoints in turn.
#[derive(Debug, Default)]
struct Lane {
    /// An application has a ring exactly while it stands in `turn` (or is the one being served).
    rings: HashMap<AppId, VecDeque<EndpointId>>,
    turn: VecDeque<AppId>,
    /// Attempts running, not yet answered.
    in_flight: usize,
}

impl Lane {
    fn push(&mut self, app: AppId, id: EndpointId) {
        match self.rings.entry(app) {
            Entry::Occupied(ring) => ring.into_mut().push_back(id),
            Entry::Vacant(slot) => {
                slot.insert(VecDeque::from([id]));
                self.turn.push_back(app);
            }
        }
    }

    fn next(&mut self) -> Option<EndpointId> {
        let app = self.turn.pop_front()?;
        let ring = self.rings.get_mut(&app)?;
        let id = ring.pop_front();
        if ring.is_empty() {
            self.rings.remove(&app);
        } else {
            self.turn.push_back(app);
        }
        id
    }
}

#[cfg(test)]
mod overflow_tests;
#[cfg(test)]
mod ownership_tests;
#[cfg(test)]
mod tests;
