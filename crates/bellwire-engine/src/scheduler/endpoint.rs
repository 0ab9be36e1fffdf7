//! One endpoint's queue: two lanes, an adaptive window, a pause after overload, a token bucket.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use std::sync::Arc;

use bellwire_core::{AppId, EndpointId, MessageId, Trigger};
use bellwire_store::NewMessage;

use super::{Instant, Job};

/// What an attempt tells about its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// It answered, in this time. Any status but 429 and 503: an application error says nothing about load.
    Answered(Duration),
    /// It asked for less: 429 or 503, perhaps saying for how long.
    Overloaded(Option<Duration>),
    /// No answer: refused, reset, timed out; after this time.
    Failed(Duration),
    /// Nothing was sent (cancelled, expired).
    NotSent,
}

/// Whether an attempt may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Now,
    At(Instant),
    /// Not before another attempt ends.
    None,
}

/// Attempts that may run at once against a receiver nothing is known of: enough for speed, few enough to lose when it hangs.
const WINDOW_START: f32 = 4.0;
/// While answers take longer than twice their best time and this, more at once would only wait in line: at the receiver, or for
/// our own processor.
const INFLATED_ABOVE: Duration = Duration::from_millis(2);
/// Still, a line of more than this many windows is worth a try.
const LONG_LINE: usize = 4;
/// The best time drifts up by this share a second, so that a receiver that became slower for good is learned anew.
const BEST_DRIFT: f32 = 0.01;
/// Weight of the newest answer in the smoothed time.
const SMOOTHING: f32 = 1.0 / 8.0;
/// An answer slower than this keeps the window from growing and puts the endpoint into the slow lane.
const SLOW: Duration = Duration::from_millis(1_000);
/// Transport failures in a row before the circuit opens, and how long it stays open at first and at most.
const FAILURES_TO_OPEN: u32 = 20;
const OPEN_START: Duration = Duration::from_secs(1);
const OPEN_MAX: Duration = Duration::from_secs(30);
/// A receiver's `Retry-After` pauses all its deliveries for at most this (its own delivery waits in full).
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Of four attempts at most three are first tries while retries wait.
const FIRST_TRIES_IN_A_ROW: u8 = 3;
/// The window is halved at most this often.
const SHRINK_EVERY: Duration = Duration::from_millis(200);

/// A first try waiting: little, since there may be millions.
#[derive(Debug)]
pub struct FirstTry {
    pub message: MessageId,
    pub content: Option<Arc<NewMessage>>,
}

#[derive(Debug)]
pub struct EndpointQueue {
    pub app: AppId,
    pub first: VecDeque<FirstTry>,
    pub retry: VecDeque<Job>,
    pub in_flight: usize,
    pub is_slow: bool,
    /// Stands in its application's ring.
    pub is_offered: bool,
    /// Stands in the scheduler's timers.
    pub timer: Option<Instant>,
    /// When it last answered, or began to be tried after a rest.
    pub progress_at: Instant,
    /// Memory is full for this endpoint: further first tries stay in the store, until all that are there have been read back.
    pub is_overflowing: bool,
    /// The earliest message left to the store since reading back last began.
    pub overflow_from: Option<MessageId>,
    /// First tries that run, or are not recorded yet: the store still has their rows. Also of before an overflow: a message that
    /// commits late may have the oldest key of all, and what is read back from there on includes them.
    pub running: HashSet<MessageId>,
    window: f32,
    window_max: f32,
    /// Doubling until the first sign of load.
    is_ramping: bool,
    /// Answer times in seconds: the best one, and a moving average.
    best: f32,
    smooth: f32,
    shrunk_at: Instant,
    failures: u32,
    open_for: Duration,
    paused_until: Instant,
    firsts_in_a_row: u8,
    bucket: Option<Bucket>,
}

/// So many starts a second, of an endpoint or of an application; a second's worth may start at once.
#[derive(Debug)]
pub struct Bucket {
    per_second: f64,
    tokens: f64,
    /// `None`: counted from when it is first asked.
    filled_at: Option<Instant>,
}

impl EndpointQueue {
    pub fn new(app: AppId, window_max: usize) -> Self {
        let window_max = window_max.max(1) as f32;
        Self {
            app,
            first: VecDeque::new(),
            retry: VecDeque::new(),
            in_flight: 0,
            is_slow: false,
            is_offered: false,
            timer: None,
            progress_at: Duration::ZERO,
            is_overflowing: false,
            overflow_from: None,
            running: HashSet::new(),
            window: WINDOW_START.min(window_max),
            window_max,
            is_ramping: true,
            best: f32::INFINITY,
            smooth: 0.0,
            shrunk_at: Duration::ZERO,
            failures: 0,
            open_for: OPEN_START,
            paused_until: Duration::ZERO,
            firsts_in_a_row: 0,
            bucket: None,
        }
    }

    pub fn len(&self) -> usize {
        self.first.len() + self.retry.len()
    }

    pub fn has_window(&self) -> bool {
        self.in_flight < (self.window as usize).max(1)
    }

    /// Whether an attempt may start now; takes nothing.
    pub fn room(&mut self, now: Instant) -> Room {
        if !self.has_window() {
            return Room::None;
        }
        if self.paused_until > now {
            return Room::At(self.paused_until);
        }
        match &mut self.bucket {
            Some(bucket) => bucket.room(now),
            None => Room::Now,
        }
    }

    /// The next job; call only when there is [`Room::Now`]. `id` is this endpoint's own.
    pub fn take(&mut self, id: EndpointId) -> Option<Job> {
        let retry_first = self.first.is_empty() || (self.firsts_in_a_row >= FIRST_TRIES_IN_A_ROW && !self.retry.is_empty());
        let job = if retry_first {
            self.firsts_in_a_row = 0;
            self.retry.pop_front()
        } else {
            self.firsts_in_a_row = self.firsts_in_a_row.saturating_add(1);
            self.first.pop_front().map(|first| Job {
                message: first.message,
                endpoint: id,
                app: self.app,
                tries: 0,
                trigger: Trigger::Scheduled,
                resume_at: None,
                is_first_try: true,
                content: first.content,
                epoch: 0,
            })
        }?;
        if let Some(bucket) = &mut self.bucket {
            bucket.take();
        }
        Some(job)
    }

    /// Learns from an attempt that ended.
    pub fn judge(&mut self, now: Instant, feedback: Feedback) {
        let since_last = now.saturating_sub(self.progress_at);
        self.progress_at = now;
        match feedback {
            Feedback::Answered(latency) => {
                self.failures = 0;
                self.open_for = OPEN_START;
                self.is_slow = latency >= SLOW;
                if !self.is_slow {
                    self.adapt(latency, since_last);
                }
            }
            Feedback::Overloaded(pause) => {
                self.failures = 0;
                self.shrink_at(now);
                if let Some(pause) = pause {
                    self.paused_until = self.paused_until.max(now + pause.min(PAUSE_MAX));
                }
            }
            Feedback::Failed(after) => {
                self.is_slow |= after >= SLOW;
                self.failures = self.failures.saturating_add(1);
                self.shrink_at(now);
                if self.failures >= FAILURES_TO_OPEN {
                    // Half open after the pause: the window is one by now, so a single probe goes out.
                    self.paused_until = now + self.open_for;
                    self.open_for = (self.open_for * 2).min(OPEN_MAX);
                }
            }
            Feedback::NotSent => {}
        }
    }

    /// Grows the window where that promises more throughput, not more waiting.
    fn adapt(&mut self, latency: Duration, since_last: Duration) {
        let latency = latency.as_secs_f32();
        self.smooth = if self.best.is_finite() { self.smooth + (latency - self.smooth) * SMOOTHING } else { latency };
        self.best = (self.best * (1.0 + BEST_DRIFT * since_last.as_secs_f32())).min(latency);
        // Only a window that was used up has shown that it is too small. (The attempt that ended is not counted any more.)
        if self.in_flight + 1 < self.window as usize {
            return;
        }
        let is_inflated = self.smooth > 2.0 * self.best + INFLATED_ABOVE.as_secs_f32();
        self.is_ramping &= !is_inflated;
        let step = if self.is_ramping {
            1.0
        } else if !is_inflated || self.len() > LONG_LINE * self.window as usize {
            1.0 / self.window
        } else {
            0.0
        };
        self.window = (self.window + step).min(self.window_max);
    }

    /// Attempts are running and none has ended for as long as makes an endpoint slow.
    pub fn is_hanging(&self, now: Instant) -> bool {
        !self.is_slow && self.in_flight > 0 && now.saturating_sub(self.progress_at) >= SLOW
    }

    fn shrink_at(&mut self, now: Instant) {
        if now >= self.shrunk_at + SHRINK_EVERY || self.shrunk_at.is_zero() {
            self.shrunk_at = now;
            self.shrink();
        }
    }

    pub fn shrink(&mut self) {
        self.is_ramping = false;
        self.window = (self.window / 2.0).max(1.0);
    }

    pub fn set_rate(&mut self, rate: Option<f64>, is_full: bool) {
        Bucket::set(&mut self.bucket, rate, is_full);
    }

    /// What waits is somebody else's. What was learned of the receiver stays while attempts run.
    pub fn forget_waiting(&mut self) {
        self.first.clear();
        self.retry.clear();
        self.running.clear();
        self.is_overflowing = false;
        self.overflow_from = None;
        self.is_offered = false;
        self.timer = None;
    }

    /// Nothing queued, running or to be remembered.
    pub fn is_forgettable(&self, now: Instant) -> bool {
        self.len() == 0
            && self.in_flight == 0
            && self.running.is_empty()
            && !self.is_overflowing
            && self.timer.is_none()
            && !self.is_offered
            && self.paused_until <= now
            && self.failures == 0
            && self.bucket.is_none()
    }
}

impl Bucket {
    /// Changes the rate; an unchanged one keeps what it has counted. `is_full`: nobody else can have used up this second's worth.
    pub fn set(slot: &mut Option<Self>, rate: Option<f64>, is_full: bool) {
        if slot.as_ref().map(|bucket| bucket.per_second) == rate {
            return;
        }
        *slot = rate.map(|per_second| {
            let full = per_second.max(1.0);
            Self { per_second, tokens: if is_full { full } else { 1.0 }, filled_at: None }
        });
    }

    pub fn take(&mut self) {
        self.tokens -= 1.0;
    }

    pub fn room(&mut self, now: Instant) -> Room {
        let elapsed = self.filled_at.map_or(0.0, |at| now.saturating_sub(at).as_secs_f64());
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.per_second.max(1.0));
        self.filled_at = Some(now);
        if self.tokens >= 1.0 {
            return Room::Now;
        }
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.per_second);
        Room::At(now + wait.max(Duration::from_millis(1)))
    }
}
