//! The scheduler's promises, on a clock turned by hand.

use std::time::Duration;

use bellwire_core::id::IdKind;
use bellwire_core::{AppId, EndpointId, MessageId, Trigger};

use super::*;

const LIMITS: SchedulerLimits = SchedulerLimits {
    in_flight_max: 64,
    window_max: 32,
    endpoint_queue_max: 100,
    queue_max: 10_000,
    payload_bytes_max: 1 << 20,
    is_shared: false,
};

fn app(n: u8) -> AppId {
    AppId::from_bytes([n; 20])
}

fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 20])
}

fn message(n: u32) -> MessageId {
    let mut raw = [0; 20];
    raw[..4].copy_from_slice(&n.to_be_bytes());
    MessageId::from_bytes(raw)
}

fn job(a: u8, e: u8, m: u32) -> Job {
    Job {
        message: message(m),
        endpoint: endpoint(e),
        app: app(a),
        tries: 0,
        trigger: Trigger::Scheduled,
        resume_at: None,
        is_first_try: true,
        content: None,
        epoch: 0,
    }
}

fn retry(a: u8, e: u8, m: u32) -> Job {
    Job { is_first_try: false, tries: 1, ..job(a, e, m) }
}

fn poll(scheduler: &mut Scheduler, now_ms: u64) -> Vec<Job> {
    let mut out = vec![];
    scheduler.poll(Duration::from_millis(now_ms), &mut out);
    out
}

/// Ends and records an attempt.
fn end(scheduler: &mut Scheduler, now_ms: u64, e: u8, feedback: Feedback) {
    scheduler.finished(Duration::from_millis(now_ms), endpoint(e), feedback);
    scheduler.recorded(1);
}

const QUICK: Feedback = Feedback::Answered(Duration::from_millis(2));

#[test]
fn an_application_with_a_flood_does_not_make_another_wait_for_all_of_it() {
    let mut s = Scheduler::new(SchedulerLimits { in_flight_max: 4, ..LIMITS });
    for m in 0..50 {
        s.enqueue(job(1, 1, m));
    }
    s.enqueue(job(2, 2, 1_000));
    let started = poll(&mut s, 0);
    assert!(started.iter().any(|j| j.app == app(2)), "the second application's only job must be among the first four");
}

#[test]
fn the_window_of_an_endpoint_grows_with_quick_answers_and_halves_with_overload() {
    let mut s = Scheduler::new(LIMITS);
    for m in 0..90 {
        s.enqueue(job(1, 1, m));
    }
    let mut running = poll(&mut s, 0).len();
    assert_eq!(running, 4, "little is risked on an endpoint nothing is known of");
    for t in 1..=8 {
        end(&mut s, t, 1, QUICK);
        running = running - 1 + poll(&mut s, t).len();
    }
    assert_eq!(running, 12);
    end(&mut s, 1_000, 1, Feedback::Overloaded(None));
    running = running - 1 + poll(&mut s, 1_000).len();
    assert_eq!(running, 11, "above the halved window nothing new starts");
    for t in 0..6 {
        end(&mut s, 1_001 + t, 1, QUICK);
        running = running - 1 + poll(&mut s, 1_001 + t).len();
    }
    assert!((6..=7).contains(&running), "{running}");
}

#[test]
fn the_window_does_not_grow_when_more_at_once_only_means_waiting_unless_the_line_is_long() {
    let mut s = Scheduler::new(LIMITS);
    let mut running = 0;
    // Each attempt takes as long as there are others: one processor serves them all.
    let mut next = 0;
    for t in 0..2_000 {
        while s.queued() < 12 {
            s.enqueue(job(1, 1, next));
            next += 1;
        }
        running += poll(&mut s, t).len();
        end(&mut s, t, 1, Feedback::Answered(Duration::from_millis(1 + 2 * running as u64)));
        running -= 1;
    }
    assert!(running <= 16, "{running} at once for a receiver that serves one after another");
    for m in 0..80 {
        s.enqueue(job(1, 1, 100_000 + m));
    }
    let before = running;
    for t in 2_000..2_060 {
        running += poll(&mut s, t).len();
        end(&mut s, t, 1, Feedback::Answered(Duration::from_millis(1 + 2 * running as u64)));
        running -= 1;
    }
    assert!(running > before, "a long line is worth a try");
}

#[test]
fn hanging_endpoints_leave_half_of_the_room_to_quick_ones() {
    let mut s = Scheduler::new(SchedulerLimits { in_flight_max: 16, ..LIMITS });
    for e in 1..=20 {
        for m in 0..10 {
            s.enqueue(job(1, e, m));
        }
    }
    let hanging = poll(&mut s, 0);
    assert_eq!(hanging.len(), 12, "a quarter of the room is kept from those that may be about to hang");
    s.enqueue(job(3, 98, 4_000));
    assert!(poll(&mut s, 900).is_empty());
    s.tick(Duration::from_millis(1_500));
    assert!(poll(&mut s, 1_500).iter().any(|j| j.endpoint == endpoint(98)), "as soon as they are known to hang, others start");
    // The slow lane is over its share: its ends give room to quick endpoints only.
    s.enqueue(job(2, 99, 5_000));
    for j in hanging.iter().take(4) {
        s.finished(Duration::from_secs(15), j.endpoint, Feedback::Failed(Duration::from_secs(15)));
        s.recorded(1);
    }
    let started = poll(&mut s, 15_000);
    assert!(started.iter().any(|j| j.endpoint == endpoint(99)));
}

#[test]
fn what_is_answered_but_not_recorded_still_counts_as_in_flight() {
    let mut s = Scheduler::new(SchedulerLimits { in_flight_max: 2, ..LIMITS });
    for m in 0..10 {
        s.enqueue(job(1, 1, m));
    }
    assert_eq!(poll(&mut s, 0).len(), 2);
    s.finished(Duration::from_millis(1), endpoint(1), QUICK);
    s.finished(Duration::from_millis(1), endpoint(1), QUICK);
    assert_eq!(poll(&mut s, 1).len(), 0, "a crash now would repeat both");
    s.recorded(2);
    assert_eq!(poll(&mut s, 1).len(), 2);
}

#[test]
fn an_attempt_recorded_before_its_end_is_noticed_leaves_the_count_right() {
    let mut s = Scheduler::new(LIMITS);
    s.enqueue(job(1, 1, 1));
    assert_eq!(poll(&mut s, 0).len(), 1);
    s.recorded(1);
    s.finished(Duration::from_millis(1), endpoint(1), QUICK);
    assert_eq!(s.in_flight(), 0, "else room is lost for good");
}

#[test]
fn only_the_application_that_makes_the_backlog_is_held_back() {
    let mut s = Scheduler::new(LIMITS);
    for m in 0..60 {
        s.enqueue(job(1, 1, m));
    }
    assert!(s.is_behind(app(1), 50));
    s.enqueue(job(2, 2, 1_000));
    assert!(s.is_behind(app(1), 50) && !s.is_behind(app(2), 50));
    poll(&mut s, 0);
    s.tick(Duration::from_secs(2));
    assert!(!s.is_behind(app(1), 50), "what a hanging endpoint makes wait is its own backlog, not ours");
}

#[test]
fn retry_after_pauses_the_endpoint_and_only_it() {
    let mut s = Scheduler::new(LIMITS);
    s.enqueue(job(1, 1, 1));
    assert_eq!(poll(&mut s, 0).len(), 1);
    end(&mut s, 0, 1, Feedback::Overloaded(Some(Duration::from_secs(7))));
    s.enqueue(job(1, 1, 2));
    s.enqueue(job(1, 2, 3));
    let started = poll(&mut s, 10);
    assert_eq!(started.iter().map(|j| j.endpoint).collect::<Vec<_>>(), [endpoint(2)]);
    assert_eq!(s.next_wake(), Some(Duration::from_secs(7)));
    assert_eq!(poll(&mut s, 7_000).len(), 1);
}

#[test]
fn the_circuit_opens_after_failures_in_a_row_and_probes_with_one_attempt() {
    let mut s = Scheduler::new(LIMITS);
    for m in 0..100 {
        s.enqueue(job(1, 1, m));
    }
    let mut now = 0;
    let mut running = poll(&mut s, now).len();
    for _ in 0..24 {
        if running == 0 {
            break;
        }
        now += 250;
        running -= 1;
        end(&mut s, now, 1, Feedback::Failed(Duration::from_millis(1)));
        running += poll(&mut s, now).len();
    }
    assert_eq!(running, 0, "the circuit is open");
    let wake = s.next_wake().unwrap().as_millis() as u64;
    assert!(wake >= now + 900);
    assert_eq!(poll(&mut s, wake).len(), 1, "one probe");
    end(&mut s, wake, 1, QUICK);
    assert_eq!(poll(&mut s, wake).len(), 2, "closed again, growing");
}

#[test]
fn a_rate_limit_spreads_attempts_over_time() {
    let mut s = Scheduler::new(LIMITS);
    s.set_rates(app(1), endpoint(1), Some(2.0), None);
    for m in 0..10 {
        s.enqueue(job(1, 1, m));
    }
    let mut sent = 0;
    for t in (0..3_000).step_by(50) {
        for _ in poll(&mut s, t) {
            sent += 1;
            end(&mut s, t, 1, QUICK);
        }
    }
    assert!((7..=8).contains(&sent), "two at once and two a second for three seconds, not {sent}");
}

#[test]
fn an_applications_rate_holds_for_all_its_endpoints_together() {
    let mut s = Scheduler::new(LIMITS);
    for e in 1..=5 {
        s.set_rates(app(1), endpoint(e), None, Some(2.0));
        for m in 0..10 {
            s.enqueue(job(1, e, m));
        }
    }
    s.enqueue(job(2, 9, 1_000));
    let mut sent = 0;
    for t in (0..3_000).step_by(50) {
        for job in poll(&mut s, t) {
            sent += usize::from(job.app == app(1));
            let id = job.endpoint;
            s.finished(Duration::from_millis(t), id, QUICK);
            s.recorded(1);
        }
    }
    assert!((7..=8).contains(&sent), "two at once and two a second for three seconds, not {sent}");
}

#[test]
fn retries_are_not_starved_by_first_tries() {
    let mut s = Scheduler::new(LIMITS);
    for m in 0..50 {
        s.enqueue(job(1, 1, m));
    }
    s.enqueue(retry(1, 1, 900));
    assert!(poll(&mut s, 0).iter().any(|j| !j.is_first_try));
}

#[test]
fn first_tries_beyond_the_limit_stay_in_the_store_in_order_until_there_is_room() {
    let mut s = Scheduler::new(SchedulerLimits { in_flight_max: 1, endpoint_queue_max: 10, ..LIMITS });
    for m in 0..30 {
        s.enqueue(job(1, 1, m));
    }
    assert_eq!(s.queued(), 10);
    assert!(s.begin_read_back().is_none(), "no room yet");
    for _ in 0..5 {
        poll(&mut s, 0);
        end(&mut s, 0, 1, QUICK);
    }
    let back = s.begin_read_back().unwrap();
    assert_eq!((back.endpoint, back.from, back.known.len()), (endpoint(1), message(10), 0));
    assert_eq!(s.enqueue_loaded(job(1, 1, 10)), Enqueued::Queued);
    assert_eq!(s.enqueue(job(1, 1, 40)), Enqueued::Overflowed, "behind what is still in the store");
    s.end_read_back(&back);
    poll(&mut s, 0);
    end(&mut s, 0, 1, QUICK);
    let back = s.begin_read_back().unwrap();
    assert_eq!(back.from, message(40), "what was left meanwhile is read next");
    s.end_read_back(&back);
    assert_eq!(s.enqueue(job(1, 1, 41)), Enqueued::Queued, "all read: straight into memory again");
}

#[test]
fn payloads_beyond_the_memory_limit_are_dropped_from_memory_not_the_jobs() {
    use bellwire_core::{Message, Timestamp};
    let mut s = Scheduler::new(SchedulerLimits { payload_bytes_max: 1_000, ..LIMITS });
    for m in 0..3 {
        let content = NewMessage {
            message: Message {
                id: message(m),
                app: app(1),
                event_type: "a".into(),
                event_id: None,
                payload: Some(vec![b'x'; 400].into()),
                content_type: "application/json".into(),
                channels: vec![],
                tags: vec![],
                created_at: Timestamp(0),
                deliver_at: None,
                payload_expires_at: Timestamp(0),
                origin: None,
            },
            endpoints: vec![endpoint(1)],
            idempotency: None,
            app_version: None,
        };
        s.enqueue(Job { content: Some(Arc::new(content)), ..job(1, 1, m) });
    }
    let started = poll(&mut s, 0);
    assert_eq!(started.iter().filter(|j| j.content.is_some()).count(), 2);
    assert_eq!(started.len(), 3);
}

/// A linear congruential generator: the same seed, the same run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn whatever_happens_every_job_is_handed_out_exactly_once_and_the_limits_hold() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let limits = SchedulerLimits { in_flight_max: 12, window_max: 8, ..LIMITS };
        let mut s = Scheduler::new(limits);
        let (mut now, mut handed_in, mut unrecorded) = (0u64, 0u32, 0usize);
        let mut running: Vec<Job> = vec![];
        let mut seen = HashSet::new();
        let mut idle_rounds = 0;
        for round in 0..20_000 {
            if handed_in < 400 && round < 2_000 {
                for _ in 0..dice.roll(4) {
                    let (a, e) = (1 + dice.roll(3) as u8, 1 + dice.roll(4) as u8);
                    let job = if dice.roll(3) == 0 { retry(a, a * 10 + e, handed_in) } else { job(a, a * 10 + e, handed_in) };
                    assert_eq!(s.enqueue(job), Enqueued::Queued);
                    handed_in += 1;
                }
            }
            now += dice.roll(40);
            for job in poll(&mut s, now) {
                assert!(seen.insert(job.message), "seed {seed}: {} handed out twice", job.message);
                running.push(job);
            }
            assert!(running.len() + unrecorded <= 12, "seed {seed}: {} in flight", running.len() + unrecorded);
            if !running.is_empty() && dice.roll(3) > 0 {
                let job = running.swap_remove(dice.roll(running.len() as u64) as usize);
                let feedback = match dice.roll(8) {
                    0 => Feedback::Failed(Duration::from_millis(dice.roll(3_000))),
                    1 => Feedback::Overloaded(Some(Duration::from_millis(dice.roll(500)))),
                    2 => Feedback::Answered(Duration::from_millis(2_500)),
                    _ => QUICK,
                };
                s.finished(Duration::from_millis(now), job.endpoint, feedback);
                unrecorded += 1;
            }
            if dice.roll(2) == 0 {
                s.recorded(unrecorded);
                unrecorded = 0;
            }
            if dice.roll(10) == 0 {
                s.tick(Duration::from_millis(now));
            }
            if s.queued() == 0 && running.is_empty() && round > 2_000 {
                break;
            }
            idle_rounds = if running.is_empty() && unrecorded == 0 { idle_rounds + 1 } else { 0 };
            if idle_rounds > 5 {
                now = now.max(s.next_wake().map_or(now, |at| at.as_millis() as u64 + 1));
            }
        }
        assert_eq!(seen.len(), handed_in as usize, "seed {seed}: jobs were left behind");
        assert_eq!((s.queued(), s.queued_quick()), (0, 0), "seed {seed}");
        s.recorded(unrecorded);
        assert_eq!(s.in_flight(), 0, "seed {seed}");
    }
}

#[test]
fn dead_endpoints_that_fill_the_memory_leave_room_to_every_other() {
    let mut s = Scheduler::new(SchedulerLimits { queue_max: 2_000, endpoint_queue_max: 3_000, ..LIMITS });
    for m in 0..2_500 {
        s.enqueue(job(1, 1, m));
    }
    assert_eq!(s.queued(), 2_000);
    for m in 0..500 {
        assert_eq!(s.enqueue(job(2, 2, 10_000 + m)), Enqueued::Queued, "another endpoint must not wait for the dead one");
    }
}

#[test]
fn what_was_read_back_and_runs_is_not_read_back_again() {
    let mut s = Scheduler::new(SchedulerLimits { in_flight_max: 2, endpoint_queue_max: 10, ..LIMITS });
    for m in 0..11 {
        s.enqueue(job(1, 1, m));
    }
    for _ in 0..10 {
        poll(&mut s, 0);
        end(&mut s, 0, 1, QUICK);
    }
    let back = s.begin_read_back().unwrap();
    assert_eq!(back.from, message(10));
    // A message commits while the store is read: told by the sink, and read with the rest.
    assert_eq!(s.enqueue(job(1, 1, 20)), Enqueued::Overflowed);
    assert_eq!(s.enqueue_loaded(job(1, 1, 20)), Enqueued::Queued);
    assert!(poll(&mut s, 1).iter().any(|j| j.message == message(20)));
    s.end_read_back(&back);
    let back = s.begin_read_back().unwrap();
    assert!(back.from == message(20) && back.known.contains(&message(20)), "it runs, and its row is still in the store");
    end(&mut s, 2, 1, QUICK);
    s.recorded_first_try(Duration::from_millis(2), back.endpoint, message(20));
    s.end_read_back(&back);
    assert_eq!(s.enqueue(job(1, 1, 21)), Enqueued::Queued, "all read: straight into memory again");
}
