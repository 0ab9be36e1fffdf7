//! Who may open a store, and what is refused.

use bellwire_store::conformance::world::HOUR;
use bellwire_store::sqlite::SqliteStore;
use bellwire_store::{Cipher, MaintenanceStore, StoreError};

use super::{open, options};

fn refused(dir: &std::path::Path) -> StoreError {
    SqliteStore::open(options(dir)).map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn two_processes_never_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _w) = open(options(dir.path()));
    let error = refused(dir.path());
    assert!(matches!(&error, StoreError::Locked { path } if path.contains(&*dir.path().to_string_lossy())), "{error}");
    store.close().await.unwrap();
    open(options(dir.path()));
}

#[tokio::test]
async fn a_store_that_is_dropped_lets_go_of_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let (store, w) = open(options(dir.path()));
        w.pass(HOUR * n);
        w.new_application().await;
        drop((store, w));
    }
}

#[tokio::test]
async fn a_newer_store_is_left_alone() {
    for name in ["control.db", "seg-0000000000000000.db"] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(options(dir.path())));
        let conn = rusqlite::Connection::open(dir.path().join(name)).unwrap();
        conn.pragma_update(None, "user_version", 1_000).unwrap();
        drop(conn);
        let error = refused(dir.path());
        assert!(matches!(error, StoreError::TooNew { found: 1_000, .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_wrong_master_key_is_noticed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(options(dir.path())));
    let mut wrong = options(dir.path());
    wrong.cipher = Cipher::new([2; 32]);
    let error = SqliteStore::open(wrong).map(|_| ()).unwrap_err();
    assert!(matches!(&error, StoreError::Cipher(text) if text.contains("master key")), "{error}");
    open(options(dir.path()));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.db");
    let garbage = "not a database ".repeat(1_000);
    std::fs::write(&path, &garbage).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), garbage);
}

#[tokio::test]
async fn what_an_interrupted_creation_left_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(options(dir.path())));
    let leftovers = [
        "seg-0000000000000007.new",
        "seg-0000000000000007.new-wal",
        "seg-0000000000000008.db-wal",
        "seg-0000000000000008.db-shm",
    ];
    for name in leftovers {
        std::fs::write(dir.path().join(name), "half").unwrap();
    }
    let (store, w) = open(options(dir.path()));
    for name in leftovers {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    let app = w.new_application().await.id;
    w.publish(app, &[]).await;
    assert_eq!(store.report().await.unwrap().segments, 1);
}
