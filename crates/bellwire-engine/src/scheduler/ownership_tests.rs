//! What the scheduler promises when shards come and go.

use std::time::Duration;

use bellwire_core::id::IdKind;
use bellwire_core::{AppId, EndpointId, MessageId, Shard, ShardSet, Trigger};

use super::*;

const LIMITS: SchedulerLimits = SchedulerLimits {
    in_flight_max: 64,
    window_max: 32,
    endpoint_queue_max: 10,
    queue_max: 10_000,
    payload_bytes_max: 1 << 20,
    is_shared: true,
};

fn job(e: u8, m: u8) -> Job {
    Job {
        message: MessageId::from_bytes([m; 20]),
        endpoint: EndpointId::from_bytes([e; 20]),
        app: AppId::from_bytes([1; 20]),
        tries: 0,
        trigger: Trigger::Scheduled,
        resume_at: None,
        is_first_try: true,
        content: None,
        epoch: 0,
    }
}

fn retry(e: u8, m: u8) -> Job {
    Job { is_first_try: false, tries: 1, ..job(e, m) }
}

fn poll(scheduler: &mut Scheduler, now_ms: u64) -> Vec<Job> {
    let mut out = vec![];
    scheduler.poll(Duration::from_millis(now_ms), &mut out);
    out
}

fn shards(of: &[u8]) -> ShardSet {
    of.iter().map(|e| Shard(*e)).collect()
}

#[test]
fn what_is_gained_waits_until_it_is_active_and_then_starts_under_its_membership() {
    let mut s = Scheduler::new(LIMITS);
    s.begin_epoch(7);
    assert_eq!(s.enqueue(job(1, 1)), Enqueued::NotMine);
    s.gain(&shards(&[1]));
    assert_eq!(s.enqueue(job(1, 1)), Enqueued::Queued);
    assert!(poll(&mut s, 0).is_empty(), "another node may still have it running");
    s.activate(&shards(&[1, 2]));
    let started = poll(&mut s, 1);
    assert_eq!(started.iter().map(|job| job.epoch).collect::<Vec<_>>(), [7]);
    assert_eq!(s.enqueue(job(2, 1)), Enqueued::NotMine, "activating is not gaining");
}

#[test]
fn a_shard_on_hold_starts_nothing_and_is_drained_when_what_ran_is_recorded() {
    let mut s = Scheduler::new(LIMITS);
    s.enqueue(job(1, 1));
    s.enqueue(job(2, 1));
    assert_eq!(poll(&mut s, 0).len(), 2);
    s.hold(&shards(&[1]));
    s.enqueue(job(1, 2));
    s.enqueue(retry(1, 3));
    s.enqueue(job(2, 2));
    assert!(poll(&mut s, 1).iter().all(|job| job.endpoint.as_bytes()[19] == 2));
    assert_eq!(s.drained(&shards(&[1, 3])), shards(&[3]));
    s.finished(Duration::from_millis(2), job(1, 1).endpoint, Feedback::Answered(Duration::from_millis(1)));
    assert!(s.drained(&shards(&[1])).is_empty(), "answered, but not durable");
    assert!(poll(&mut s, 3).is_empty());
    s.recorded(1);
    s.ended(job(1, 1).endpoint);
    assert_eq!(s.drained(&shards(&[1])), shards(&[1]));
    s.activate(&shards(&[1]));
    assert_eq!(poll(&mut s, 4).len(), 2, "what had waited starts when the hold is released");
}

#[test]
fn nothing_of_a_forgotten_shard_is_left_to_start_or_to_be_counted() {
    let mut s = Scheduler::new(LIMITS);
    for m in 0..20 {
        s.enqueue(job(1, m));
        s.enqueue(retry(1, 100 + m));
        s.enqueue(job(2, m));
    }
    let began = poll(&mut s, 0).len();
    s.hold(&shards(&[1]));
    s.purge(&shards(&[1]));
    assert_eq!(s.endpoints.get(&job(1, 0).endpoint).map(EndpointQueue::len), Some(0), "its attempts still run");
    assert_eq!(s.queued(), s.endpoints[&job(2, 0).endpoint].len());
    assert_eq!(s.backlog.total(), s.queued());
    assert_eq!(s.in_flight(), began);
    assert!(s.overflowing.iter().all(|id| *id == job(2, 0).endpoint));
    // Gained again, it is as new: one turn in its ring, not two.
    s.gain(&shards(&[1]));
    s.activate(&shards(&[1]));
    s.enqueue(retry(1, 200));
    let standing: usize = s.quick.rings.values().flatten().filter(|id| id.as_bytes()[19] == 1).count();
    assert!(standing <= 1);
    s.purge(&ShardSet::ALL);
    assert_eq!((s.queued(), s.backlog.total(), s.quick.rings.len(), s.quick.turn.len()), (0, 0, 0, 0));
}

#[test]
fn a_page_read_before_a_shard_was_forgotten_revives_nothing() {
    let mut s = Scheduler::new(LIMITS);
    for m in 0..12 {
        s.enqueue(job(1, m));
    }
    for _ in 0..8 {
        poll(&mut s, 0);
        s.finished(Duration::ZERO, job(1, 0).endpoint, Feedback::Answered(Duration::from_millis(1)));
        s.recorded(1);
    }
    let back = s.begin_read_back().unwrap();
    s.purge(&shards(&[1]));
    s.gain(&shards(&[1]));
    assert_eq!(s.enqueue_read_back(&back, job(1, 10)), Enqueued::NotMine, "another node may have delivered it meanwhile");
    assert_eq!(s.enqueue_loaded(job(1, 11)), Enqueued::Queued);
    s.end_read_back(&back);
    assert_eq!(s.queued(), 1);
}

#[test]
fn reading_back_waits_until_everything_has_been_read_once() {
    let mut s = Scheduler::new(LIMITS);
    s.incomplete(&ShardSet::ALL);
    for m in 0..12 {
        s.enqueue_loaded(job(1, m));
    }
    for _ in 0..8 {
        poll(&mut s, 0);
        s.finished(Duration::ZERO, job(1, 0).endpoint, Feedback::Answered(Duration::from_millis(1)));
        s.recorded(1);
    }
    assert!(s.begin_read_back().is_none(), "what is being read would come twice");
    s.complete(&ShardSet::ALL);
    assert!(s.begin_read_back().is_some());
}

#[test]
fn a_rate_that_another_node_may_have_used_up_begins_with_one_token() {
    let mut s = Scheduler::new(LIMITS);
    s.set_rates(job(1, 0).app, job(1, 0).endpoint, Some(4.0), None);
    for m in 0..8 {
        s.enqueue(job(1, m));
    }
    assert_eq!(poll(&mut s, 10_000).len(), 1);
    assert_eq!(poll(&mut s, 10_240).len(), 0);
    assert_eq!(poll(&mut s, 10_260).len(), 1);
}
