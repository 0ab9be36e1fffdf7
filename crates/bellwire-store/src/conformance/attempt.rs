//! Attempts, statuses, counters.

use std::time::Duration;

use bellwire_core::{AppId, Attempt, AttemptStatus, Endpoint, EndpointId, Message, MessageId, Trigger};
use bytes::Bytes;

use super::world::{HOUR, World, fresh, newest_first, page, walk};
use crate::{AttemptFilter, AttemptedMessage, DeliveryNext, EndpointCounts, MessageFilter, StoreError};

fn same(a: &Attempt, b: &Attempt) {
    assert_eq!((a.id, a.message, a.endpoint), (b.id, b.message, b.endpoint));
    assert_eq!((a.status, a.trigger, a.timestamp, a.duration), (b.status, b.trigger, b.timestamp, b.duration));
    assert_eq!((a.response_status, &a.response, &a.url), (b.response_status, &b.response, &b.url));
}

pub async fn attempts_are_listed_by_endpoint_and_by_message(w: World) {
    let app = w.new_application().await.id;
    let [one, two] = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let message = w.publish(app, &[one, two]).await;
    let other = w.publish(app, &[one]).await;
    let retry = || DeliveryNext::RetryAt { at: w.now(), tries: 1 };
    let failed = w.record(&message, one, 503, retry(), true).await;
    let mut silent = w.attempt(message.id, two, 0);
    silent.response = Bytes::new();
    silent.url = "https://receiver.example/another".into();
    silent.trigger = Trigger::Manual;
    w.record_as(&message, two, Some(silent.clone()), retry(), true).await;
    let elsewhere = w.record(&other, one, 200, DeliveryNext::Delivered, true).await;
    let good = w.record(&message, one, 204, DeliveryNext::Delivered, false).await;

    let of_message = w.store.list_attempts_of_message(app, message.id, AttemptFilter::default(), page(9), true).await.unwrap();
    assert_eq!(of_message.rows.len(), 3);
    for (got, expected) in of_message.rows.iter().zip([&failed, &silent, &good]) {
        same(got, expected);
    }
    let of_endpoint =
        w.store.list_attempts_of_endpoint(app, one, AttemptFilter::default(), newest_first(9), true, true).await.unwrap();
    assert_eq!(of_endpoint.rows.len(), 3);
    for ((got, shown), (expected, of)) in
        of_endpoint.rows.iter().zip([(&good, &message), (&elsewhere, &other), (&failed, &message)])
    {
        same(got, expected);
        assert_eq!(shown.as_ref(), Some(&Message { payload: None, ..of.clone() }));
    }
    let bare = w.store.list_attempts_of_endpoint(app, one, AttemptFilter::default(), page(9), false, false).await.unwrap();
    assert!(bare.rows.iter().all(|(attempt, message)| attempt.response.is_empty() && message.is_none()));
    let bare = w.store.list_attempts_of_message(app, message.id, AttemptFilter::default(), page(9), false).await.unwrap();
    assert!(bare.rows.iter().all(|attempt| attempt.response.is_empty()));
    let stranger: AppId = w.id();
    assert!(
        w.store
            .list_attempts_of_endpoint(stranger, one, AttemptFilter::default(), page(9), true, true)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        w.store
            .list_attempts_of_message(stranger, message.id, AttemptFilter::default(), page(9), true)
            .await
            .unwrap()
            .rows
            .is_empty()
    );

    same(&w.store.get_attempt(app, message.id, good.id).await.unwrap().unwrap(), &good);
    assert!(w.store.get_attempt(app, other.id, good.id).await.unwrap().is_none(), "another message's");
    assert!(w.store.get_attempt(stranger, message.id, good.id).await.unwrap().is_none(), "another application's");
    // Of a deleted endpoint they can still be read.
    w.store.delete_endpoint(app, one, w.now()).await.unwrap();
    same(&w.store.get_attempt(app, message.id, good.id).await.unwrap().unwrap(), &good);
}

pub async fn attempt_lists_filter(w: World) {
    let app = w.new_application().await.id;
    let [one, two] = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let mut attempts = Vec::new();
    let mut first = None;
    for (event_type, channel, tag, status) in
        [("a", "x", "t", 200), ("b", "y", "t", 404), ("a", "y", "u", 0), ("c", "x", "u", 503), ("c", "xy", "u", 302)]
    {
        w.pass(HOUR);
        let message = Message {
            event_type: event_type.to_owned(),
            channels: vec![channel.to_owned()],
            tags: vec![tag.to_owned()],
            ..w.message(app)
        };
        w.accept(message.clone(), &[one, two]).await.unwrap();
        let next = if status == 200 { DeliveryNext::Delivered } else { DeliveryNext::Exhausted { tries: 1 } };
        attempts.push(w.record(&message, one, status, next, true).await);
        first.get_or_insert(message);
    }
    let list = async |filter: AttemptFilter| {
        let found = w.store.list_attempts_of_endpoint(app, one, filter, page(9), false, false).await.unwrap();
        found.rows.iter().filter_map(|(got, _)| attempts.iter().position(|a| a.id == got.id)).collect::<Vec<_>>()
    };
    let none = AttemptFilter::default;
    let of_message = |message: MessageFilter| AttemptFilter { message, ..none() };
    assert_eq!(list(none()).await, [0, 1, 2, 3, 4]);
    assert_eq!(list(AttemptFilter { status: Some(AttemptStatus::Success), ..none() }).await, [0]);
    assert_eq!(list(AttemptFilter { status: Some(AttemptStatus::Fail), ..none() }).await, [1, 2, 3, 4]);
    assert_eq!(list(AttemptFilter { status: Some(AttemptStatus::Sending), ..none() }).await, [] as [usize; 0]);
    for (class, expected) in [(200, vec![0]), (400, vec![1]), (0, vec![2]), (500, vec![3]), (300, vec![4]), (100, vec![])] {
        assert_eq!(list(AttemptFilter { status_code_class: Some(class), ..none() }).await, expected, "{class}");
    }
    assert_eq!(list(of_message(MessageFilter { channel: Some("x".to_owned()), ..Default::default() })).await, [0, 3]);
    assert_eq!(list(of_message(MessageFilter { tag: Some("t".to_owned()), ..Default::default() })).await, [0, 1]);
    let types = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(list(of_message(MessageFilter { event_types: types, ..Default::default() })).await, [0, 1, 2]);
    let times = MessageFilter { after: Some(attempts[0].timestamp), before: Some(attempts[3].timestamp), ..Default::default() };
    assert_eq!(list(of_message(times)).await, [1, 2], "both bounds are exclusive");
    assert_eq!(list(AttemptFilter { endpoint: Some(two), ..none() }).await, [] as [usize; 0]);

    let first = first.unwrap();
    let on_two = w.record(&first, two, 500, DeliveryNext::Exhausted { tries: 1 }, true).await;
    let of = async |filter: AttemptFilter| {
        let found = w.store.list_attempts_of_message(app, first.id, filter, page(9), false).await.unwrap();
        found.rows.iter().map(|attempt| attempt.id).collect::<Vec<_>>()
    };
    assert_eq!(of(none()).await, [attempts[0].id, on_two.id]);
    assert_eq!(of(AttemptFilter { endpoint: Some(two), ..none() }).await, [on_two.id]);
    assert_eq!(of(AttemptFilter { status: Some(AttemptStatus::Success), ..none() }).await, [attempts[0].id]);
    assert_eq!(of(AttemptFilter { status_code_class: Some(500), ..none() }).await, [on_two.id]);
}

pub async fn attempt_lists_page(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    // Tries of an old and of a new message take turns, weeks apart.
    let mut ids = Vec::new();
    let old = w.publish(app, &[endpoint]).await;
    let retry = || DeliveryNext::RetryAt { at: w.now(), tries: 1 };
    ids.push(w.record(&old, endpoint, 500, retry(), true).await.id);
    w.pass(400 * HOUR);
    let new = w.publish(app, &[endpoint]).await;
    ids.push(w.record(&new, endpoint, 500, retry(), true).await.id);
    for message in [&old, &new, &old, &old] {
        ids.push(w.record(message, endpoint, 500, retry(), false).await.id);
    }
    walk(
        &ids,
        |(attempt, _): &(Attempt, Option<Message>)| attempt.id,
        async |query| {
            w.store.list_attempts_of_endpoint(app, endpoint, AttemptFilter::default(), query, false, true).await.unwrap()
        },
    )
    .await;
    let of_old = [ids[0], ids[2], ids[4], ids[5]];
    walk(
        &of_old,
        |attempt: &Attempt| attempt.id,
        async |query| w.store.list_attempts_of_message(app, old.id, AttemptFilter::default(), query, false).await.unwrap(),
    )
    .await;
}

pub async fn expunging_deletes_the_response_alone(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let message = w.publish(app, &[endpoint]).await;
    let attempt = w.record(&message, endpoint, 200, DeliveryNext::Delivered, true).await;
    assert!(!w.store.expunge_attempt_content(w.id(), message.id, attempt.id).await.unwrap());
    assert!(!w.store.expunge_attempt_content(app, message.id, w.id()).await.unwrap());
    assert!(w.store.expunge_attempt_content(app, message.id, attempt.id).await.unwrap());
    let found = w.store.get_attempt(app, message.id, attempt.id).await.unwrap().unwrap();
    same(&found, &Attempt { response: Bytes::new(), ..attempt });
}

async fn states_of(
    w: &World,
    app: AppId,
    endpoint: EndpointId,
    status: Option<AttemptStatus>,
) -> Vec<(MessageId, AttemptStatus)> {
    let found = w.store.list_attempted_messages(app, endpoint, status, MessageFilter::default(), page(20), false).await.unwrap();
    found.rows.iter().map(|row| (row.message.id, row.status)).collect()
}

pub async fn deliveries_show_their_latest_state(w: World) {
    use AttemptStatus::{Canceled, Fail, Pending, Success};
    let app = w.new_application().await.id;
    let [endpoint, other] = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let later = w.now().plus(HOUR);
    let queued = w.publish(app, &[endpoint]).await;
    let unrelated = w.publish(app, &[other]).await;
    let waiting = w.publish(app, &[endpoint, other]).await;
    w.record(&waiting, endpoint, 500, DeliveryNext::RetryAt { at: later, tries: 1 }, true).await;
    let delivered = w.publish(app, &[endpoint]).await;
    w.record(&delivered, endpoint, 500, DeliveryNext::RetryAt { at: later, tries: 1 }, true).await;
    w.record(&delivered, endpoint, 200, DeliveryNext::Delivered, false).await;
    let exhausted = w.publish(app, &[endpoint]).await;
    w.record(&exhausted, endpoint, 500, DeliveryNext::Exhausted { tries: 1 }, true).await;
    let cancelled = w.publish(app, &[endpoint]).await;
    w.record_as(&cancelled, endpoint, None, DeliveryNext::Cancelled { tries: 0, by: "x".to_owned() }, true).await;
    let scheduled = Message { deliver_at: Some(later), ..w.message(app) };
    w.accept(scheduled.clone(), &[endpoint]).await.unwrap();

    let all = [
        (queued.id, Pending),
        (waiting.id, Pending),
        (delivered.id, Success),
        (exhausted.id, Fail),
        (cancelled.id, Canceled),
        (scheduled.id, Pending),
    ];
    assert_eq!(states_of(&w, app, endpoint, None).await, all);
    for status in [Success, Pending, Fail, Canceled] {
        let expected: Vec<_> = all.iter().copied().filter(|(_, is)| *is == status).collect();
        assert_eq!(states_of(&w, app, endpoint, Some(status)).await, expected);
    }
    assert_eq!(states_of(&w, w.id(), endpoint, None).await, [], "another application's");
    let page = w.store.list_attempted_messages(app, endpoint, None, MessageFilter::default(), page(20), true).await.unwrap();
    let next: Vec<_> = page.rows.iter().map(|row| row.next_attempt).collect();
    assert_eq!(next, [None, Some(later), None, None, None, Some(later)]);
    assert_eq!(page.rows[0].message, queued, "with content");
    let filter = MessageFilter { event_types: vec!["nothing".to_owned()], ..Default::default() };
    let none = w.store.list_attempted_messages(app, endpoint, None, filter, super::world::page(20), false).await.unwrap();
    assert!(none.rows.is_empty() && none.done);

    let of = async |message: MessageId| {
        let found = w.store.list_attempted_endpoints(app, message, super::world::page(20)).await.unwrap();
        found.rows.iter().map(|row| (row.endpoint.id, row.status, row.next_attempt)).collect::<Vec<_>>()
    };
    assert_eq!(of(waiting.id).await, [(endpoint, Pending, Some(later)), (other, Pending, None)]);
    assert_eq!(of(delivered.id).await, [(endpoint, Success, None)]);
    assert_eq!(of(unrelated.id).await, [(other, Pending, None)]);
    w.store.delete_endpoint(app, endpoint, w.now()).await.unwrap();
    assert_eq!(of(waiting.id).await, [(other, Pending, None)], "deleted endpoints are left out");
    let unknown = w.store.list_attempted_endpoints(app, w.id(), super::world::page(5)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("message"))));
}

pub async fn attempted_lists_page(w: World) {
    let app = w.new_application().await.id;
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        endpoints.push(w.new_endpoint(app).await.id);
    }
    let mut ids = Vec::new();
    for n in 0..5 {
        w.pass(100 * HOUR);
        let message = w.publish(app, &endpoints).await;
        w.publish(app, &endpoints[1..]).await;
        if n % 2 == 0 {
            w.record(&message, endpoints[0], 200, DeliveryNext::Delivered, true).await;
        }
        ids.push(message.id);
    }
    walk(
        &ids,
        |row: &AttemptedMessage| row.message.id,
        async |query| {
            w.store.list_attempted_messages(app, endpoints[0], None, MessageFilter::default(), query, false).await.unwrap()
        },
    )
    .await;
    walk(
        &endpoints,
        |row: &crate::AttemptedEndpoint| row.endpoint.id,
        async |query| w.store.list_attempted_endpoints(app, ids[0], query).await.unwrap(),
    )
    .await;
}

/// Filters that leave few rows of many, and attempts that come in another order than their messages.
pub async fn attempted_messages_are_found_whatever_is_left_out(w: World) {
    let app = w.new_application().await.id;
    let [endpoint, other] = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let mut messages = Vec::new();
    for n in 0..24 {
        w.pass(20 * HOUR);
        let event_type = if n % 6 == 0 { "rare" } else { "common" };
        let message = Message { event_type: event_type.to_owned(), ..w.message(app) };
        w.accept(message.clone(), &[endpoint, other]).await.unwrap();
        messages.push(message);
    }
    // The first half is tried late, newest first, some of it more than once; of the rest, every third waits or has failed.
    let exhausted = || DeliveryNext::Exhausted { tries: 1 };
    for message in messages[..12].iter().rev() {
        w.record(message, endpoint, 500, exhausted(), true).await;
    }
    for message in messages[..12].iter().step_by(2) {
        w.record(message, endpoint, 200, DeliveryNext::Delivered, false).await;
    }
    for message in messages[12..].iter().step_by(3) {
        w.record(message, endpoint, 500, exhausted(), true).await;
    }
    let ids = |is_wanted: &dyn Fn(usize) -> bool| -> Vec<MessageId> {
        (0..24).filter(|n| is_wanted(*n)).map(|n| messages[n].id).collect()
    };
    let rare = MessageFilter { event_types: vec!["rare".to_owned()], ..Default::default() };
    let bounds =
        MessageFilter { after: Some(messages[3].created_at), before: Some(messages[20].created_at), ..Default::default() };
    let is_failed = |n: usize| if n < 12 { n % 2 == 1 } else { n.is_multiple_of(3) };
    for (expected, status, filter) in [
        (ids(&|_| true), None, MessageFilter::default()),
        (ids(&|n| n % 6 == 0), None, rare.clone()),
        (ids(&|n| n > 3 && n < 20), None, bounds.clone()),
        (ids(&|n| n < 12 && n % 2 == 0), Some(AttemptStatus::Success), MessageFilter::default()),
        (ids(&|n| n < 12 && n % 6 == 0), Some(AttemptStatus::Success), rare),
        (ids(&is_failed), Some(AttemptStatus::Fail), MessageFilter::default()),
        (ids(&|n| n > 3 && n < 20 && is_failed(n)), Some(AttemptStatus::Fail), bounds),
        (ids(&|n| n >= 12 && n % 3 != 0), Some(AttemptStatus::Pending), MessageFilter::default()),
    ] {
        walk(
            &expected,
            |row: &AttemptedMessage| row.message.id,
            async |query| w.store.list_attempted_messages(app, endpoint, status, filter.clone(), query, false).await.unwrap(),
        )
        .await;
    }
}

pub async fn counters_count_every_delivery_once(w: World) {
    let app = w.new_application().await.id;
    let endpoint: Endpoint = w.new_endpoint(app).await;
    let endpoint = endpoint.id;
    let start = w.now();
    let count = async || w.store.count_deliveries(endpoint, None, None).await.unwrap();
    let counts = |success, pending, fail, canceled| EndpointCounts { success, pending, sending: 0, fail, canceled };
    assert_eq!(count().await, counts(0, 0, 0, 0));
    let mut messages = Vec::new();
    for _ in 0..5 {
        messages.push(w.publish(app, &[endpoint]).await);
    }
    assert_eq!(count().await, counts(0, 5, 0, 0));
    let retry = || DeliveryNext::RetryAt { at: w.now(), tries: 1 };
    w.record(&messages[0], endpoint, 200, DeliveryNext::Delivered, true).await;
    w.record(&messages[1], endpoint, 500, DeliveryNext::Exhausted { tries: 1 }, true).await;
    w.record(&messages[2], endpoint, 500, retry(), true).await;
    w.record_as(&messages[3], endpoint, None, DeliveryNext::Cancelled { tries: 0, by: "x".to_owned() }, true).await;
    assert_eq!(count().await, counts(1, 2, 1, 1));
    w.pass(10 * HOUR);
    w.record(&messages[2], endpoint, 200, DeliveryNext::Delivered, false).await;
    assert_eq!(count().await, counts(2, 1, 1, 1));
    // Repeats change what a delivery is, not how many there are.
    for (message, status) in [(1, 200), (0, 200), (0, 500), (3, 200)] {
        let due = fresh(w.store.requeue(app, messages[message].id, endpoint, w.now(), None).await.unwrap());
        assert_eq!(due.message, messages[message].id);
        let next = if status == 200 { DeliveryNext::Delivered } else { DeliveryNext::Exhausted { tries: 1 } };
        w.record(&messages[message], endpoint, status, next, false).await;
    }
    assert_eq!(count().await, counts(4, 1, 0, 0));
    // By time of ending, to the minute; what is unfinished by the time its message was made.
    let middle = start.plus(5 * HOUR);
    let early = w.store.count_deliveries(endpoint, Some(start), Some(middle)).await.unwrap();
    assert_eq!(early, counts(1, 1, 0, 0));
    let late = w.store.count_deliveries(endpoint, Some(middle), None).await.unwrap();
    assert_eq!(late, counts(3, 0, 0, 0), "messages made before the window do not wait in it");
    let never = w.store.count_deliveries(endpoint, Some(w.now().plus(Duration::from_secs(600))), None).await.unwrap();
    assert_eq!(never, counts(0, 0, 0, 0));
    w.publish(app, &[endpoint]).await;
    let waiting = w.publish(app, &[endpoint]).await;
    w.record(&waiting, endpoint, 500, retry(), true).await;
    let late = w.store.count_deliveries(endpoint, Some(middle), None).await.unwrap();
    assert_eq!(late, counts(3, 2, 0, 0));
    let early = w.store.count_deliveries(endpoint, None, Some(middle)).await.unwrap();
    assert_eq!(early, counts(1, 1, 0, 0));
    let minute = w.store.count_deliveries(endpoint, Some(w.now()), Some(w.now())).await.unwrap();
    assert_eq!(minute, counts(3, 2, 0, 0), "the minutes of both bounds belong to the window");
    assert_eq!(count().await, counts(4, 3, 0, 0));
}
