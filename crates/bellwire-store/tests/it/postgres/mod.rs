//! The backend for many nodes: databases to test it on, and what is its own.

mod conformance;
mod diagnosis;
mod opening;
mod reading;
mod retention;
mod transfer;

use std::sync::{Arc, OnceLock};

use bellwire_postgres_testkit::{Postgres, query};
use bellwire_store::conformance::World;
use bellwire_store::postgres::{PostgresOptions, PostgresStore};
use bellwire_store::{Cipher, MaintenanceStore};

use crate::KEY;

/// Connections of one store in a test: several are open at a time.
pub const CONNECTIONS_MAX: usize = 10;

pub fn options(url: &str) -> PostgresOptions {
    PostgresOptions { connections_max: CONNECTIONS_MAX, ..PostgresOptions::new(url, Cipher::new(KEY)) }
}

pub async fn open(url: &str) -> Arc<PostgresStore> {
    PostgresStore::open(options(url)).await.unwrap()
}

/// The store's only member, with all shards.
pub async fn member(store: Arc<PostgresStore>) -> World {
    let mut world = World::new(store);
    world.join().await;
    world.take_all().await;
    world
}

/// Scans so far of the tables of days of these names (a regular expression), by table. Connections tell it when they end.
pub fn scans(url: &str, tables: &str) -> Vec<(String, i64)> {
    let sql = format!(
        "SELECT string_agg(relname || '=' || (coalesce(seq_scan, 0) + coalesce(idx_scan, 0)), ' ' ORDER BY relname) \
         FROM pg_stat_user_tables WHERE relname ~ '^({tables})_[0-9]{{8}}$'"
    );
    let text = query(url, &sql).unwrap();
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(table, count)| (table.to_owned(), count.parse().unwrap())).collect()
}

/// The address of a fresh database with an empty store in it.
pub async fn database() -> String {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    let make = || {
        let template = TEMPLATE.get_or_init(|| {
            let url = Postgres::shared().create_database();
            // A runtime of its own: its connections are gone when it is, and copies can be made.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { open(&url).await.close().await.unwrap() });
            url
        });
        Postgres::shared().create_database_from(template)
    };
    tokio::task::spawn_blocking(make).await.unwrap()
}
