//! Migrations: the numbered files of `migrations/postgres`, forward only, each once, whoever of several nodes comes first.

use super::connection::Conn;
use super::fault::Outcome;
use super::param::p;
use crate::StoreError;

/// Number, name and statements; numbers and names are those of `migrations/sqlite`.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "first", include_str!("../../migrations/postgres/0001_first.sql")),
    (2, "source", include_str!("../../migrations/postgres/0002_source.sql")),
];
/// Any number that nobody else uses for advisory locks in this database.
const LOCK: i64 = 0x6265_6c6c_7769_7265;

/// The newest version this binary knows.
pub fn newest() -> i32 {
    MIGRATIONS.last().map_or(0, |(number, ..)| *number)
}

/// Brings the database to [`newest`]. [`StoreError::TooNew`] if it is beyond.
pub async fn run(conn: &mut Conn) -> Outcome<()> {
    let tx = conn.begin().await?;
    tx.query("SELECT pg_advisory_xact_lock($1)", &[p(&LOCK)]).await?;
    tx.batch("CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY, name text NOT NULL)").await?;
    let row = tx.query_one("SELECT coalesce(max(number), 0) FROM migration", &[]).await?;
    let found: i32 = row.try_get(0)?;
    if found > newest() {
        return Err(StoreError::TooNew { found: i64::from(found), supported: i64::from(newest()) }.into());
    }
    for (number, name, sql) in MIGRATIONS.iter().filter(|(number, ..)| *number > found) {
        tx.batch(sql).await?;
        tx.execute("INSERT INTO migration (number, name) VALUES ($1, $2)", &[p(number), p(name)]).await?;
    }
    tx.commit().await
}
