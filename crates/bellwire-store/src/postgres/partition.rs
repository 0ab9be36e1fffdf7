//! Partitions: one of each table a day (UTC), made ahead of time by retention, and at once where a write finds none.

use std::collections::BTreeSet;

use bellwire_core::id::key_to_timestamp;

use super::connection::Conn;
use super::fault::Outcome;
use super::message::keys_of_day;
use super::param::p;
use super::row;

const DAY_MS: i64 = 86_400_000;
const DAY_MINUTES: i64 = 1_440;
/// Any number that nobody else uses for advisory locks in this database: one node makes partitions at a time.
const LOCK: i64 = 0x6265_6c6c_7061_7274;

/// The day of a time, by its number since the Unix epoch.
pub fn day_of_ms(ms: i64) -> i32 {
    i32::try_from(ms.div_euclid(DAY_MS)).unwrap_or(i32::MAX)
}

/// The day whose partition holds what belongs to a message.
pub fn day_of_key(key: i64) -> i32 {
    day_of_ms(key_to_timestamp(key).as_millis())
}

/// The day whose partition holds a counter.
pub fn day_of_minute(minute: i64) -> i32 {
    i32::try_from(minute.div_euclid(DAY_MINUTES)).unwrap_or(i32::MAX)
}

/// Makes the partitions of these days, as far as they are not there.
pub async fn ensure(conn: &mut Conn, days: BTreeSet<i32>) -> Outcome<()> {
    let wanted: Vec<i32> = days.into_iter().collect();
    let sql = "SELECT number, to_char(date '1970-01-01' + number, 'YYYYMMDD') FROM unnest($1) AS wanted (number) \
         WHERE number NOT IN (SELECT number FROM day) ORDER BY number";
    if conn.query(sql, &[p(&wanted)]).await?.is_empty() {
        return Ok(());
    }
    let tx = conn.begin().await?;
    let result = async {
        tx.query("SELECT pg_advisory_xact_lock($1)", &[p(&LOCK)]).await?;
        // Again: another node may have made them while this one waited.
        for found in tx.query(sql, &[p(&wanted)]).await? {
            let (number, name): (i32, &str) = (row::get(&found, 0)?, row::get(&found, 1)?);
            make(&tx, number, name).await?;
        }
        Ok(())
    }
    .await;
    tx.end(result).await
}

/// Made apart and then attached: that lets reads and writes of the other days go on.
async fn make(tx: &Conn, number: i32, name: &str) -> Outcome<()> {
    let keys = keys_of_day(number);
    let minutes = (i64::from(number) * DAY_MINUTES, (i64::from(number) + 1) * DAY_MINUTES);
    for (table, (from, to)) in [
        ("message", (keys.from, keys.to)),
        ("outcome", (keys.from, keys.to)),
        ("attempt", (keys.from, keys.to)),
        ("counter", minutes),
    ] {
        tx.batch(&format!(
            "CREATE TABLE {table}_{name} (LIKE {table} INCLUDING ALL); \
             ALTER TABLE {table} ATTACH PARTITION {table}_{name} FOR VALUES FROM ({from}) TO ({to})"
        ))
        .await?;
    }
    tx.execute("INSERT INTO day (number) VALUES ($1)", &[p(&number)]).await?;
    Ok(())
}
