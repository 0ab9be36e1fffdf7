//! Messages.

use std::sync::Arc;

use bellwire_core::{IdKind, Message, MessageId};
use bytes::Bytes;

use super::world::{DAY, HOUR, World, newest_first, page, walk};
use crate::{Accepted, MessageFilter, NewMessage, StoreError};

pub async fn messages_read_back_byte_for_byte(w: World) {
    let app = w.new_application().await.id;
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let payloads = [
        Bytes::new(),
        Bytes::from_static(b"{}"),
        Bytes::from_static(b" { \"a\" : 1.0000 } \n"),
        Bytes::from("é".repeat(50_000)),
        Bytes::from(noise),
        Bytes::from(vec![0; 1024 * 1024]),
    ];
    for payload in payloads {
        let mut message = w.message(app);
        message.payload = Some(payload);
        message.content_type = "text/x; charset=utf-8".to_owned();
        message.channels = vec!["one".to_owned(), "two".to_owned()];
        message.tags = vec!["t".to_owned()];
        message.event_id = Some(message.id.to_string());
        message.payload_expires_at = w.now().plus(HOUR);
        assert_eq!(w.accept(message.clone(), &[]).await.unwrap(), Accepted::Fresh);
        assert_eq!(w.store.load_message(message.id).await.unwrap().as_ref(), Some(&message));
        assert_eq!(w.store.find_message(app, &message.id.to_string()).await.unwrap().as_ref(), Some(&message));
        assert_eq!(w.store.find_message(w.id(), &message.id.to_string()).await.unwrap(), None, "another application's");
        let guessed = MessageId::from_key_and_tail(message.id.key(), [0xee; 12]);
        assert_eq!(w.store.load_message(guessed).await.unwrap(), None);
        assert_eq!(w.store.find_message(app, &guessed.to_string()).await.unwrap(), None);
    }
    let without = Message { payload: None, ..w.message(app) };
    w.accept(without.clone(), &[]).await.unwrap();
    assert_eq!(w.store.load_message(without.id).await.unwrap(), Some(without));
}

pub async fn lists_filter_and_page(w: World) {
    let [app, other] = [w.new_application().await.id, w.new_application().await.id];
    let mut messages = Vec::new();
    for (event_type, channels, tag) in [
        ("a", vec!["one"], None),
        ("b", vec!["one", "two"], Some("x")),
        ("c", vec!["one-more"], None),
        ("a", vec![], Some("xy")),
        ("a.b", vec!["two"], None),
    ] {
        w.pass(HOUR);
        let message = Message {
            event_type: event_type.to_owned(),
            channels: channels.into_iter().map(ToOwned::to_owned).collect(),
            tags: tag.into_iter().map(ToOwned::to_owned).collect(),
            ..w.message(app)
        };
        w.accept(message.clone(), &[]).await.unwrap();
        w.publish(other, &[]).await;
        messages.push(message);
    }
    let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
    walk(
        &ids,
        |message: &Message| message.id,
        async |query| w.store.list_messages(app, MessageFilter::default(), query, false).await.unwrap(),
    )
    .await;
    let all = w.store.list_messages(app, MessageFilter::default(), page(9), true).await.unwrap();
    assert_eq!(all.rows, messages);
    let bare = w.store.list_messages(app, MessageFilter::default(), newest_first(1), false).await.unwrap();
    assert_eq!(bare.rows, [Message { payload: None, ..messages[4].clone() }]);
    // A cursor that is no message (any more) still has its place.
    let gap = MessageId::from_key_and_tail(ids[2].key() + 1, [0; 12]);
    let query = bellwire_core::PageQuery { after: Some(gap), ..page(9) };
    let after_gap = w.store.list_messages(app, MessageFilter::default(), query, false).await.unwrap();
    assert_eq!(after_gap.rows.iter().map(|message| message.id).collect::<Vec<_>>(), &ids[3..]);

    let list = async |filter: MessageFilter| {
        let found = w.store.list_messages(app, filter, page(9), false).await.unwrap();
        found.rows.iter().filter_map(|message| ids.iter().position(|id| *id == message.id)).collect::<Vec<_>>()
    };
    let channel = |name: &str| MessageFilter { channel: Some(name.to_owned()), ..MessageFilter::default() };
    let types = |names: &[&str]| MessageFilter {
        event_types: names.iter().map(ToString::to_string).collect(),
        ..MessageFilter::default()
    };
    assert_eq!(list(channel("one")).await, [0, 1], "not one-more");
    assert_eq!(list(channel("two")).await, [1, 4]);
    assert_eq!(list(MessageFilter { tag: Some("x".to_owned()), ..MessageFilter::default() }).await, [1], "not xy");
    assert_eq!(list(types(&["a"])).await, [0, 3], "not a.b");
    assert_eq!(list(types(&["b", "a.b", "nothing"])).await, [1, 4]);
    let between = |after: usize, before: usize| MessageFilter {
        after: Some(messages[after].created_at),
        before: Some(messages[before].created_at),
        ..MessageFilter::default()
    };
    assert_eq!(list(between(0, 4)).await, [1, 2, 3], "both bounds are exclusive");
    let both = MessageFilter { channel: Some("two".to_owned()), ..types(&["b"]) };
    assert_eq!(list(both).await, [1]);
}

pub async fn an_event_id_makes_one_message(w: World) {
    let [app, other] = [w.new_application().await.id, w.new_application().await.id];
    let with_event = |app, event: &str| Message { event_id: Some(event.to_owned()), ..w.message(app) };
    let first = with_event(app, "evt-1");
    assert_eq!(w.accept(first.clone(), &[]).await.unwrap(), Accepted::Fresh);
    let second = with_event(app, "evt-1");
    let taken = w.accept(second.clone(), &[]).await;
    assert!(matches!(&taken, Err(StoreError::Conflict { what: "eventId", value }) if value == "evt-1"), "{taken:?}");
    assert_eq!(w.store.load_message(second.id).await.unwrap(), None, "nothing is left behind");
    assert_eq!(w.accept(with_event(other, "evt-1"), &[]).await.unwrap(), Accepted::Fresh, "unique per application");
    assert_eq!(w.store.find_message(app, "evt-1").await.unwrap(), Some(first));
    assert_eq!(w.store.find_message(app, "evt-2").await.unwrap(), None);
    // What is refused uses up no key.
    let keyed = |message| Arc::new(NewMessage { message, endpoints: vec![], idempotency: Some(w.key(7, 7)), app_version: None });
    let refused = w.store.accept(keyed(with_event(app, "evt-1"))).await;
    assert!(matches!(refused, Err(StoreError::Conflict { what: "eventId", .. })), "{refused:?}");
    assert_eq!(w.store.accept(keyed(w.message(app))).await.unwrap(), Accepted::Fresh);
    // Also when it is weeks old.
    w.pass(30 * DAY);
    w.publish(app, &[]).await;
    let taken = w.accept(with_event(app, "evt-1"), &[]).await;
    assert!(matches!(taken, Err(StoreError::Conflict { .. })), "{taken:?}");
}

pub async fn an_idempotency_key_makes_one_message_however_many_ask(w: World) {
    let w = Arc::new(w);
    let app = w.new_application().await.id;
    let ask = |w: Arc<World>, key: u8, request: u8| async move {
        let new =
            NewMessage { message: w.message(app), endpoints: vec![], idempotency: Some(w.key(key, request)), app_version: None };
        let id = new.message.id;
        (id, w.store.accept(Arc::new(new)).await)
    };
    let asking: Vec<_> = (0..100).map(|_| tokio::spawn(ask(w.clone(), 1, 1))).collect();
    let (mut fresh, mut replayed) = (Vec::new(), Vec::new());
    for answer in asking {
        match answer.await.unwrap() {
            (id, Ok(Accepted::Fresh)) => fresh.push(id),
            (_, Ok(Accepted::Replayed(id))) => replayed.push(id),
            (_, Err(error)) => panic!("{error}"),
            (_, Ok(Accepted::Outdated)) => panic!("nobody changed the application"),
        }
    }
    assert_eq!(fresh.len(), 1);
    assert_eq!(replayed, vec![fresh[0]; 99]);
    assert_eq!(w.store.list_messages(app, MessageFilter::default(), page(9), false).await.unwrap().rows.len(), 1);
    let (_, other) = ask(w.clone(), 1, 2).await;
    assert!(matches!(other, Err(StoreError::IdempotencyMismatch)), "{other:?}");
    w.pass(23 * HOUR);
    assert_eq!(ask(w.clone(), 1, 1).await.1.unwrap(), Accepted::Replayed(fresh[0]));
    w.pass(2 * HOUR);
    let (id, again) = ask(w.clone(), 1, 2).await;
    assert_eq!(again.unwrap(), Accepted::Fresh, "a day later the key is new");
    assert_eq!(ask(w.clone(), 1, 2).await.1.unwrap(), Accepted::Replayed(id));
}

pub async fn a_conflict_is_nobody_elses(w: World) {
    let w = Arc::new(w);
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    // All at once, so that they share commits: half of them want the same event id, one repeats an id.
    let asking: Vec<_> = (0..64)
        .map(|n| {
            let w = w.clone();
            tokio::spawn(async move {
                let event_id = (n % 2 == 0).then(|| "the same".to_owned());
                w.accept(Message { event_id, ..w.message(app) }, &[endpoint]).await
            })
        })
        .collect();
    let (mut fresh, mut conflicts) = (0, 0);
    for answer in asking {
        match answer.await.unwrap() {
            Ok(Accepted::Fresh) => fresh += 1,
            Err(StoreError::Conflict { what: "eventId", .. }) => conflicts += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((fresh, conflicts), (33, 31));
    assert_eq!(w.queued().await.len(), 33, "what conflicted has no deliveries");
    let twice = w.publish(app, &[endpoint]).await;
    assert!(matches!(w.accept(twice, &[endpoint]).await, Err(StoreError::Conflict { what: "id", .. })));
}

pub async fn expunging_deletes_the_payload_alone(w: World) {
    let app = w.new_application().await.id;
    let message = w.publish(app, &[]).await;
    assert!(!w.store.expunge_message_content(w.id(), message.id).await.unwrap(), "another application's");
    assert!(!w.store.expunge_message_content(app, w.id()).await.unwrap());
    assert!(w.store.expunge_message_content(app, message.id).await.unwrap());
    assert_eq!(w.store.load_message(message.id).await.unwrap(), Some(Message { payload: None, ..message.clone() }));
    assert!(w.store.expunge_message_content(app, message.id).await.unwrap(), "the message is still there");
}

/// A store may keep what came together together, and compressed: nobody notices.
pub async fn what_is_accepted_together_is_read_and_deleted_apart(w: World) {
    let w = Arc::new(w);
    let apps = [w.new_application().await.id, w.new_application().await.id];
    let source = w.id();
    let message = |n: usize| {
        let text = format!("{{\"number\":{n},\"note\":\"{}\"}}", "as every other ".repeat(n * 23 % 700));
        let origin = n.is_multiple_of(3).then(|| Box::new(super::source::origin(&source)));
        let event_id = n.is_multiple_of(20).then(|| "the same".to_owned());
        let payload = (!n.is_multiple_of(7)).then(|| Bytes::from(text)).or_else(|| n.is_multiple_of(2).then(Bytes::new));
        let payload_expires_at = w.now().plus(if n.is_multiple_of(5) { DAY } else { 90 * DAY });
        Message { payload, origin, event_id, payload_expires_at, ..w.message(apps[n % 4 / 3]) }
    };
    let asking: Vec<_> = (0..200)
        .map(|n| {
            let (w, message) = (w.clone(), message(n));
            tokio::spawn(async move {
                let accepted = w.accept(message.clone(), &[]).await;
                (message, accepted)
            })
        })
        .collect();
    let mut accepted = Vec::new();
    for answer in asking {
        match answer.await.unwrap() {
            (message, Ok(Accepted::Fresh)) => accepted.push(message),
            (_, Err(StoreError::Conflict { what: "eventId", .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted.len(), 191, "one of those that want the same event id");
    let gone = [accepted[11].id, accepted[12].id, accepted[100].id];
    for id in gone {
        let app = accepted.iter().find(|message| message.id == id).unwrap().app;
        assert!(w.store.expunge_message_content(app, id).await.unwrap());
    }
    let day = w.now().plus(2 * DAY);
    let expired = accepted.iter().filter(|message| message.payload_expires_at < day && !gone.contains(&message.id));
    let with_payload = expired.filter(|message| message.payload.is_some()).count() as u64;
    assert_eq!(super::maintenance::retain(&w, day, 90 * DAY).await.payloads_expired, with_payload);
    for message in &mut accepted {
        if gone.contains(&message.id) || message.payload_expires_at < day {
            message.payload = None;
        }
        assert_eq!(w.store.load_message(message.id).await.unwrap().as_ref(), Some(&*message));
    }
    for app in apps {
        for with_content in [true, false] {
            let listed = w.store.list_messages(app, MessageFilter::default(), page(250), with_content).await.unwrap().rows;
            let of_app = accepted.iter().filter(|message| message.app == app).cloned();
            let mut expected: Vec<Message> =
                of_app.map(|message| Message { payload: message.payload.filter(|_| with_content), ..message }).collect();
            expected.sort_by_key(|message| message.id.key());
            assert_eq!(listed, expected, "with content: {with_content}");
        }
    }
}
