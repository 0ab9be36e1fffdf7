//! Deliveries: queued, retried, ended, repeated.

use bellwire_core::{EndpointId, IdKind, Message, MessageId, ShardSet, Timestamp, Trigger};

use super::world::{HOUR, World, fresh, is_replayed};
use crate::{DeliveryNext, DueCursor, DueDelivery, StoreError, Written};

const NOT_YET: Timestamp = Timestamp(i64::MAX);

pub async fn commits_are_told_before_they_are_answered(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    for n in 1..=3 {
        let message = w.publish(app, &[endpoint]).await;
        assert_eq!(w.told.accepted.lock().len(), n);
        assert_eq!(w.told.accepted.lock().last(), Some(&message.id));
        w.record(&message, endpoint, 200, DeliveryNext::Delivered, true).await;
        assert_eq!(w.told.recorded.lock().last(), Some(&(message.id, endpoint)));
    }
    let event = Message { event_id: Some("e".to_owned()), ..w.message(app) };
    w.accept(event.clone(), &[]).await.unwrap();
    let told = w.told.accepted.lock().len();
    w.accept(Message { id: w.id(), ..event }, &[]).await.unwrap_err();
    assert_eq!(w.told.accepted.lock().len(), told, "what was not written is not told");
}

pub async fn first_tries_stay_queued_until_recorded(w: World) {
    let app = w.new_application().await.id;
    let [one, two] = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let single = w.publish(app, &[one]).await;
    let double = w.publish(app, &[one, two]).await;
    let nobody = w.publish(app, &[]).await;
    assert_eq!(w.queued().await, [(single.id, one), (double.id, one), (double.id, two)]);
    assert_eq!(w.store.count_unfinished().await.unwrap(), (3, 0));
    let (due, _) = w.store.load_first_tries(None, None, 1).await.unwrap();
    let expected = DueDelivery {
        message: single.id,
        endpoint: one,
        app,
        tries: 0,
        due_at: due[0].due_at,
        trigger: Trigger::Scheduled,
        resume_at: None,
    };
    assert_eq!(due[0], expected);
    w.record(&double, two, 200, DeliveryNext::Delivered, true).await;
    assert_eq!(w.queued().await, [(single.id, one), (double.id, one)]);
    w.record(&single, one, 500, DeliveryNext::RetryAt { at: w.now(), tries: 1 }, true).await;
    assert_eq!(w.queued().await, [(double.id, one)], "a failed first try is not a first try any more");
    w.record_as(&double, one, None, DeliveryNext::Cancelled { tries: 0, by: "endpoint disabled".to_owned() }, true).await;
    assert_eq!(w.queued().await, []);
    assert_eq!(w.store.count_unfinished().await.unwrap(), (0, 1));
    assert!(w.store.load_message(nobody.id).await.unwrap().is_some());
}

pub async fn a_fan_out_is_queued_by_endpoint(w: World) {
    let app = w.new_application().await.id;
    let mut endpoints = Vec::new();
    for _ in 0..12 {
        endpoints.push(w.new_endpoint(app).await.id);
    }
    let messages = [w.publish(app, &endpoints).await, w.publish(app, &endpoints[..6]).await, w.publish(app, &endpoints).await];
    // Pages do not split a message, and go on where they ended.
    let (first, next) = w.store.load_first_tries(None, None, 5).await.unwrap();
    assert_eq!(
        first.iter().map(|due| (due.message, due.endpoint)).collect::<Vec<_>>(),
        endpoints.iter().map(|e| (messages[0].id, *e)).collect::<Vec<_>>()
    );
    let (second, _) = w.store.load_first_tries(None, next, 1_000).await.unwrap();
    assert_eq!(second.len(), 18);
    // One endpoint alone.
    let of = async |endpoint: EndpointId| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (due, next) = w.store.load_first_tries(Some(endpoint), after, 1).await.unwrap();
            assert!(due.iter().all(|due| due.endpoint == endpoint));
            found.extend(due.iter().map(|due| due.message));
            match next {
                Some(next) => after = Some(next),
                None => return found,
            }
        }
    };
    assert_eq!(of(endpoints[0]).await, messages.each_ref().map(|message| message.id));
    assert_eq!(of(endpoints[9]).await, [messages[0].id, messages[2].id]);
    for (n, endpoint) in endpoints.iter().enumerate() {
        w.record(&messages[0], *endpoint, 200, DeliveryNext::Delivered, true).await;
        let left: Vec<MessageId> = w.queued().await.iter().map(|(id, _)| *id).filter(|id| *id == messages[0].id).collect();
        assert_eq!(left.len(), 11 - n);
        assert!(!of(*endpoint).await.contains(&messages[0].id));
    }
    assert_eq!(w.store.count_unfinished().await.unwrap().0, 18);
}

pub async fn failures_are_retried_in_order_of_time(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let mut messages = Vec::new();
    let dues = [30, 10, 20, 10, 40].map(|minutes| w.now().plus(std::time::Duration::from_secs(minutes * 60)));
    for at in dues {
        let message = w.publish(app, &[endpoint]).await;
        w.record(&message, endpoint, 500, DeliveryNext::RetryAt { at, tries: 1 }, true).await;
        messages.push(message);
    }
    let order = [1, 3, 2, 0, 4].map(|n: usize| (dues[n], messages[n].id));
    let load = async |after: Option<DueCursor>, until: Timestamp, limit: usize| {
        w.store.load_retries(ShardSet::ALL, after, until, limit).await.unwrap()
    };
    let shape = |due: &[DueDelivery]| due.iter().map(|due| (due.due_at, due.message)).collect::<Vec<_>>();
    let all = load(None, NOT_YET, 100).await;
    assert_eq!(shape(&all), order);
    assert!(
        all.iter().all(|due| due.tries == 1 && due.app == app && due.endpoint == endpoint && due.trigger == Trigger::Scheduled)
    );
    assert_eq!(shape(&load(None, dues[2], 100).await), &order[..3], "until is inclusive");
    let mut after = None;
    for expected in order {
        let page = load(after, NOT_YET, 1).await;
        assert_eq!(shape(&page), [expected]);
        after = Some(DueCursor { due_at: page[0].due_at, message: page[0].message, endpoint: page[0].endpoint });
    }
    assert!(load(after, NOT_YET, 1).await.is_empty());
    w.record(&messages[1], endpoint, 200, DeliveryNext::Delivered, false).await;
    w.record(&messages[3], endpoint, 500, DeliveryNext::Exhausted { tries: 2 }, false).await;
    w.record_as(&messages[2], endpoint, None, DeliveryNext::Cancelled { tries: 1, by: "somebody".to_owned() }, false).await;
    w.record(&messages[0], endpoint, 500, DeliveryNext::RetryAt { at: dues[4].plus(HOUR), tries: 2 }, false).await;
    let left = load(None, NOT_YET, 100).await;
    assert_eq!(shape(&left), [(dues[4], messages[4].id), (dues[4].plus(HOUR), messages[0].id)]);
    assert_eq!(left[1].tries, 2);
    assert_eq!(w.store.count_unfinished().await.unwrap(), (0, 2));
}

pub async fn scheduled_messages_wait_for_their_time(w: World) {
    let app = w.new_application().await.id;
    let endpoints = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let later = w.now().plus(HOUR);
    let message = Message { deliver_at: Some(later), ..w.message(app) };
    w.accept(message.clone(), &endpoints).await.unwrap();
    assert_eq!(w.queued().await, []);
    assert!(w.store.load_retries(ShardSet::ALL, None, w.now(), 10).await.unwrap().is_empty());
    let due = w.store.load_retries(ShardSet::ALL, None, later, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| (due.endpoint, due.tries, due.due_at)).collect::<Vec<_>>(), endpoints.map(|e| (e, 0, later)));
    assert_eq!(w.store.load_message(message.id).await.unwrap(), Some(message));
}

pub async fn requeueing_repeats_what_ended(w: World) {
    let app = w.new_application().await.id;
    let [ended, well] = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let message = w.publish(app, &[ended, well]).await;
    w.record(&message, ended, 500, DeliveryNext::Exhausted { tries: 8 }, true).await;
    w.record(&message, well, 200, DeliveryNext::Delivered, true).await;
    w.pass(HOUR);
    for endpoint in [ended, well] {
        let due = fresh(w.store.requeue(app, message.id, endpoint, w.now(), None).await.unwrap());
        assert_eq!((due.message, due.endpoint, due.app), (message.id, endpoint, app));
        assert_eq!((due.due_at, due.trigger, due.resume_at), (w.now(), Trigger::Manual, None));
        assert!(w.store.load_retries(ShardSet::ALL, None, w.now(), 10).await.unwrap().contains(&due));
        w.record(&message, endpoint, 200, DeliveryNext::Delivered, false).await;
    }
    assert!(w.store.load_retries(ShardSet::ALL, None, NOT_YET, 10).await.unwrap().is_empty());
    // One that never had the message, such as an endpoint made since.
    let newcomer = w.new_endpoint(app).await.id;
    fresh(w.store.requeue(app, message.id, newcomer, w.now(), Some(w.keyed(1, 1))).await.unwrap());
    let again: Written<_> = w.store.requeue(app, message.id, newcomer, w.now(), Some(w.keyed(1, 1))).await.unwrap();
    assert!(is_replayed(&again));
    assert!(w.store.find_idempotent(&w.key(1, 1), w.now()).await.unwrap().is_some());
    let mismatch = w.store.requeue(app, message.id, newcomer, w.now(), Some(w.keyed(1, 2))).await;
    assert!(matches!(mismatch, Err(StoreError::IdempotencyMismatch)));
    assert_eq!(w.store.load_retries(ShardSet::ALL, None, NOT_YET, 10).await.unwrap().len(), 1);
    let unknown = [
        w.store.requeue(app, w.id(), ended, w.now(), None).await,
        w.store.requeue(w.id(), message.id, ended, w.now(), None).await,
    ];
    for result in unknown {
        assert!(matches!(result, Err(StoreError::NotFound("message"))), "{result:?}");
    }
    let unknown = w.store.requeue(app, message.id, EndpointId::from_bytes([3; 20]), w.now(), None).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("endpoint"))), "{unknown:?}");
}

pub async fn requeueing_remembers_the_schedule(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let message = w.publish(app, &[endpoint]).await;
    let later = w.now().plus(HOUR);
    w.record(&message, endpoint, 500, DeliveryNext::RetryAt { at: later, tries: 3 }, true).await;
    for _ in 0..2 {
        let due = fresh(w.store.requeue(app, message.id, endpoint, w.now(), None).await.unwrap());
        assert_eq!((due.tries, due.due_at, due.resume_at), (3, w.now(), Some(later)));
    }
    // The manual try failed and gave the delivery back to its schedule.
    w.record(&message, endpoint, 500, DeliveryNext::RetryAt { at: later, tries: 3 }, false).await;
    let due = w.store.load_retries(ShardSet::ALL, None, NOT_YET, 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].tries, due[0].due_at, due[0].trigger, due[0].resume_at), (3, later, Trigger::Scheduled, None));
    // While the first try is outstanding a manual try does not end the delivery either.
    let fresh_one = w.publish(app, &[endpoint]).await;
    let due = fresh(w.store.requeue(app, fresh_one.id, endpoint, w.now(), None).await.unwrap());
    assert_eq!(due.resume_at, Some(w.now()));
}
