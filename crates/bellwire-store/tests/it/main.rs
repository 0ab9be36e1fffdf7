//! The embedded store against the suite of all backends, and what is its own: files, locks, crashes, a full disk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance;
mod coverage;
mod durability;
mod full_disk;
mod opening;
mod postgres;
mod postgres_fencing;
mod retention;
mod secrets;
mod segments;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_store::Cipher;
use bellwire_store::conformance::World;
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};

const KEY: [u8; 32] = [1; 32];

fn options(dir: &Path) -> SqliteOptions {
    SqliteOptions::new(dir, Cipher::new(KEY))
}

fn open(options: SqliteOptions) -> (Arc<SqliteStore>, World) {
    let store = SqliteStore::open(options).unwrap();
    (store.clone(), World::new(store))
}

/// Waits until `is_so` says yes; panics with `what` after twenty seconds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
