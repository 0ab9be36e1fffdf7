//! [`MaintenanceStore`]: retention by days, sizes, health, closing.

use std::time::Duration;

use async_trait::async_trait;
use bellwire_core::Timestamp;

use super::connection::Conn;
use super::fault::Outcome;
use super::message::keys_of_day;
use super::param::p;
use super::{PostgresStore, partition, row};
use crate::{MaintenanceStore, Result, RetentionReport, StoreError, StoreReport};

const DAY_MS: i64 = 86_400_000;
/// Days that have their partitions before they begin: a weekend in which no retention runs.
pub const DAYS_AHEAD: i32 = 3;
/// Rows one retention step deletes or empties in a table: some tens of milliseconds.
const ROWS_MAX: i64 = 4_000;
/// How long retention waits to have a day's tables for itself, and how often: whoever accepts waits behind it for so long.
const LOCK_MS_MAX: u64 = 150;
const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(300);
/// Other nodes have read a change after this time, or were declared dead long ago.
const CHANGES_KEPT: Duration = Duration::from_secs(3_600);
/// Dead rows in a table of unfinished deliveries at which autovacuum is evidently not coming: five times its threshold.
const DEAD_ROWS_MAX: i64 = 100_000;
const VACUUM_MAX: Duration = Duration::from_secs(300);
/// Any number that nobody else uses for advisory locks in this database: one node drops days at a time.
const DROP_LOCK: i64 = 0x6265_6c6c_6472_6f70;
/// The thorough check's statements.
const CHECK_MAX: Duration = Duration::from_secs(120);
/// Unfinished deliveries the thorough check looks at together.
const CHECK_ROWS: i64 = 8_192;
/// Where the newest rows of a day's attempts are looked for: pages at the end of the table, and how many tables.
const TAIL_PAGES: i64 = 128;
const TAIL_TABLES: i64 = 8;

/// The partitions of a day with their sizes.
const TABLES_OF_DAY: &str = "SELECT child.oid::regclass::text, pg_total_relation_size(child.oid) FROM pg_inherits \
     JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent \
     WHERE parent.oid IN ('message'::regclass, 'attempt'::regclass, 'outcome'::regclass, 'counter'::regclass) \
     AND child.relname = parent.relname || to_char(date '1970-01-01' + $1, '\"_\"YYYYMMDD')";

fn day_of(at: Timestamp) -> i32 {
    i32::try_from(at.as_millis().div_euclid(DAY_MS)).unwrap_or(i32::MAX)
}

/// Up to two days before `kept` of which nothing waits for delivery, oldest first.
async fn finished_days(conn: &Conn, kept: i32) -> Outcome<Vec<i32>> {
    let rows = conn.query("SELECT number FROM day WHERE number < $1 ORDER BY number", &[p(&kept)]).await?;
    let days = rows.iter().map(|found| row::get(found, 0)).collect::<Outcome<Vec<i32>>>()?;
    let (firsts, pasts): (Vec<i64>, Vec<i64>) = days.iter().map(|day| keys_of_day(*day)).map(|keys| (keys.from, keys.to)).unzip();
    let sql = "SELECT number FROM unnest($1, $2, $3) AS day (number, first, past) \
         WHERE NOT EXISTS (SELECT 1 FROM queue WHERE message >= first AND message < past) \
         AND NOT EXISTS (SELECT 1 FROM retry WHERE message >= first AND message < past) ORDER BY number LIMIT 2";
    let rows = conn.query(sql, &[p(&days), p(&firsts), p(&pasts)]).await?;
    rows.iter().map(|found| row::get(found, 0)).collect()
}

/// Forgets the event ids of a day, a bounded number. True: all.
async fn forget_events(conn: &Conn, day: i32) -> Outcome<bool> {
    let keys = keys_of_day(day);
    let sql = "DELETE FROM message_event WHERE (app, event_id) IN (SELECT app, event_id FROM message_event \
         WHERE message >= $1 AND message < $2 ORDER BY message LIMIT $3 FOR UPDATE SKIP LOCKED)";
    Ok(conn.execute(sql, &[p(&keys.from), p(&keys.to), p(&ROWS_MAX)]).await? < ROWS_MAX.unsigned_abs())
}

/// Drops a day's tables, if still nothing of it waits for delivery once they are locked: a requeue has read the message by then, or
/// will not find it. `None`: not dropped, somebody else is at it or something has come up.
async fn drop_day(conn: &mut Conn, day: i32) -> Outcome<Option<u64>> {
    let keys = keys_of_day(day);
    let tx = conn.begin().await?;
    let result = async {
        let sql = "SELECT pg_try_advisory_xact_lock($1)";
        if !row::get::<bool>(&tx.query_one(sql, &[p(&DROP_LOCK)]).await?, 0)? {
            return Ok(None);
        }
        let mut bytes = 0;
        let mut names: Vec<String> = Vec::new();
        for found in tx.query(TABLES_OF_DAY, &[p(&day)]).await? {
            names.push(row::get(&found, 0)?);
            bytes += row::count(&found, 1)?;
        }
        tx.batch(&format!("SET LOCAL lock_timeout = {LOCK_MS_MAX}")).await?;
        tx.batch("LOCK TABLE message, attempt, outcome, counter IN ACCESS EXCLUSIVE MODE").await?;
        let sql = "SELECT EXISTS (SELECT 1 FROM queue WHERE message >= $1 AND message < $2) \
             OR EXISTS (SELECT 1 FROM retry WHERE message >= $1 AND message < $2)";
        if row::get(&tx.query_one(sql, &[p(&keys.from), p(&keys.to)]).await?, 0)? {
            return Ok(None);
        }
        if !names.is_empty() {
            tx.batch(&format!("DROP TABLE {}", names.join(", "))).await?;
        }
        tx.execute("DELETE FROM day WHERE number = $1", &[p(&day)]).await?;
        Ok(Some(bytes))
    }
    .await;
    tx.end(result).await
}

/// As [`drop_day`], until it has the locks or has tried long enough: long reads are not waited for with everybody behind.
async fn drop_day_patiently(conn: &mut Conn, day: i32) -> Outcome<Option<u64>> {
    for _ in 1..LOCK_TRIES {
        match drop_day(conn, day).await {
            Err(fault) if fault.code().is_some_and(|code| code.code() == "55P03" || code.code() == "40P01") => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            done => return done,
        }
    }
    drop_day(conn, day).await
}

async fn drop_old(conn: &mut Conn, oldest_kept: Timestamp, report: &mut RetentionReport) -> Outcome<()> {
    let days = finished_days(conn, day_of(oldest_kept)).await?;
    let Some(day) = days.first().copied() else { return Ok(()) };
    if !forget_events(conn, day).await? {
        report.more = true;
        return Ok(());
    }
    match drop_day_patiently(conn, day).await {
        Ok(Some(bytes)) => {
            report.segments_removed += 1;
            report.bytes_freed += bytes;
            report.more |= days.len() > 1;
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(fault) if fault.code().is_some_and(|code| code.code() == "55P03") => {
            tracing::info!(day, "an old day is in use and will be dropped later");
            Ok(())
        }
        Err(fault) => Err(fault),
    }
}

/// Empties payloads past their own expiry, a bounded number.
async fn expire_payloads(conn: &Conn, now: Timestamp, report: &mut RetentionReport) -> Outcome<()> {
    let now = now.as_millis();
    let rows = conn.query("SELECT id FROM message WHERE payload_dies_at <= $1 LIMIT $2", &[p(&now), p(&ROWS_MAX)]).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut keys = rows.iter().map(|found| row::get(found, 0)).collect::<Outcome<Vec<i64>>>()?;
    keys.sort_unstable();
    let sql = "UPDATE message SET payload = NULL, payload_dies_at = NULL WHERE id = ANY($1) AND payload_dies_at <= $2";
    report.payloads_expired += conn.execute(sql, &[p(&keys), p(&now)]).await?;
    report.more |= keys.len() as u64 >= ROWS_MAX.unsigned_abs();
    Ok(())
}

/// Forgets what has expired, a bounded number of each. What another node is deleting is left to it.
async fn forget_expired(conn: &Conn, now: Timestamp, report: &mut RetentionReport) -> Outcome<()> {
    for (table, key, column, until) in [
        ("idempotency", "key", "expires_at", now),
        ("revoked_token", "id", "expires_at", now),
        ("change", "ctid", "made_at", now.minus(CHANGES_KEPT)),
    ] {
        let sql = format!(
            "DELETE FROM {table} WHERE {key} = ANY (ARRAY (SELECT {key} FROM {table} WHERE {column} <= $1 LIMIT $2 \
             FOR UPDATE SKIP LOCKED)) AND {column} <= $1"
        );
        let gone = conn.execute(&sql, &[p(&until.as_millis()), p(&ROWS_MAX)]).await?;
        report.more |= gone >= ROWS_MAX.unsigned_abs();
    }
    Ok(())
}

/// The tables of unfinished deliveries are written and emptied all the time: where autovacuum is off or too slow, reading them would
/// take longer and longer. Outside any transaction, as the server wants it.
async fn vacuum(conn: &Conn) -> Outcome<()> {
    let sql = "SELECT relname::text FROM pg_stat_user_tables WHERE relid IN \
         ('queue'::regclass, 'retry'::regclass, 'handover'::regclass) AND n_dead_tup > $1 + n_live_tup";
    for found in conn.query(sql, &[p(&DEAD_ROWS_MAX)]).await? {
        let table: &str = row::get(&found, 0)?;
        tracing::info!(table, "dead rows have piled up; vacuuming");
        conn.query_within(VACUUM_MAX, &format!("VACUUM (SKIP_LOCKED, ANALYZE) {table}"), &[]).await?;
    }
    Ok(())
}

async fn prepare(conn: &mut Conn, now: Timestamp) -> Outcome<()> {
    let today = day_of(now);
    partition::ensure(conn, (today..=today.saturating_add(DAYS_AHEAD)).collect()).await
}

async fn retain(conn: &mut Conn, now: Timestamp, retention: Duration) -> Outcome<RetentionReport> {
    let mut report = RetentionReport::default();
    prepare(conn, now).await?;
    // First what frees most.
    drop_old(conn, now.minus(retention), &mut report).await?;
    expire_payloads(conn, now, &mut report).await?;
    forget_expired(conn, now, &mut report).await?;
    vacuum(conn).await?;
    Ok(report)
}

/// The largest key of an attempt. Attempts are only ever added, so the newest stand at the ends of their tables; no index knows them,
/// since it would cost every attempt something. To be off by the last few is harmless: ids hold the node's number too.
async fn last_attempt(conn: &Conn) -> Outcome<i64> {
    let sql = "SELECT child.oid::regclass::text, pg_relation_size(child.oid) / current_setting('block_size')::bigint FROM pg_inherits \
         JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = 'attempt'::regclass AND pg_relation_size(child.oid) > 0 \
         ORDER BY child.relname DESC LIMIT $1";
    let mut parts = Vec::new();
    for found in conn.query(sql, &[p(&TAIL_TABLES)]).await? {
        let (name, pages): (&str, i64) = (row::get(&found, 0)?, row::get(&found, 1)?);
        let from = pages.saturating_sub(TAIL_PAGES).max(0);
        parts.push(format!("SELECT max(id) AS id FROM {name} WHERE ctid >= '({from},0)'::tid"));
    }
    if parts.is_empty() {
        return Ok(0);
    }
    let sql = format!("SELECT coalesce(max(id), 0) FROM ({}) AS newest", parts.join(" UNION ALL "));
    row::get(&conn.query_one(&sql, &[]).await?, 0)
}

async fn last_key(conn: &Conn) -> Outcome<i64> {
    let sql = "SELECT greatest(0, (SELECT max(id) FROM application), (SELECT max(id) FROM endpoint), (SELECT max(id) FROM api_key), \
         (SELECT max(id) FROM task), (SELECT max(id) FROM source), (SELECT max(id) FROM receipt), (SELECT id FROM message ORDER BY id DESC LIMIT 1))";
    let last: i64 = row::get(&conn.query_one(sql, &[]).await?, 0)?;
    Ok(last.max(last_attempt(conn).await?))
}

/// Statements that find what should not be; each row a finding.
const FINDINGS: &[&str] = &[
    "SELECT 'index ' || indexrelid::regclass || ' is invalid: REINDEX INDEX CONCURRENTLY ' || indexrelid::regclass \
     FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid \
     WHERE NOT (indisvalid AND indisready AND indislive) AND relnamespace = current_schema()::regnamespace",
    "SELECT 'table ' || parent.relname || to_char(date '1970-01-01' + number, '\"_\"YYYYMMDD') || ' is missing, though its day is registered' \
     FROM day CROSS JOIN pg_class AS parent WHERE parent.oid IN \
     ('message'::regclass, 'attempt'::regclass, 'outcome'::regclass, 'counter'::regclass) AND NOT EXISTS \
     (SELECT 1 FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = parent.oid \
      AND child.relname = parent.relname || to_char(date '1970-01-01' + number, '\"_\"YYYYMMDD'))",
    "SELECT 'table ' || child.relname || ' is of a day that is not registered: retention will not drop it' FROM pg_inherits \
     JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent WHERE parent.oid IN \
     ('message'::regclass, 'attempt'::regclass, 'outcome'::regclass, 'counter'::regclass) AND NOT EXISTS \
     (SELECT 1 FROM day WHERE child.relname = parent.relname || to_char(date '1970-01-01' + number, '\"_\"YYYYMMDD'))",
    "SELECT 'table ' || inhrelid::regclass || ' is half detached: ALTER TABLE ' || inhparent::regclass || ' DETACH PARTITION ' \
     || inhrelid::regclass || ' FINALIZE' FROM pg_inherits WHERE inhdetachpending",
    "SELECT 'shards are owned by node ' || owner || ', which is no member' FROM shard \
     WHERE owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM node WHERE epoch = owner) GROUP BY owner",
];

/// Unfinished deliveries in `table` whose message, endpoint or application is not there: page by page.
async fn orphans(conn: &Conn, table: &str) -> Outcome<Option<String>> {
    let page = format!(
        "SELECT message, endpoint, EXISTS (SELECT 1 FROM endpoint AS e WHERE e.id = t.endpoint) \
         AND EXISTS (SELECT 1 FROM application AS a WHERE a.id = t.app) FROM {table} AS t \
         WHERE (message, endpoint) > ($1, $2) ORDER BY message, endpoint LIMIT $3"
    );
    let (mut message, mut endpoint, mut orphans, mut first) = (i64::MIN, i64::MIN, 0u64, None);
    loop {
        let rows = conn.query_within(CHECK_MAX, &page, &[p(&message), p(&endpoint), p(&CHECK_ROWS)]).await?;
        let Some(last) = rows.last() else { break };
        (message, endpoint) = (row::get(last, 0)?, row::get(last, 1)?);
        let mut keys = rows.iter().map(|found| row::get(found, 0)).collect::<Outcome<Vec<i64>>>()?;
        keys.dedup();
        let there = conn.query_within(CHECK_MAX, "SELECT id FROM message WHERE id = ANY($1) ORDER BY id", &[p(&keys)]).await?;
        let there = there.iter().map(|found| row::get(found, 0)).collect::<Outcome<Vec<i64>>>()?;
        for found in &rows {
            let key: i64 = row::get(found, 0)?;
            if there.binary_search(&key).is_err() || !row::get::<bool>(found, 2)? {
                orphans += 1;
                first.get_or_insert(key);
            }
        }
    }
    // Finished meanwhile, or dropped since: looked at again before it is said.
    let Some(first) = first else { return Ok(None) };
    let still = conn.query_opt(&format!("SELECT 1 FROM {table} WHERE message = $1"), &[p(&first)]).await?;
    Ok(still.map(|_| {
        format!("{orphans} rows of {table} belong to no message, endpoint or application; the first has message key {first}")
    }))
}

async fn check(conn: &Conn) -> Outcome<Vec<String>> {
    let mut findings = Vec::new();
    for sql in FINDINGS {
        for found in conn.query_within(CHECK_MAX, sql, &[]).await? {
            findings.push(row::get(&found, 0)?);
        }
    }
    for table in ["queue", "retry"] {
        findings.extend(orphans(conn, table).await?);
    }
    Ok(findings)
}

#[async_trait]
impl MaintenanceStore for PostgresStore {
    async fn ping(&self) -> Result<()> {
        self.writer.ping()?;
        let conn = self.db.get().await?;
        conn.query("SELECT 1", &[]).await?;
        Ok(())
    }

    async fn last_key(&self) -> Result<i64> {
        let conn = self.db.get().await?;
        Ok(last_key(&conn).await?)
    }

    async fn prepare(&self, now: Timestamp) -> Result<()> {
        let mut conn = self.db.get().await?;
        Ok(prepare(&mut conn, now).await?)
    }

    async fn retain(&self, now: Timestamp, retention: Duration) -> Result<RetentionReport> {
        let mut conn = self.db.get().await?;
        Ok(retain(&mut conn, now, retention).await?)
    }

    async fn report(&self) -> Result<StoreReport> {
        let conn = self.db.get().await?;
        let sql = "SELECT pg_database_size(current_database()), (SELECT count(*) FROM day), current_database()::text, \
             current_setting('server_version'), (SELECT to_char(date '1970-01-01' + min(number), 'YYYY-MM-DD') || ' to ' \
             || to_char(date '1970-01-01' + max(number), 'YYYY-MM-DD') FROM day)";
        let found = conn.query_one(sql, &[]).await?;
        let ((open, idle), (members, members_idle)) = (self.db.connections(), self.members.connections());
        let (open, idle) = (open + members, idle + members_idle);
        let count = |column| row::count(&found, column).map_err(StoreError::from);
        let text = |column| row::get::<Option<&str>>(&found, column).map_err(StoreError::from);
        let mut notes = vec![
            format!("PostgreSQL {}, database {}", text(3)?.unwrap_or_default(), text(2)?.unwrap_or_default()),
            format!("connections: {open} open, {idle} idle, at most {}", self.options.connections_max),
        ];
        notes.extend(text(4)?.map(|days| format!("days with tables: {days}")));
        let report = StoreReport { bytes_on_disk: count(0)?, segments: count(1)?, notes, ..StoreReport::default() };
        Ok(self.writer.report(report))
    }

    async fn check(&self) -> Result<Vec<String>> {
        let conn = self.db.get().await?;
        Ok(check(&conn).await?)
    }

    async fn close(&self) -> Result<()> {
        self.writer.close().await;
        self.members.close();
        self.db.close();
        Ok(())
    }
}
