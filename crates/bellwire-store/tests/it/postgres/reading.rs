//! What writing reads: the rows it is about, whatever the planner believes of a table that was empty when it was last looked at.

use std::time::Duration;

use bellwire_core::Message;
use bellwire_postgres_testkit::query;
use bellwire_store::DeliveryNext;

use super::{database, member, open, scans};

/// Other people's deliveries in each of the two tables.
const OTHERS: u64 = 20_000;

/// Fills both tables with other deliveries after autovacuum's last visit, which found one row on many pages. It does not come again.
fn fill_unseen(url: &str) {
    for (table, more, values) in [("queue", "", ""), ("retry", ", tries, due_at, trigger, is_delivered", ", 1, 1, 0, FALSE")] {
        let fill = |from: u64| {
            let sql = format!(
                "INSERT INTO {table} (message, endpoint, shard, app, tail{more}) \
                 SELECT n, 1, 1, 1, '\\x00'::bytea{values} FROM generate_series({from}, {OTHERS}) AS n"
            );
            query(url, &sql).unwrap();
        };
        query(url, &format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).unwrap();
        fill(0);
        query(url, &format!("DELETE FROM {table} WHERE message < {OTHERS}")).unwrap();
        query(url, &format!("VACUUM (ANALYZE) {table}")).unwrap();
        query(url, &format!("DELETE FROM {table}")).unwrap();
        fill(1);
    }
}

/// Entries of the two tables' indexes read so far. Connections tell it when they end.
fn entries_read(url: &str) -> u64 {
    let sql = "SELECT sum(idx_tup_read)::bigint + sum(seq_tup_read)::bigint FROM pg_stat_user_tables \
         JOIN pg_stat_user_indexes USING (relid) WHERE pg_stat_user_tables.relname IN ('queue', 'retry')";
    query(url, sql).unwrap().trim().parse().unwrap()
}

/// Broken: once a healthy system's queue has been seen empty by autovacuum, each batch of completed deliveries reads whatever is unfinished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completing_a_delivery_reads_that_delivery_alone() {
    let url = database().await;
    let w = member(open(&url).await).await;
    let app = w.new_application().await.id;
    let [one, two] = [w.new_endpoint(app).await.id, w.new_endpoint(app).await.id];
    let mut messages: Vec<Message> = Vec::new();
    for _ in 0..4 {
        messages.push(w.publish(app, &[one, two]).await);
    }
    w.store.close().await.unwrap();
    fill_unseen(&url);
    let before = entries_read(&url);
    let w = member(open(&url).await).await;
    for message in &messages {
        w.record(message, one, 200, DeliveryNext::Delivered, true).await;
        let at = w.now().plus(Duration::from_secs(60));
        w.record(message, two, 500, DeliveryNext::RetryAt { at, tries: 1 }, true).await;
        w.record(message, two, 200, DeliveryNext::Delivered, false).await;
    }
    w.store.close().await.unwrap();
    let read = entries_read(&url) - before;
    assert!(read < OTHERS / 10, "{read} rows were read for twelve attempts");
    let left = "SELECT (SELECT count(*) FROM queue) + (SELECT count(*) FROM retry)";
    assert_eq!(query(&url, left).unwrap().trim(), (2 * OTHERS).to_string(), "what is left belongs to others");
}

/// Broken: with three months of days, every batch with a failure in it opens the tables of all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_looks_at_the_day_of_its_message_alone() {
    let url = database().await;
    let w = member(open(&url).await).await;
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let mut messages: Vec<Message> = Vec::new();
    for _ in 0..12 {
        w.pass(Duration::from_secs(86_400));
        messages.push(w.publish(app, &[endpoint]).await);
    }
    w.store.close().await.unwrap();
    let before = scans(&url, "attempt|outcome");
    assert_eq!(before.len(), 24, "{before:?}");
    let w = member(open(&url).await).await;
    let last = &messages[11];
    let at = w.now().plus(Duration::from_secs(60));
    w.record(last, endpoint, 500, DeliveryNext::RetryAt { at, tries: 1 }, true).await;
    w.record(last, endpoint, 500, DeliveryNext::Exhausted { tries: 2 }, false).await;
    w.store.close().await.unwrap();
    let after = scans(&url, "attempt|outcome");
    let touched: Vec<&str> = before.iter().filter(|known| !after.contains(known)).map(|(table, _)| table.as_str()).collect();
    let days: Vec<&str> = touched.iter().filter_map(|table| table.split_once('_')).map(|(_, day)| day).collect();
    assert!(!days.is_empty() && days.iter().all(|day| before[11].0.ends_with(day)), "{touched:?}");
}
