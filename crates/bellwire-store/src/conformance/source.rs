//! Sources, their logs, where messages came from, and keys that count for longer than a day.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{
    Application, DuplicateKey, DuplicateRule, IdKind, Message, MessageId, Origin, Secret, Source, SourceId, SourceSettings,
    limits,
};
use bytes::Bytes;

use super::world::{CHANGES, DAY, HOUR, World, contend, fresh, is_replayed, newest_first, page, walk};
use crate::{Accepted, Idempotency, MessageFilter, NewMessage, Receipt, Result, StateChange, Store, StoreError};

const MONTH: Duration = Duration::from_secs(limits::DUPLICATE_WINDOW_SECONDS_MAX);

/// With something in every field.
fn full(w: &World, application: &Application) -> Source {
    let id: SourceId = w.id();
    Source {
        id,
        org: w.org,
        app: application.id,
        is_app_own: true,
        uid: Some(format!("uid-{id}")),
        name: "From the shop é".to_owned(),
        kind: "stripe".to_owned(),
        token: Secret::new(format!("token-{id}")),
        config: [("secret".to_owned(), Secret::new("whsec_a")), ("account".to_owned(), Secret::new("b"))].into(),
        settings: SourceSettings {
            require_json: true,
            body_bytes_max: Some(5),
            allowed_networks: vec!["10.0.0.0/8".to_owned()],
            duplicates: DuplicateRule { by: DuplicateKey::Parts, parts: vec!["/id".to_owned()], window_seconds: 7 },
            schema: Some(serde_json::json!({ "type": "object" })),
            ..SourceSettings::default()
        },
        state: [("handshake".to_owned(), Secret::new("c"))].into(),
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        created_at: w.now(),
        updated_at: w.now(),
    }
}

async fn new_source(w: &World) -> Source {
    let application = w.application("made for it");
    let source = full(w, &application);
    fresh(w.store.create_source(source, Some(application), None).await.unwrap())
}

pub async fn sources_read_back_whole(w: World) {
    let source = new_source(&w).await;
    let found = w.store.find_source(w.org, &source.id.to_string()).await.unwrap();
    assert_eq!(found.as_ref(), Some(&source), "all but secrets by Eq, and those too");
    assert_eq!(found.unwrap().config["secret"].expose(), "whsec_a");
    assert_eq!(w.store.find_source(w.org, source.uid.as_deref().unwrap()).await.unwrap().as_ref(), Some(&source));
    let by_token = w.store.find_source_by_token(source.token.expose()).await.unwrap();
    assert_eq!(by_token.as_ref().map(|found| (found.id, found.token.expose())), Some((source.id, source.token.expose())));
    assert_eq!(w.store.find_source_by_token("token").await.unwrap(), None);
    let elsewhere = w.id();
    assert_eq!(w.store.find_source(elsewhere, &source.id.to_string()).await.unwrap(), None, "another organisation's");
    assert_eq!(w.store.find_source(elsewhere, source.uid.as_deref().unwrap()).await.unwrap(), None);
    let guessed = SourceId::from_key_and_tail(source.id.key(), [0xee; 12]);
    assert_eq!(w.store.find_source(w.org, &guessed.to_string()).await.unwrap(), None);
    assert!(w.store.get_application(source.app).await.unwrap().is_some(), "its application was made with it");
    assert!(w.store.last_key().await.unwrap() >= source.id.key(), "ids go on above it");
}

pub async fn source_uids_are_unique_in_their_organisation(w: World) {
    let first = new_source(&w).await;
    let application = w.application("never made");
    let twice = Source { uid: first.uid.clone(), ..full(&w, &application) };
    let taken = w.store.create_source(twice, Some(application.clone()), None).await;
    assert!(matches!(taken, Err(StoreError::Conflict { what: "uid", .. })), "{taken:?}");
    assert!(w.store.get_application(application.id).await.unwrap().is_none(), "a refused source leaves no application behind");
    let other = new_source(&w).await;
    let taken = w.store.change_source(&other, Source { uid: first.uid.clone(), ..other.clone() }, None).await;
    assert!(matches!(taken, Err(StoreError::Conflict { what: "uid", .. })), "{taken:?}");
    fresh(w.store.change_source(&first, Source { uid: None, ..first.clone() }, None).await.unwrap());
    fresh(w.store.change_source(&other, Source { uid: first.uid, ..other.clone() }, None).await.unwrap());
}

pub async fn changing_a_source_replaces_all_but_identity_and_state(w: World) {
    let source = new_source(&w).await;
    w.pass(HOUR);
    let later = vec![("later".to_owned(), Some(Secret::new("d"))), ("handshake".to_owned(), None)];
    assert!(w.store.set_source_state(source.id, later, None, w.now()).await.unwrap());
    w.pass(HOUR);
    // As somebody has it who read it before the state changed.
    let changed = Source {
        uid: None,
        name: "renamed".to_owned(),
        kind: "github".to_owned(),
        token: Secret::new("another token"),
        config: [("secret".to_owned(), Secret::new("new"))].into(),
        settings: SourceSettings::default(),
        metadata: Default::default(),
        updated_at: w.now(),
        ..source.clone()
    };
    fresh(w.store.change_source(&source, changed.clone(), Some(w.keyed(1, 1))).await.unwrap());
    assert!(is_replayed(&w.store.change_source(&source, changed.clone(), Some(w.keyed(1, 1))).await.unwrap()));
    let expected = Source { state: [("later".to_owned(), Secret::new("d"))].into(), ..changed };
    let found = w.store.find_source(w.org, &source.id.to_string()).await.unwrap().unwrap();
    assert_eq!(found, expected);
    assert_eq!((found.config["secret"].expose(), found.state["later"].expose()), ("new", "d"));
    assert_eq!(w.store.find_source_by_token(source.token.expose()).await.unwrap(), None, "the old token is dead");
    assert_eq!(w.store.find_source_by_token("another token").await.unwrap().map(|found| found.id), Some(source.id));
    let nobody = full(&w, &w.application("x"));
    let unknown = w.store.change_source(&nobody, nobody.clone(), None).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("source"))), "{unknown:?}");
    let unknown = w.store.set_source_state(nobody.id, vec![("a".to_owned(), None)], None, w.now()).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("source"))), "{unknown:?}");
}

/// Else of two people who change a source at the same time, through two nodes, one has changed nothing.
pub async fn a_change_of_a_source_overwrites_no_other(w: World) {
    let read = new_source(&w).await;
    let changes = [
        Source { uid: None, ..read.clone() },
        Source { kind: "github".to_owned(), ..read.clone() },
        Source { token: Secret::new("another token"), ..read.clone() },
        Source { config: [("secret".to_owned(), Secret::new("new"))].into(), ..read.clone() },
        Source { settings: SourceSettings::default(), ..read.clone() },
        Source { metadata: Default::default(), ..read.clone() },
    ];
    for change in changes {
        let stored = fresh(w.store.change_source(&read, change, None).await.unwrap());
        let late = w.store.change_source(&read, Source { name: "late".to_owned(), ..read.clone() }, None).await;
        assert!(matches!(late, Err(StoreError::Outdated("source"))), "{late:?}");
        let found = w.store.find_source(w.org, &read.id.to_string()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&stored), "nothing is written");
        fresh(w.store.change_source(&stored, read.clone(), None).await.unwrap());
    }
}

pub async fn of_many_changes_of_a_source_at_once_none_is_lost(w: World) {
    let source = new_source(&w).await;
    contend(&w, async |store: Arc<dyn Store>, number: usize| {
        let read = store.find_source(w.org, &source.id.to_string()).await?.unwrap();
        let mut changed = read.clone();
        changed.config.insert(format!("name {number}"), Secret::new("v"));
        store.change_source(&read, changed, None).await.map(drop)
    })
    .await;
    let config = w.store.find_source(w.org, &source.id.to_string()).await.unwrap().unwrap().config;
    assert_eq!(config.len(), source.config.len() + CHANGES);
}

pub async fn state_of_a_source_is_not_lost_between_two_writers(w: World) {
    let source = new_source(&w).await;
    let names: Vec<String> = (0..8).map(|n| format!("name {n}")).collect();
    let writes = names.iter().map(|name| {
        let (store, name, now, id) = (w.store.clone(), name.clone(), w.now(), source.id);
        tokio::spawn(async move { store.set_source_state(id, vec![(name, Some(Secret::new("x")))], None, now).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    let state = w.store.find_source(w.org, &source.id.to_string()).await.unwrap().unwrap().state;
    assert!(names.iter().all(|name| state.contains_key(name)), "{:?}", state.keys());
}

pub async fn of_many_who_set_a_state_that_none_may_replace_one_wins(w: World) {
    let source = new_source(&w).await;
    let change = |by: usize| -> StateChange {
        // The second name shows that the whole change is the winner's.
        ["secret", "by"].map(|name| (name.to_owned(), Some(Secret::new(by.to_string())))).into()
    };
    let writes = (0..8).map(|by| {
        let (store, now, id) = (w.store.clone(), w.now(), source.id);
        tokio::spawn(async move { store.set_source_state(id, change(by), Some("secret"), now).await })
    });
    let mut winners = Vec::new();
    for (by, write) in writes.collect::<Vec<_>>().into_iter().enumerate() {
        if write.await.unwrap().unwrap() {
            winners.push(by.to_string());
        }
    }
    let state = async || w.store.find_source(w.org, &source.id.to_string()).await.unwrap().unwrap().state;
    let held = state().await;
    assert_eq!(winners, [held["secret"].expose()], "one wins, and it is told so");
    assert_eq!(held["by"].expose(), held["secret"].expose(), "a loser left something");
    assert!(held.contains_key("handshake"), "what it does not name stays");
    let absent = w.store.set_source_state(source.id, change(9), Some("nothing of that name"), w.now()).await;
    assert!(absent.unwrap(), "another name does not hinder");
    assert_eq!(state().await["secret"].expose(), "9");
}

pub async fn deleting_a_source_takes_what_is_its_own(w: World) {
    let own = new_source(&w).await;
    let endpoint = w.new_endpoint(own.app).await;
    let application = w.new_application().await;
    let attached = Source { is_app_own: false, ..full(&w, &application) };
    fresh(w.store.create_source(attached.clone(), None, None).await.unwrap());
    w.store.add_receipts(vec![receipt(&w, own.id, "stale"), receipt(&w, attached.id, "stale")]).await.unwrap();
    assert!(!w.store.delete_source(w.id(), own.id, w.now()).await.unwrap(), "another organisation's");
    assert!(w.store.delete_source(w.org, own.id, w.now()).await.unwrap());
    assert!(!w.store.delete_source(w.org, own.id, w.now()).await.unwrap(), "once");
    assert!(w.store.find_source_by_token(own.token.expose()).await.unwrap().is_none());
    assert!(w.store.get_application(own.app).await.unwrap().is_none(), "made for it, gone with it");
    assert!(w.store.find_endpoint(own.app, &endpoint.id.to_string()).await.unwrap().is_none());
    assert!(w.store.list_receipts(own.id, page(9)).await.unwrap().rows.is_empty());
    assert_eq!(w.store.list_receipts(attached.id, page(9)).await.unwrap().rows.len(), 1);
    assert!(w.store.delete_source(w.org, attached.id, w.now()).await.unwrap());
    assert!(w.store.get_application(application.id).await.unwrap().is_some(), "it was there before");
}

pub async fn creating_a_source_twice_under_one_key_makes_one(w: World) {
    let application = w.application("own");
    let source = full(&w, &application);
    fresh(w.store.create_source(source.clone(), Some(application), Some(w.keyed(1, 1))).await.unwrap());
    let application = w.application("second");
    let again = full(&w, &application);
    assert!(is_replayed(&w.store.create_source(again, Some(application), Some(w.keyed(1, 1))).await.unwrap()));
    let listed = w.store.list_sources(w.org, page(9)).await.unwrap().rows;
    assert_eq!(listed.iter().map(|source| source.id).collect::<Vec<_>>(), [source.id]);
}

pub async fn source_lists_page(w: World) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        w.pass(HOUR);
        ids.push(new_source(&w).await.id);
    }
    walk(&ids, |source: &Source| source.id, async |query| w.store.list_sources(w.org, query).await.unwrap()).await;
    assert!(w.store.list_sources(w.id(), page(9)).await.unwrap().rows.is_empty());
}

pub async fn sources_are_found_by_kind_whoever_has_them(w: World) {
    let mut wanted = Vec::new();
    for kind in ["cron", "stripe", "cron"] {
        w.pass(HOUR);
        let application = w.application("own");
        let source = Source { kind: kind.to_owned(), org: w.id(), ..full(&w, &application) };
        fresh(w.store.create_source(source.clone(), Some(application), None).await.unwrap());
        if kind == "cron" {
            wanted.push(source);
        }
    }
    assert_eq!(w.store.sources_of_kind("cron").await.unwrap(), wanted, "by id");
    assert!(w.store.sources_of_kind("nothing").await.unwrap().is_empty());
}

fn receipt(w: &World, source: SourceId, reason: &str) -> Receipt {
    Receipt {
        id: w.id(),
        source,
        status: 401,
        reason: reason.to_owned(),
        detail: "é".to_owned(),
        duplicate_of: None,
        payload: None,
        headers: vec![],
        at: w.now(),
    }
}

pub async fn the_log_of_a_source_keeps_the_newest(w: World) {
    let source = new_source(&w).await.id;
    let whole = Receipt {
        duplicate_of: Some(w.id::<MessageId>()),
        payload: Some(Bytes::from_static(b"\0\xff")),
        headers: vec![("a".to_owned(), "b".to_owned()), ("a".to_owned(), "c".to_owned())],
        ..receipt(&w, source, "duplicate")
    };
    let mut receipts = vec![whole.clone()];
    for _ in 0..4 {
        w.pass(HOUR);
        receipts.push(receipt(&w, source, "stale"));
    }
    w.store.add_receipts(receipts.clone()).await.unwrap();
    let ids: Vec<_> = receipts.iter().map(|receipt| receipt.id).collect();
    walk(&ids, |receipt: &Receipt| receipt.id, async |query| w.store.list_receipts(source, query).await.unwrap()).await;
    assert_eq!(w.store.list_receipts(source, page(1)).await.unwrap().rows, [whole]);
    assert!(w.store.last_key().await.unwrap() >= receipts[4].id.key(), "ids go on above it");
    w.store.add_receipts(receipts[4..].to_vec()).await.unwrap();
    assert_eq!(w.store.list_receipts(source, page(9)).await.unwrap().rows.len(), 5, "added again: one");

    let other = new_source(&w).await.id;
    w.store.add_receipts(vec![receipt(&w, other, "quiet")]).await.unwrap();
    let kept = usize::try_from(limits::SOURCE_LOG_ENTRIES_KEPT).unwrap();
    w.pass(HOUR);
    let flood: Vec<Receipt> = (0..kept + 50).map(|_| receipt(&w, source, "flood")).collect();
    for part in flood.chunks(350) {
        w.store.add_receipts(part.to_vec()).await.unwrap();
    }
    let all = w.store.list_receipts(source, newest_first(kept * 2)).await.unwrap().rows;
    assert_eq!(all.len(), kept);
    assert_eq!(all.last().map(|receipt| receipt.id), Some(flood[50].id), "the oldest went");
    assert_eq!(w.store.list_receipts(other, page(9)).await.unwrap().rows.len(), 1, "nobody else's");
}

/// With something in every field.
pub fn origin(source: &SourceId) -> Origin {
    Origin {
        source: source.to_string(),
        method: "POST".to_owned(),
        path: "/a?b".to_owned(),
        headers: vec![("x-a".to_owned(), "é\u{1}".to_owned()), ("x-a".to_owned(), String::new())],
        remote_address: "192.0.2.1".to_owned(),
        verified_by: "stripe".to_owned(),
        ordering_key: Some("k".to_owned()),
        occurred_at: Some(-5),
        sequence: Some("9".to_owned()),
        is_late: true,
        is_stale: true,
    }
}

pub async fn messages_keep_where_they_came_from(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let received = Message { event_id: Some("evt".to_owned()), origin: Some(Box::new(origin(&w.id()))), ..w.message(app) };
    assert_eq!(w.accept(received.clone(), &[endpoint]).await.unwrap(), Accepted::Fresh);
    let published = w.publish(app, &[]).await;
    assert_eq!(w.store.load_message(received.id).await.unwrap().as_ref(), Some(&received));
    assert_eq!(w.store.find_message(app, "evt").await.unwrap().as_ref(), Some(&received));
    let listed = w.store.list_messages(app, MessageFilter::default(), page(9), true).await.unwrap().rows;
    assert_eq!(listed, [received.clone(), published]);
    assert!(w.store.expunge_message_content(app, received.id).await.unwrap());
    assert_eq!(w.store.load_message(received.id).await.unwrap(), Some(Message { payload: None, ..received }));
}

/// A key that counts for `window` from now.
pub fn key_for(w: &World, key: u8, window: Duration) -> Idempotency {
    Idempotency { key: [key; 16], request: [1; 16], expires_at: w.now().plus(window), window }
}

/// Accepts a message of this application under the key.
pub async fn accept_as(w: &World, app: bellwire_core::AppId, key: Idempotency) -> (MessageId, Result<Accepted>) {
    let message = w.message(app);
    let id = message.id;
    let new = NewMessage { message, endpoints: vec![], idempotency: Some(key), app_version: None };
    (id, w.store.accept(Arc::new(new)).await)
}

pub async fn a_key_counts_for_its_own_window(w: World) {
    let app = w.new_application().await.id;
    let (event, accepted) = accept_as(&w, app, key_for(&w, 1, MONTH)).await;
    assert_eq!(accepted.unwrap(), Accepted::Fresh);
    // What is published in between makes days and segments; retention forgets what has expired, and only that.
    for _ in 0..29 {
        w.pass(DAY);
        let (published, accepted) = accept_as(&w, app, key_for(&w, 2, DAY)).await;
        assert_eq!(accepted.unwrap(), Accepted::Fresh, "a day later: {published}");
        w.store.retain(w.now(), 90 * DAY).await.unwrap();
    }
    assert_eq!(accept_as(&w, app, key_for(&w, 1, MONTH)).await.1.unwrap(), Accepted::Replayed(event), "after 29 days");
    w.pass(2 * DAY);
    let (again, accepted) = accept_as(&w, app, key_for(&w, 1, MONTH)).await;
    assert_eq!(accepted.unwrap(), Accepted::Fresh, "after 31 days it is another event");
    assert_eq!(accept_as(&w, app, key_for(&w, 1, MONTH)).await.1.unwrap(), Accepted::Replayed(again));
}

pub async fn keys_of_different_windows_in_one_batch_do_not_disturb_each_other(w: World) {
    let w = Arc::new(w);
    let app = w.new_application().await.id;
    let ask = |key: u8, window: Duration| {
        let w = w.clone();
        tokio::spawn(async move { accept_as(&w, app, key_for(&w, key, window)).await })
    };
    let keys: Vec<(u8, Duration)> = (1..=16).map(|n| (n, if n % 2 == 0 { MONTH } else { HOUR })).collect();
    let mut first = Vec::new();
    for asked in keys.iter().map(|(key, window)| ask(*key, *window)).collect::<Vec<_>>() {
        let (id, accepted) = asked.await.unwrap();
        assert_eq!(accepted.unwrap(), Accepted::Fresh);
        first.push(id);
    }
    w.pass(5 * HOUR);
    let asked: Vec<_> = keys.iter().map(|(key, window)| ask(*key, *window)).collect();
    for ((asked, first), (key, window)) in asked.into_iter().zip(first).zip(&keys) {
        let expected = if *window == MONTH { Accepted::Replayed(first) } else { Accepted::Fresh };
        assert_eq!(asked.await.unwrap().1.unwrap(), expected, "key {key}, {window:?}");
    }
}

pub async fn of_eight_identical_events_at_once_one_becomes_a_message(w: World) {
    let w = Arc::new(w);
    let app = w.new_application().await.id;
    let asked: Vec<_> = (0..8)
        .map(|_| {
            let w = w.clone();
            tokio::spawn(async move { accept_as(&w, app, key_for(&w, 3, MONTH)).await })
        })
        .collect();
    let (mut fresh, mut replayed) = (Vec::new(), Vec::new());
    for asked in asked {
        match asked.await.unwrap() {
            (id, Ok(Accepted::Fresh)) => fresh.push(id),
            (_, Ok(Accepted::Replayed(id))) => replayed.push(id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fresh.len(), 1);
    assert_eq!(replayed, vec![fresh[0]; 7]);
    assert_eq!(w.store.list_messages(app, MessageFilter::default(), page(9), false).await.unwrap().rows.len(), 1);
}
