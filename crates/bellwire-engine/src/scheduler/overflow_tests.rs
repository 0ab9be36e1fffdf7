//! First tries that do not fit into memory, against a store that is a set of rows: random histories in which messages commit in
//! another order than they were created.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bellwire_core::id::IdKind;
use bellwire_core::{AppId, EndpointId, MessageId, Trigger};

use super::*;

const LIMITS: SchedulerLimits = SchedulerLimits {
    in_flight_max: 6,
    window_max: 6,
    endpoint_queue_max: 6,
    queue_max: 10,
    payload_bytes_max: 1 << 20,
    is_shared: false,
};
const ENDPOINTS: u8 = 3;
const MESSAGES: u32 = 120;
/// Rows read at a time.
const PAGE: usize = 3;

fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 20])
}

fn message(n: u32) -> MessageId {
    let mut raw = [0; 20];
    raw[..4].copy_from_slice(&n.to_be_bytes());
    MessageId::from_bytes(raw)
}

fn job(endpoint: EndpointId, message: MessageId) -> Job {
    Job {
        message,
        endpoint,
        app: AppId::from_bytes([1; 20]),
        tries: 0,
        trigger: Trigger::Scheduled,
        resume_at: None,
        is_first_try: true,
        content: None,
        epoch: 0,
    }
}

/// A linear congruential generator: the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }
}

/// Reading back under way: where it goes on, and the page that was read and is yet to be handed in.
struct Reading {
    back: ReadBack,
    after: Option<MessageId>,
    page: Option<Vec<MessageId>>,
}

struct World {
    scheduler: Scheduler,
    dice: Dice,
    now: Duration,
    /// Created, and not yet committed.
    accepting: VecDeque<(EndpointId, MessageId)>,
    rows: BTreeSet<(EndpointId, MessageId)>,
    running: Vec<Job>,
    unrecorded: VecDeque<Job>,
    reading: Option<Reading>,
    sent: BTreeSet<(EndpointId, MessageId)>,
    has_read_back: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(LIMITS),
            dice: Dice(seed),
            now: Duration::ZERO,
            accepting: VecDeque::new(),
            rows: BTreeSet::new(),
            running: vec![],
            unrecorded: VecDeque::new(),
            reading: None,
            sent: BTreeSet::new(),
            has_read_back: false,
        }
    }

    /// Some message that is being accepted becomes durable, not always the oldest.
    fn commit(&mut self) {
        let at = self.dice.roll(self.accepting.len().max(1));
        if let Some((endpoint, message)) = self.accepting.remove(at) {
            self.rows.insert((endpoint, message));
            self.scheduler.enqueue(job(endpoint, message));
        }
    }

    fn start(&mut self, seed: u64) {
        let mut out = vec![];
        self.scheduler.poll(self.now, &mut out);
        for job in out {
            assert!(self.sent.insert((job.endpoint, job.message)), "seed {seed}: {} sent twice", job.message);
            self.running.push(job);
        }
    }

    fn finish(&mut self) {
        if !self.running.is_empty() {
            let at = self.dice.roll(self.running.len());
            let job = self.running.swap_remove(at);
            self.scheduler.finished(self.now, job.endpoint, Feedback::Answered(Duration::from_millis(1)));
            self.unrecorded.push_back(job);
        }
    }

    fn record(&mut self) {
        if let Some(job) = self.unrecorded.pop_front() {
            self.rows.remove(&(job.endpoint, job.message));
            self.scheduler.recorded(1);
            self.scheduler.recorded_first_try(self.now, job.endpoint, job.message);
        }
    }

    /// One step: begin, read a page, or hand a page in.
    fn read_back(&mut self) {
        let Some(reading) = &mut self.reading else {
            self.reading = self.scheduler.begin_read_back().map(|back| Reading { back, after: None, page: None });
            return;
        };
        let id = reading.back.endpoint;
        let Some(page) = reading.page.take() else {
            let from = reading.after.map_or(Bound::Included((id, reading.back.from)), |after| Bound::Excluded((id, after)));
            let rows = self.rows.range((from, Bound::Unbounded)).take_while(|(of, _)| *of == id);
            reading.page = Some(rows.map(|(_, message)| *message).take(PAGE).collect());
            return;
        };
        self.has_read_back = true;
        let mut is_all = true;
        for message in page.iter().filter(|message| !reading.back.known.contains(message)) {
            is_all &= self.scheduler.enqueue_read_back(&reading.back, job(id, *message)) == Enqueued::Queued;
        }
        reading.after = page.last().copied();
        if page.len() < PAGE && is_all {
            self.scheduler.end_read_back(&reading.back);
        }
        if page.len() < PAGE || !is_all {
            self.reading = None;
        }
    }
}

#[test]
fn whatever_does_not_fit_and_comes_late_every_first_try_is_made_exactly_once() {
    let mut read_back = 0;
    for seed in 0..400 {
        let mut world = World::new(seed);
        let mut created = 0;
        for _ in 0..60_000 {
            world.now += Duration::from_millis(world.dice.roll(3) as u64);
            match world.dice.roll(8) {
                0 | 1 if created < MESSAGES && world.accepting.len() < 12 => {
                    let of = 1 + u8::try_from(world.dice.roll(usize::from(ENDPOINTS))).unwrap();
                    world.accepting.push_back((endpoint(of), message(created)));
                    created += 1;
                }
                0..=2 => world.commit(),
                3 => world.start(seed),
                4 => world.finish(),
                5 => world.record(),
                _ => world.read_back(),
            }
            let is_over = created == MESSAGES && world.accepting.is_empty() && world.rows.is_empty();
            if is_over && world.reading.is_none() && world.scheduler.overflowing.is_empty() {
                break;
            }
        }
        assert_eq!(world.sent.len(), MESSAGES as usize, "seed {seed}: first tries were left behind");
        assert_eq!((world.scheduler.queued(), world.scheduler.in_flight()), (0, 0), "seed {seed}");
        assert!(world.scheduler.endpoints.values().all(|queue| queue.running.is_empty()), "seed {seed}: remembered for ever");
        read_back += usize::from(world.has_read_back);
    }
    assert!(read_back > 300, "only {read_back} histories had something to read back");
}

#[test]
fn a_late_message_with_an_older_key_does_not_bring_back_what_runs_since_before_the_overflow() {
    let mut s = Scheduler::new(LIMITS);
    let mut out = vec![];
    for m in 10..14 {
        s.enqueue(job(endpoint(1), message(m)));
    }
    s.poll(Duration::ZERO, &mut out);
    assert_eq!(out.len(), 4, "they run before anything overflows");
    for m in 20..27 {
        s.enqueue(job(endpoint(1), message(m)));
    }
    // Created before all of them, committed after.
    assert_eq!(s.enqueue(job(endpoint(1), message(5))), Enqueued::Overflowed);
    for started in out.drain(..3) {
        s.finished(Duration::ZERO, started.endpoint, Feedback::Answered(Duration::from_millis(1)));
        s.recorded(1);
        s.recorded_first_try(Duration::ZERO, started.endpoint, started.message);
    }
    s.poll(Duration::ZERO, &mut out);
    let back = s.begin_read_back().unwrap();
    assert_eq!(back.from, message(5));
    assert!(back.known.contains(&message(13)), "it runs, and its row is still in the store");
    assert!(!back.known.contains(&message(10)), "its row is gone");
}

#[test]
fn an_endpoint_with_unrecorded_first_tries_is_not_forgotten_until_they_are_recorded() {
    let mut s = Scheduler::new(SchedulerLimits { endpoint_queue_max: 10, queue_max: 100_000, in_flight_max: 40_000, ..LIMITS });
    let id = |n: u32| {
        let mut raw = [7; 20];
        raw[..4].copy_from_slice(&n.to_be_bytes());
        EndpointId::from_bytes(raw)
    };
    for n in 0..17_000 {
        s.enqueue(job(id(n), message(n)));
    }
    let mut out = vec![];
    s.poll(Duration::ZERO, &mut out);
    assert_eq!(out.len(), 17_000);
    for started in &out {
        s.finished(Duration::ZERO, started.endpoint, Feedback::Answered(Duration::from_millis(1)));
    }
    assert_eq!(s.endpoints.len(), 17_000, "else what runs would be read back");
    s.recorded(out.len());
    for started in &out {
        s.recorded_first_try(Duration::ZERO, started.endpoint, started.message);
    }
    assert_eq!(s.endpoints.len(), 16_384, "memory follows activity");
}
