//! Background tasks.

use bellwire_core::{AppId, Endpoint, EndpointId, IdKind, Message, OrgId, ShardSet, TaskId, Trigger};

use super::world::{HOUR, World, fresh, is_replayed, walk};
use crate::{DeliveryNext, StoreError, Task, TaskKind, TaskStatus};

fn task(w: &World, app: AppId, endpoint: EndpointId) -> Task {
    Task {
        id: w.id(),
        org: w.org,
        kind: TaskKind::EndpointRecover,
        status: TaskStatus::Running,
        app,
        endpoint,
        since: w.now(),
        until: w.now().plus(10 * HOUR),
        position: None,
        messages_sent: 0,
        created_at: w.now(),
        updated_at: w.now(),
    }
}

fn shape(task: &Task) -> impl PartialEq + std::fmt::Debug {
    let times = (task.since, task.until, task.created_at, task.updated_at);
    (task.id, task.org, task.kind, task.status, (task.app, task.endpoint), task.position, task.messages_sent, times)
}

pub async fn tasks_are_kept_and_listed(w: World) {
    let (app, endpoint) = (w.id(), w.id());
    let mut first = fresh(w.store.create_task(task(&w, app, endpoint), Some(w.keyed(1, 1))).await.unwrap());
    assert!(is_replayed(&w.store.create_task(task(&w, app, endpoint), Some(w.keyed(1, 1))).await.unwrap()));
    assert_eq!(shape(&w.store.get_task(w.org, first.id).await.unwrap().unwrap()), shape(&first));
    let other = OrgId::from_bytes([1; 20]);
    assert!(w.store.get_task(other, first.id).await.unwrap().is_none());
    let mut ids = vec![first.id];
    for _ in 0..3 {
        ids.push(fresh(w.store.create_task(task(&w, app, endpoint), None).await.unwrap()).id);
    }
    let elsewhere = fresh(w.store.create_task(Task { org: other, ..task(&w, app, endpoint) }, None).await.unwrap());
    w.pass(HOUR);
    w.store.finish_task(first.id, TaskStatus::Failed, w.now()).await.unwrap();
    first.status = TaskStatus::Failed;
    first.updated_at = w.now();
    assert_eq!(shape(&w.store.get_task(w.org, first.id).await.unwrap().unwrap()), shape(&first));
    walk(&ids, |task: &Task| task.id, async |query| w.store.list_tasks(Some(w.org), false, query).await.unwrap()).await;
    let running: Vec<TaskId> = ids[1..].iter().copied().chain([elsewhere.id]).collect();
    walk(&running, |task: &Task| task.id, async |query| w.store.list_tasks(None, true, query).await.unwrap()).await;
    let unknown = w.store.finish_task(w.id(), TaskStatus::Failed, w.now()).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("task"))), "{unknown:?}");
}

pub async fn recovery_requeues_what_was_missed_once(w: World) {
    let app = w.new_application().await.id;
    let endpoint = Endpoint { event_types: Some(vec!["a".to_owned()]), ..w.endpoint(app) };
    let endpoint = fresh(w.store.create_endpoint(endpoint, None).await.unwrap());
    let of_type = |event_type: &str| Message { event_type: event_type.to_owned(), ..w.message(app) };
    let too_early = of_type("a");
    w.accept(too_early, &[]).await.unwrap();
    w.pass(HOUR);
    let task = fresh(w.store.create_task(task(&w, app, endpoint.id), None).await.unwrap());
    let mut expected = Vec::new();
    for n in 0..10 {
        w.pass(HOUR / 4);
        let message = of_type(if n == 9 { "b" } else { "a" });
        match n {
            // Missed while it was disabled.
            0..=2 | 9 => {
                w.accept(message.clone(), &[]).await.unwrap();
            }
            _ => {
                w.accept(message.clone(), &[endpoint.id]).await.unwrap();
            }
        }
        match n {
            3 => drop(w.record(&message, endpoint.id, 200, DeliveryNext::Delivered, true).await),
            4 => drop(w.record(&message, endpoint.id, 500, DeliveryNext::Exhausted { tries: 8 }, true).await),
            5 => {
                drop(w.record(&message, endpoint.id, 500, DeliveryNext::RetryAt { at: w.now().plus(HOUR), tries: 1 }, true).await)
            }
            6 => w.record_as(&message, endpoint.id, None, DeliveryNext::Cancelled { tries: 0, by: "x".to_owned() }, true).await,
            8 => drop(w.store.expunge_message_content(app, message.id).await.unwrap()),
            _ => {}
        }
        // 3 was delivered, 5 waits, 7 and 8 are queued, 9 is not wanted.
        if matches!(n, 0 | 1 | 2 | 4 | 6) {
            expected.push(message.id);
        }
    }
    w.pass(20 * HOUR);
    let too_late = of_type("a");
    w.accept(too_late, &[]).await.unwrap();

    let (oldest, mut running) = (task.clone(), task);
    let mut requeued = Vec::new();
    for _ in 0..20 {
        let before = running.clone();
        let (after, due) = w.store.recover_step(&running, &endpoint, w.now(), 3).await.unwrap();
        for delivery in &due {
            assert_eq!((delivery.endpoint, delivery.app, delivery.tries), (endpoint.id, app, 0));
            assert_eq!((delivery.due_at, delivery.trigger, delivery.resume_at), (w.now(), Trigger::Scheduled, None));
        }
        requeued.extend(due.iter().map(|delivery| delivery.message));
        // The same step again, as after a crash: nothing more.
        let (again, none) = w.store.recover_step(&before, &endpoint, w.now(), 3).await.unwrap();
        assert!(none.is_empty(), "{none:?}");
        assert_eq!(again.position, after.position);
        running = after;
        if running.status == TaskStatus::Finished {
            break;
        }
    }
    assert_eq!(running.status, TaskStatus::Finished);
    assert_eq!(requeued, expected);
    let waiting = w.store.load_retries(ShardSet::ALL, None, w.now(), 100).await.unwrap();
    assert_eq!(waiting.iter().filter(|due| expected.contains(&due.message)).count(), expected.len());
    let kept = w.store.get_task(w.org, running.id).await.unwrap().unwrap();
    assert_eq!((kept.status, kept.position), (TaskStatus::Finished, running.position));
    if w.store.is_shared() {
        // A node that does not know how far it has come does not begin it again.
        let first = Message { id: expected[0], ..w.message(app) };
        w.record_as(&first, endpoint.id, None, DeliveryNext::Exhausted { tries: 1 }, false).await;
        let (now, none) = w.store.recover_step(&oldest, &endpoint, w.now(), 3).await.unwrap();
        let kept = w.store.get_task(w.org, running.id).await.unwrap().unwrap();
        for task in [now, kept] {
            assert_eq!(
                (task.status, task.position, task.messages_sent),
                (running.status, running.position, running.messages_sent)
            );
        }
        assert_eq!(none, []);
    }
}
