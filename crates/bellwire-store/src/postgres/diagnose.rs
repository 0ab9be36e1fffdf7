//! Whether a database and its server are fit to keep what was acknowledged: for `doctor`, and before serving.
//!
//! Ages and days are by the server's own clock here: nothing of it is stored.

use super::connection::{Conn, Db};
use super::fault::Outcome;
use super::param::p;
use super::row;
use crate::Result;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be, or of no consequence: for reading.
    Info,
    /// Works, and will cause trouble.
    Warn,
    /// Acknowledged messages may be lost, or nothing will work: not to be served from.
    Refuse,
}

/// One thing found: what it is, its value and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub text: String,
}

/// The oldest server that has all that the statements use.
const VERSION_MIN: i32 = 150_000;
/// A transaction open for longer keeps dead rows from being cleared away.
const LONG_TRANSACTION_SECONDS: i64 = 60;
/// A standby further behind than this would lose much, or hold commits up.
const LAG_BYTES_MAX: i64 = 64 * 1024 * 1024;
const LAG_SECONDS_MAX: f64 = 10.0;
/// Write-ahead log kept for a slot that nobody reads.
const SLOT_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// Of two thousand million transactions until the server stops itself; autovacuum begins at a tenth of that.
const WRAPAROUND_WARN: i64 = 600_000_000;
/// Below this, statements and locks of ours would be cut short.
const TIMEOUT_MS_MIN: i64 = 10_000;
/// Locks a list over three months of days may hold, times as many lists at once as there are connections.
const LOCKS_MIN: i64 = 6_400;
/// Of the connections there are, in percent.
const CONNECTIONS_WARN_PERCENT: i64 = 80;

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, text: impl Into<String>) {
        self.0.push(Finding { severity, text: text.into() });
    }

    fn info(&mut self, text: impl Into<String>) {
        self.add(Severity::Info, text);
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.add(Severity::Warn, text);
    }

    fn refuse(&mut self, text: impl Into<String>) {
        self.add(Severity::Refuse, text);
    }
}

/// Looks at the database and its server, worst findings first. Changes nothing; the store need not be there yet.
///
/// # Errors
/// [`crate::StoreError::Unavailable`] if the server cannot be reached or is a standby; [`crate::StoreError::Io`] if the address
/// cannot be read.
pub async fn diagnose(url: &str) -> Result<Vec<Finding>> {
    let db = Db::new(url, 2)?;
    let found = look(&db).await;
    db.close();
    let mut found = found?.0;
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(found)
}

async fn look(db: &Db) -> Outcome<Findings> {
    let conn = db.get().await?;
    let mut findings = Findings::default();
    if !server(&conn, &mut findings).await? {
        // What follows asks for what older ones do not know.
        return Ok(findings);
    }
    durability(&conn, &mut findings).await?;
    settings(&conn, &mut findings).await?;
    standbys(&conn, &mut findings).await?;
    slots(&conn, &mut findings).await?;
    transactions(&conn, &mut findings).await?;
    wraparound(&conn, &mut findings).await?;
    connections(&conn, &mut findings).await?;
    partitions(&conn, &mut findings).await?;
    drop(conn);
    pooler(db, &mut findings).await?;
    Ok(findings)
}

async fn text(conn: &Conn, setting: &str) -> Outcome<String> {
    let found = conn.query_one("SELECT coalesce(current_setting($1, true), '')", &[p(&setting)]).await?;
    row::get(&found, 0)
}

/// A setting in its unit, as the server counts it.
async fn number(conn: &Conn, setting: &str) -> Outcome<i64> {
    let found = conn.query_opt("SELECT setting::bigint FROM pg_settings WHERE name = $1", &[p(&setting)]).await?;
    found.map_or(Ok(0), |found| row::get(&found, 0))
}

/// Version and encoding. False: too old to be asked more.
async fn server(conn: &Conn, findings: &mut Findings) -> Outcome<bool> {
    let sql = "SELECT current_setting('server_version_num')::integer, current_setting('server_version'), \
         pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()";
    let found = conn.query_one(sql, &[]).await?;
    let (version, name, encoding): (i32, &str, &str) = (row::get(&found, 0)?, row::get(&found, 1)?, row::get(&found, 2)?);
    if version < VERSION_MIN {
        findings.refuse(format!("the server is PostgreSQL {name}; 15 or newer is needed: upgrade it"));
        return Ok(false);
    }
    findings.info(format!("PostgreSQL {name}"));
    if encoding != "UTF8" {
        findings.refuse(format!(
            "the database's encoding is {encoding}, which cannot hold every text: create it with ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    Ok(true)
}

/// What decides whether an acknowledged message survives a crash.
async fn durability(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    if text(conn, "fsync").await? == "off" {
        findings.refuse(
            "fsync is off: a crash of the server loses or destroys what was acknowledged. Set fsync = on in postgresql.conf; \
             after running without it, dump and restore",
        );
    }
    if text(conn, "full_page_writes").await? == "off" {
        findings.refuse("full_page_writes is off: a crash may leave torn pages. Set full_page_writes = on in postgresql.conf");
    }
    let commit = text(conn, "synchronous_commit").await?;
    match commit.as_str() {
        "on" | "remote_apply" => findings.info(format!("synchronous_commit is {commit}")),
        "off" => findings.refuse(
            "synchronous_commit is off: commits are answered before they are on disk, and a crash loses them. Accepted are \
             on and remote_apply: remove the setting, or ALTER ROLE … SET synchronous_commit = on",
        ),
        other => findings.refuse(format!(
            "synchronous_commit is {other}: commits are answered before a synchronous standby has them on its disk, and a failover \
             loses them. Accepted are on and remote_apply: remove the setting, or ALTER ROLE … SET synchronous_commit = on"
        )),
    }
    Ok(())
}

/// Settings that statements rest on, or that would cut them short.
async fn settings(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    let isolation = text(conn, "default_transaction_isolation").await?;
    if isolation != "read committed" {
        findings.refuse(format!(
            "default_transaction_isolation is {isolation}; statements rest on read committed: \
             ALTER ROLE … SET default_transaction_isolation = 'read committed'"
        ));
    }
    for setting in ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"] {
        let ms = number(conn, setting).await?;
        if ms > 0 && ms < TIMEOUT_MS_MIN {
            findings.warn(format!(
                "{setting} is {ms} ms: what takes longer fails, though it would be waited for. Bellwire has time limits of its own: \
                 set it to 0 for its role, or to {TIMEOUT_MS_MIN} ms or more"
            ));
        }
    }
    if text(conn, "autovacuum").await? == "off" {
        findings
            .warn("autovacuum is off: tables grow, and at last the server stops itself. Set autovacuum = on in postgresql.conf");
    }
    let locks = number(conn, "max_locks_per_transaction").await?
        * (number(conn, "max_connections").await? + number(conn, "max_prepared_transactions").await?);
    if locks < LOCKS_MIN {
        findings.warn(format!(
            "the server has room for {locks} locks; lists over many days take some hundred each: raise max_locks_per_transaction \
             so that it, times max_connections, is {LOCKS_MIN} or more"
        ));
    }
    Ok(())
}

async fn standbys(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    let names = text(conn, "synchronous_standby_names").await?;
    let sql = "SELECT coalesce(nullif(application_name, ''), 'without a name')::text, coalesce(state, 'state not shown to this role')::text, \
         coalesce(sync_state, 'unknown')::text, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint, \
         extract(epoch FROM replay_lag)::float8 FROM pg_stat_replication ORDER BY 1";
    let mut has_synchronous = false;
    for found in conn.query(sql, &[]).await? {
        let (name, state, sync): (&str, &str, &str) = (row::get(&found, 0)?, row::get(&found, 1)?, row::get(&found, 2)?);
        has_synchronous |= sync == "sync" || sync == "quorum";
        let bytes: Option<i64> = row::get(&found, 3)?;
        let seconds: Option<f64> = row::get(&found, 4)?;
        let lag = match (bytes, seconds) {
            (Some(bytes), Some(seconds)) => format!("{bytes} bytes and {seconds:.1} s behind"),
            (Some(bytes), None) => format!("{bytes} bytes behind"),
            _ => "lag not shown to this role (GRANT pg_monitor TO it)".to_owned(),
        };
        let text = format!("standby {name}: {state}, {sync}, {lag}");
        if bytes.is_some_and(|bytes| bytes > LAG_BYTES_MAX) || seconds.is_some_and(|seconds| seconds > LAG_SECONDS_MAX) {
            findings.warn(format!("{text}: see its disk, its network, and queries on it that hold replay up"));
        } else {
            findings.info(text);
        }
    }
    if names.is_empty() {
        findings.warn(
            "there is no synchronous standby: what was acknowledged stands on one machine alone, and a failover loses the newest. \
             Set synchronous_standby_names on the primary, for example to 'ANY 1 (*)' with two standbys",
        );
    } else if !has_synchronous {
        findings.warn(format!(
            "synchronous_standby_names is {names:?}, but no such standby is connected: commits wait for one. Start it, or \
             correct the name"
        ));
    }
    Ok(())
}

async fn slots(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    let sql = "SELECT slot_name::text, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots \
         WHERE NOT active AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > $1";
    for found in conn.query(sql, &[p(&SLOT_BYTES_MAX)]).await? {
        let (name, bytes): (&str, i64) = (row::get(&found, 0)?, row::get(&found, 1)?);
        findings.warn(format!(
            "replication slot {name} is read by nobody and keeps {bytes} bytes of log: start its standby, or drop it with \
             pg_drop_replication_slot before the disk is full"
        ));
    }
    Ok(())
}

async fn transactions(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    let sql = "SELECT pid, coalesce(usename, '?')::text, coalesce(application_name, '')::text, coalesce(state, '?')::text, \
         extract(epoch FROM clock_timestamp() - xact_start)::float8 FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender') \
         AND extract(epoch FROM clock_timestamp() - xact_start) > $1 ORDER BY xact_start LIMIT 10";
    for found in conn.query(sql, &[p(&LONG_TRANSACTION_SECONDS)]).await? {
        let (pid, user, name, state): (i32, &str, &str, &str) =
            (row::get(&found, 0)?, row::get(&found, 1)?, row::get(&found, 2)?, row::get(&found, 3)?);
        let seconds: f64 = row::get(&found, 4)?;
        findings.warn(format!(
            "process {pid} ({user}, {name:?}) has had a transaction open for {seconds:.0} s ({state}): dead rows stay as long. End it, \
             or pg_terminate_backend({pid})"
        ));
    }
    let sql = "SELECT gid::text, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts \
         WHERE extract(epoch FROM clock_timestamp() - prepared) > $1 ORDER BY prepared LIMIT 10";
    for found in conn.query(sql, &[p(&LONG_TRANSACTION_SECONDS)]).await? {
        let (gid, seconds): (&str, f64) = (row::get(&found, 0)?, row::get(&found, 1)?);
        findings.warn(format!(
            "transaction {gid:?} was prepared {seconds:.0} s ago and never ended: COMMIT PREPARED or ROLLBACK PREPARED it"
        ));
    }
    Ok(())
}

async fn wraparound(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    let sql = "SELECT max(age(datfrozenxid))::bigint, max(mxid_age(datminmxid))::bigint FROM pg_database";
    let found = conn.query_one(sql, &[]).await?;
    for (column, what) in [(0, "transaction ids"), (1, "multixact ids")] {
        let age: i64 = row::get(&found, column)?;
        if age > WRAPAROUND_WARN {
            findings.warn(format!(
                "the oldest {what} are {age} old; at 2000000000 the server stops itself. VACUUM (FREEZE) the databases, and end what \
                 keeps it from working: old transactions, prepared ones, replication slots"
            ));
        } else {
            findings.info(format!("the oldest {what} are {age} old, of 2000000000"));
        }
    }
    Ok(())
}

async fn connections(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    let sql = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
         current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint, \
         (SELECT rolconnlimit::bigint FROM pg_roles WHERE rolname = current_user), \
         (SELECT datconnlimit::bigint FROM pg_database WHERE datname = current_database())";
    let found = conn.query_one(sql, &[]).await?;
    let (used, most): (i64, i64) = (row::get(&found, 0)?, row::get(&found, 1)?);
    let text = format!("{used} of {most} connections are in use");
    if used * 100 > most * CONNECTIONS_WARN_PERCENT {
        findings.warn(format!("{text}: raise max_connections, or put PgBouncer in between (transaction mode will do)"));
    } else {
        findings.info(text);
    }
    for (column, of, how) in [(2, "role", "ALTER ROLE … CONNECTION LIMIT"), (3, "database", "ALTER DATABASE … CONNECTION LIMIT")]
    {
        if let Some(limit) = row::get::<Option<i64>>(&found, column)?.filter(|limit| *limit >= 0) {
            findings.info(format!("the {of} is limited to {limit} connections ({how}); nodes take up to 16 each"));
        }
    }
    Ok(())
}

async fn partitions(conn: &Conn, findings: &mut Findings) -> Outcome<()> {
    if !row::get::<bool>(&conn.query_one("SELECT to_regclass('day') IS NOT NULL", &[]).await?, 0)? {
        findings.info("there is no store in this database yet");
        return Ok(());
    }
    let sql = "SELECT count(*), to_char(date '1970-01-01' + min(number), 'YYYY-MM-DD'), \
         to_char(date '1970-01-01' + max(number), 'YYYY-MM-DD'), max(number) - floor(extract(epoch FROM clock_timestamp()) / 86400)::bigint FROM day";
    let found = conn.query_one(sql, &[]).await?;
    let days: i64 = row::get(&found, 0)?;
    if days == 0 {
        findings.info("no day has its tables yet: a node that serves makes them");
        return Ok(());
    }
    let (first, last): (&str, &str) = (row::get(&found, 1)?, row::get(&found, 2)?);
    let ahead: i64 = row::get(&found, 3)?;
    let text = format!("{days} days have tables, {first} to {last}");
    if ahead < 1 {
        findings.warn(format!(
            "{text}, none of them ahead: a node that serves makes them, so none has served lately, or retention fails (see its log)"
        ));
    } else {
        findings.info(format!("{text}, {ahead} of them ahead"));
    }
    Ok(())
}

async fn pooler(db: &Db, findings: &mut Findings) -> Outcome<()> {
    if db.is_pooled().await? {
        findings.info("a pooler in transaction mode stands in between; that is all right");
    }
    Ok(())
}
