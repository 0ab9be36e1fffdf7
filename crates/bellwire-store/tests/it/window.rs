//! Keys that count for a month, and sources: after the store was closed and opened again, in many files as in a database.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{AppId, Message, MessageId};
use bellwire_postgres_testkit::Postgres;
use bellwire_store::conformance::World;
use bellwire_store::conformance::source::{accept_as, key_for, origin};
use bellwire_store::{Accepted, MaintenanceStore, ShardStore, Store};

use crate::{options, postgres};

const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// A world on the store opened again, `days` after its beginning; a member with all shards.
async fn opened(store: Arc<dyn Store>, days: u32) -> World {
    let mut w = World::new(store);
    w.join().await;
    w.take_all().await;
    w.pass(days * DAY);
    w
}

/// Accepts an event and what fills segments or days after it.
async fn first_life(w: &World) -> (AppId, MessageId, Message) {
    let app = w.new_application().await.id;
    let (event, accepted) = accept_as(w, app, key_for(w, 1, MONTH)).await;
    assert_eq!(accepted.unwrap(), Accepted::Fresh);
    let received = Message { origin: Some(Box::new(origin(&w.id()))), ..w.message(app) };
    assert_eq!(w.accept(received.clone(), &[]).await.unwrap(), Accepted::Fresh);
    for _ in 0..20 {
        w.pass(DAY);
        w.publish(app, &[]).await;
    }
    (app, event, received)
}

async fn second_life(w: &World, app: AppId, event: MessageId, received: Message) {
    assert_eq!(w.store.load_message(received.id).await.unwrap(), Some(received));
    assert_eq!(accept_as(w, app, key_for(w, 1, MONTH)).await.1.unwrap(), Accepted::Replayed(event), "after 29 days");
    w.pass(2 * DAY);
    assert_eq!(accept_as(w, app, key_for(w, 1, MONTH)).await.1.unwrap(), Accepted::Fresh, "after 31 days");
}

/// Broken: a restart forgets which events have come, or looks for them in the newest file only.
#[tokio::test]
async fn events_are_remembered_across_files_and_restarts() {
    for span in [Duration::from_millis(1), 7 * DAY] {
        let dir = tempfile::tempdir().unwrap();
        let with_span = || bellwire_store::sqlite::SqliteOptions { segment_span: span, ..options(dir.path()) };
        let (store, w) = crate::open(with_span());
        let (app, event, received) = first_life(&w).await;
        assert!(store.report().await.unwrap().segments > 2);
        store.close().await.unwrap();
        drop((store, w));
        let store = bellwire_store::sqlite::SqliteStore::open(with_span()).unwrap();
        second_life(&opened(store.clone(), 29).await, app, event, received).await;
        store.close().await.unwrap();
    }
}

/// Broken: the same on a database, where another node asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_remembered_across_days_and_nodes() {
    let url = postgres::database().await;
    let store = postgres::open(&url).await;
    let (app, event, received) = first_life(&opened(store.clone(), 0).await).await;
    store.leave().await.unwrap();
    store.close().await.unwrap();
    let store = postgres::open(&url).await;
    second_life(&opened(store.clone(), 29).await, app, event, received).await;
    store.close().await.unwrap();
    Postgres::shared().drop_database(&url);
}
