//! Opening a store in a database: by several at once, with the wrong key, of another version.

use bellwire_postgres_testkit::{Postgres, query};
use bellwire_store::postgres::{PostgresOptions, PostgresStore};
use bellwire_store::{Cipher, MaintenanceStore, StoreError};

use super::{database, open, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_the_same_instant_all_find_the_schema() {
    let url = Postgres::shared().create_database();
    let open = || tokio::spawn(PostgresStore::open(options(&url)));
    let starting = [open(), open(), open(), open()];
    for store in starting {
        let store = store.await.unwrap().unwrap();
        store.ping().await.unwrap();
        store.close().await.unwrap();
    }
    let twice = query(&url, "SELECT count(*) - count(DISTINCT number) FROM migration").unwrap();
    assert_eq!(twice.trim(), "0", "each migration ran once");
    Postgres::shared().drop_database(&url);
}

#[tokio::test]
async fn another_master_key_is_noticed_at_the_start() {
    let url = database().await;
    let wrong = PostgresOptions::new(url.as_str(), Cipher::new([2; 32]));
    assert!(matches!(PostgresStore::open(wrong).await, Err(StoreError::Cipher(_))));
    open(&url).await.close().await.unwrap();
    Postgres::shared().drop_database(&url);
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_alone() {
    let url = database().await;
    query(&url, "INSERT INTO migration (number, name) VALUES (9999, 'of the future')").unwrap();
    let refused = PostgresStore::open(options(&url)).await;
    assert!(matches!(refused, Err(StoreError::TooNew { found: 9999, .. })));
    Postgres::shared().drop_database(&url);
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_away_and_not_broken() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = PostgresStore::open(options(&format!("postgres://nobody@127.0.0.1:{nobody}/nothing"))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
}
