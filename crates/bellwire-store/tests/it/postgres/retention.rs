//! Days as PostgreSQL has them: dropped whole, and left alone by lists that need not look at them.

use std::time::Duration;

use bellwire_core::{Direction, IdKind, Message, PageQuery};
use bellwire_postgres_testkit::query;
use bellwire_store::conformance::World;
use bellwire_store::{MaintenanceStore, MessageFilter};

use super::{database, member, open, scans};

const DAY: Duration = Duration::from_secs(86_400);

/// Days that have a message table of their own.
fn days(url: &str) -> String {
    query(url, "SELECT string_agg(relid::text, ' ' ORDER BY relid::text) FROM pg_partition_tree('message') WHERE isleaf")
        .unwrap()
        .trim()
        .to_owned()
}

/// Broken: with three months of days, every page of a list opens every one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_found_in_the_newest_days_leaves_the_others_alone() {
    let url = database().await;
    let store = open(&url).await;
    let w = member(store.clone()).await;
    let app = w.new_application().await.id;
    let mut newest = Vec::new();
    for _ in 0..12 {
        w.pass(DAY);
        newest.push(w.publish(app, &[]).await.id);
        newest.push(w.publish(app, &[]).await.id);
    }
    // What a connection has counted is there for all to see once it has ended.
    store.close().await.unwrap();
    let before = scans(&url, "message");
    assert_eq!(before.len(), 12, "{before:?}");
    let store = open(&url).await;
    let reader = World::new(store.clone());
    let page = PageQuery { limit: 5, order: Direction::Descending, after: None, backwards: false };
    let found = reader.store.list_messages(app, MessageFilter::default(), page, true).await.unwrap();
    newest.reverse();
    assert_eq!(found.rows.iter().map(|message| message.id).collect::<Vec<_>>(), newest[..5]);
    store.close().await.unwrap();
    let after = scans(&url, "message");
    let touched: Vec<&str> =
        before.iter().zip(&after).filter(|(before, after)| before.1 != after.1).map(|(_, (day, _))| day.as_str()).collect();
    assert!(!touched.is_empty() && touched.len() <= 6, "{touched:?}");
    assert!(touched.contains(&after[11].0.as_str()), "{touched:?}");
}

/// Broken: dropping a day waits for a long read, and everybody who accepts waits behind it; or the day is never dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_somebody_reads_is_dropped_when_they_are_done_and_holds_nobody_up() {
    let url = database().await;
    let store = open(&url).await;
    let w = member(store.clone()).await;
    let app = w.new_application().await.id;
    let event = Message { event_id: Some("once".to_owned()), ..w.message(app) };
    w.accept(event.clone(), &[]).await.unwrap();
    let old = days(&url);
    w.pass(100 * DAY);
    w.publish(app, &[]).await;
    let (reader, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    reader.batch_execute("BEGIN; SELECT count(*) FROM message").await.unwrap();
    let retaining = tokio::spawn({
        let (store, now) = (store.clone(), w.now());
        async move { store.retain(now, 90 * DAY).await.unwrap() }
    });
    let mut accepted = 0;
    while !retaining.is_finished() {
        tokio::time::timeout(Duration::from_secs(2), w.publish(app, &[])).await.expect("accepting goes on");
        accepted += 1;
    }
    assert_eq!((retaining.await.unwrap().segments_removed, accepted > 0), (0, true));
    assert!(days(&url).contains(&old), "somebody reads it");
    reader.batch_execute("COMMIT").await.unwrap();
    let report = store.retain(w.now(), 90 * DAY).await.unwrap();
    assert!(report.segments_removed == 1 && report.bytes_freed > 0, "{report:?}");
    assert!(!days(&url).contains(&old));
    // Its event ids went along.
    w.accept(Message { id: w.id(), ..event.clone() }, &[]).await.unwrap();
    assert_eq!(w.store.find_message(app, "once").await.unwrap().unwrap().id.created(), w.now());
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    store.close().await.unwrap();
}

/// Broken: at midnight the first message of the day finds no table, with all nodes making it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_are_made_before_they_begin() {
    let url = database().await;
    let store = open(&url).await;
    let w = member(store.clone()).await;
    store.retain(w.now(), 90 * DAY).await.unwrap();
    let ahead = "SELECT max(number) - floor(1767225600 / 86400) FROM day";
    assert_eq!(query(&url, ahead).unwrap().trim(), "3", "the world begins at 1767225600");
    assert_eq!(store.report().await.unwrap().segments, 4);
    store.close().await.unwrap();
}

/// Broken: a table made or left behind by hand, or a damaged index, is found by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_thorough_check_finds_what_should_not_be() {
    let url = database().await;
    let store = open(&url).await;
    let w = member(store.clone()).await;
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let message = w.publish(app, &[endpoint]).await;
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    let key = message.id.key();
    for (damage, finding) in [
        (format!("DELETE FROM message WHERE id = {key}"), "1 rows of queue belong to no message"),
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'retry_due'::regclass".to_owned(), "retry_due is invalid"),
        ("DELETE FROM day".to_owned(), "of a day that is not registered"),
        ("INSERT INTO day VALUES (20000)".to_owned(), "is missing, though its day is registered"),
    ] {
        query(&url, &damage).unwrap();
        let found = store.check().await.unwrap();
        assert!(found.iter().any(|line| line.contains(finding)), "{damage}: {found:?}");
    }
    store.close().await.unwrap();
}
