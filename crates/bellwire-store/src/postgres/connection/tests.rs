//! Which connections are lent again, on a real server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bellwire_postgres_testkit::Postgres;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::param::p;
use super::super::{PostgresOptions, PostgresStore};
use super::*;
use crate::Cipher;

const SOON: Duration = Duration::from_millis(50);

async fn url() -> String {
    tokio::task::spawn_blocking(|| Postgres::shared().admin_url().to_owned()).await.unwrap()
}

async fn pid(conn: &Conn) -> i32 {
    conn.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// A transaction of its own for each statement: their times differ.
async fn is_in_no_transaction(conn: &Conn) -> bool {
    let time = async || conn.query_one("SELECT now()::text", &[]).await.unwrap().get::<_, String>(0);
    time().await != time().await
}

/// Until the server has ended what it did for a connection.
async fn wait_for_end(url: &str, pid: i32) {
    let watch = Db::new(url, 1).unwrap().get().await.unwrap();
    let gone = async {
        while watch.query_opt("SELECT 1 FROM pg_stat_activity WHERE pid = $1", &[p(&pid)]).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the server ends it long before it is done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_left_in_the_middle_is_never_lent_again_and_the_server_stops_its_work() {
    let url = url().await;
    let db = Db::new(&url, 1).unwrap();
    let conn = db.get().await.unwrap();
    let whole = pid(&conn).await;
    drop(conn);
    let conn = db.get().await.unwrap();
    assert_eq!(pid(&conn).await, whole, "a sound one is lent again");

    // Its caller has gone away.
    assert!(tokio::time::timeout(SOON, conn.query("SELECT pg_sleep(60)", &[])).await.is_err());
    assert!(conn.is_closed());
    drop(conn);
    let mut conn = db.get().await.unwrap();
    let second = pid(&conn).await;
    assert_ne!(second, whole);
    wait_for_end(&url, whole).await;

    // So has the next one's, before it knew that its transaction had begun.
    tokio::select! {
        biased;
        begun = conn.begin() => drop(begun),
        () = std::future::ready(()) => {}
    }
    drop(conn);
    let conn = db.get().await.unwrap();
    let third = pid(&conn).await;
    assert_ne!(third, second);
    assert!(is_in_no_transaction(&conn).await);
    wait_for_end(&url, second).await;

    // A time limit.
    let late = conn.query_within(SOON, "SELECT pg_sleep(60)", &[]).await;
    assert!(matches!(late, Err(Fault::Store(StoreError::Busy(_)))));
    let after = conn.query("SELECT 1", &[]).await;
    assert!(matches!(after, Err(Fault::Store(StoreError::Unavailable(_)))), "nothing is sent behind it");
    drop(conn);
    let conn = db.get().await.unwrap();
    assert_ne!(pid(&conn).await, third);
    wait_for_end(&url, third).await;
    assert!(is_in_no_transaction(&conn).await, "the late request to cancel hits nobody else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_lent_again_after_an_error_of_the_servers_but_not_if_its_transaction_is_open() {
    let db = Db::new(&url().await, 1).unwrap();
    let mut conn = db.get().await.unwrap();
    let first = pid(&conn).await;
    assert!(conn.query("SELECT 1 / 0", &[]).await.is_err());
    let tx = conn.begin().await.unwrap();
    assert!(tx.query("SELECT 1 / 0", &[]).await.is_err());
    tx.rollback().await.unwrap();
    drop(conn);
    let mut conn = db.get().await.unwrap();
    assert_eq!(pid(&conn).await, first);
    drop(conn.begin().await.unwrap());
    assert!(conn.query("SELECT 1", &[]).await.is_err());
    drop(conn);
    let conn = db.get().await.unwrap();
    assert_ne!(pid(&conn).await, first);
    assert!(is_in_no_transaction(&conn).await);
}

/// Statements that the server keeps for a connection after one that comes again and again.
async fn kept_after_two(conn: &Conn) -> i64 {
    for _ in 0..2 {
        conn.query_kept(READ_MAX, "SELECT $1", &[p(&1i64)]).await.unwrap();
    }
    conn.query_one("SELECT count(*) FROM pg_prepared_statements", &[]).await.unwrap().get(0)
}

/// Broken: what nodes have to do with each other is parsed and planned forty times a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_pooler_what_goes_between_nodes_keeps_its_statements() {
    let url = tokio::task::spawn_blocking(|| Postgres::shared().create_database()).await.unwrap();
    let store = PostgresStore::open(PostgresOptions::new(url.clone(), Cipher::new([7; 32]))).await.unwrap();
    assert_eq!(kept_after_two(&store.members.get().await.unwrap()).await, 1);
    assert_eq!(kept_after_two(&store.db.get().await.unwrap()).await, 0, "what people ask for is planned for what they ask");
    drop(store);
    tokio::task::spawn_blocking(move || Postgres::shared().drop_database(&url)).await.unwrap();
}

/// Broken: once a pooler has come in between, heartbeats fail until the lease is over, and batches are not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_the_server_does_not_know_is_the_last_one_kept() {
    let db = Db::keeping_statements(&url().await, 2).unwrap();
    let (conn, other) = (db.get().await.unwrap(), db.get().await.unwrap());
    assert_eq!((kept_after_two(&conn).await, kept_after_two(&other).await), (1, 1));
    // As if the next one came to another server process.
    conn.batch("DEALLOCATE ALL").await.unwrap();
    let unknown = conn.query_kept(READ_MAX, "SELECT $1", &[p(&1i64)]).await.unwrap_err();
    assert!(unknown.is_statement_elsewhere(), "{unknown}");
    other.batch("DEALLOCATE ALL").await.unwrap();
    assert_eq!((kept_after_two(&conn).await, kept_after_two(&other).await), (0, 0));
}

/// Connections through it go dumb, open as they are, when it is told so; those made later are sound.
async fn line(server: String) -> (u16, watch::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (dumb, watched) = watch::channel(());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut watched, server) = (watched.clone(), server.clone());
            watched.mark_unchanged();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                let is_dumb = tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
                    changed = watched.changed() => changed.is_ok(),
                };
                if is_dumb {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    (port, dumb)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_broke_unnoticed_are_found_before_they_are_used() {
    let url = url().await;
    let (user, rest) = url.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let (port, dumb) = line(server.to_owned()).await;
    let db = Db::new(&format!("{user}@127.0.0.1:{port}/{name}?sslmode=disable"), 4).unwrap();
    let mut lent = Vec::new();
    for _ in 0..4 {
        lent.push(db.get().await.unwrap());
    }
    drop(lent);
    assert_eq!(db.connections(), (4, 4));
    dumb.send_replace(());
    tokio::time::sleep(TRUSTED_MAX).await;
    let begun = Instant::now();
    let conn = db.get().await.unwrap();
    assert_eq!(conn.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    assert!(begun.elapsed() < ANSWER_MAX * 2, "one is asked, and the others are not waited for: {:?}", begun.elapsed());
    assert_eq!(db.connections(), (1, 0));
}
