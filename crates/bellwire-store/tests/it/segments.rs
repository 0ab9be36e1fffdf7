//! Messages are spread over files by the time in their ids; nobody notices.

use std::time::Duration;

use bellwire_core::{Message, MessageId, ShardSet};
use bellwire_store::conformance::world::{DAY, HOUR, newest_first, page};
use bellwire_store::sqlite::SqliteOptions;
use bellwire_store::{DeliveryNext, DeliveryStore, MaintenanceStore, MessageFilter, MessageStore, StoreError};

use super::{open, options};

fn hourly(dir: &std::path::Path) -> SqliteOptions {
    SqliteOptions { segment_span: HOUR, ..options(dir) }
}

#[tokio::test]
async fn a_segment_takes_messages_for_its_span() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(hourly(dir.path()));
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let mut messages = Vec::new();
    for _ in 0..40 {
        w.pass(Duration::from_secs(15 * 60));
        messages.push(w.publish(app, &[endpoint]).await);
    }
    let report = store.report().await.unwrap();
    assert_eq!(report.segments, 10, "four messages an hour, ten hours");
    // Retries and attempts go where their message is.
    w.record(&messages[0], endpoint, 500, DeliveryNext::RetryAt { at: w.now(), tries: 1 }, true).await;
    w.record(&messages[39], endpoint, 200, DeliveryNext::Delivered, true).await;
    store.close().await.unwrap();
    drop((store, w));
    let (store, w) = open(hourly(dir.path()));
    assert_eq!(store.report().await.unwrap().segments, 10);
    for message in &messages {
        assert_eq!(store.load_message(message.id).await.unwrap().as_ref(), Some(message));
    }
    let ids: Vec<MessageId> = messages.iter().map(|message| message.id).collect();
    assert_eq!(w.queued().await.iter().map(|(id, _)| *id).collect::<Vec<_>>(), &ids[1..39]);
    let listed = store.list_messages(app, MessageFilter::default(), newest_first(7), false).await.unwrap();
    assert_eq!(
        listed.rows.iter().map(|message| message.id).collect::<Vec<_>>(),
        ids.iter().rev().take(7).copied().collect::<Vec<_>>()
    );
    assert_eq!(store.load_retries(ShardSet::ALL, None, w.now().plus(DAY), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn uniqueness_holds_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(hourly(dir.path()));
    let app = w.new_application().await.id;
    let named = |name: &str| Message { event_id: Some(name.to_owned()), ..w.message(app) };
    let first = named("evt");
    w.accept(first.clone(), &[]).await.unwrap();
    for _ in 0..5 {
        w.pass(HOUR);
        w.publish(app, &[]).await;
    }
    assert!(store.report().await.unwrap().segments > 4);
    assert!(matches!(w.accept(named("evt"), &[]).await, Err(StoreError::Conflict { what: "eventId", .. })));
    assert_eq!(store.find_message(app, "evt").await.unwrap(), Some(first));
}

#[tokio::test]
async fn a_message_with_an_older_id_goes_to_the_older_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(hourly(dir.path()));
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    w.publish(app, &[endpoint]).await;
    // Made before, accepted after the roll-over.
    w.pass(HOUR / 2);
    let late = w.message(app);
    w.pass(HOUR);
    w.publish(app, &[endpoint]).await;
    assert_eq!(store.report().await.unwrap().segments, 2);
    w.accept(late.clone(), &[endpoint]).await.unwrap();
    assert_eq!(store.load_message(late.id).await.unwrap().as_ref(), Some(&late));
    let listed = store.list_messages(app, MessageFilter::default(), page(9), false).await.unwrap();
    assert_eq!(listed.rows[1].id, late.id);
    assert_eq!(w.queued().await[1].0, late.id);
    w.record(&late, endpoint, 200, DeliveryNext::Delivered, true).await;
    assert_eq!(w.queued().await.len(), 2);
}
