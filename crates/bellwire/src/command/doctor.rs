//! `bellwire doctor`: one line for each check, `ok`, `warn` or `FAIL`; exit code 1 on a FAIL. It changes nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwire_core::id::key_to_timestamp;
use bellwire_core::time::format_duration;
use bellwire_core::{Clock as _, Secret, SystemClock, Timestamp};
use bellwire_store::postgres::diagnose::{Severity, diagnose};
use bellwire_store::{Store, StoreError};
use clap::Args;

use crate::cli::ConfigArgs;
use crate::config::storage::Backend;
use crate::config::{Config, ConfigError};
use crate::exit::Exit;
use crate::{bench, terminal, vault};

/// Below this a day of webhooks may not fit; below the other one a group of commits may not.
const SPACE_BYTES_WARN: u64 = 1024 * 1024 * 1024;
const SPACE_BYTES_FAIL: u64 = 64 * 1024 * 1024;
/// A thousand receivers and a thousand callers.
const OPEN_FILES_WARN: u64 = 4_096;
/// HS256 keys should be as long as their hash (RFC 7518, section 3.2).
const JWT_SECRET_BYTES_WARN: usize = 32;
/// 2025-01-01: a clock before it was never set, and receivers refuse signatures more than five minutes off.
const CLOCK_EARLIEST: Timestamp = Timestamp(1_735_689_600_000);

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, serde::Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    text: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, verdict: Verdict, text: impl Into<String>) {
        self.0.push(Finding { check, verdict, text: text.into() });
    }
}

/// # Errors
/// Standard output is closed. Whatever is wrong with the set-up is a finding, not an error.
pub async fn run(args: &DoctorArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let mut findings = Findings::default();
    let loaded = config.sources(&[]).and_then(|sources| Config::load(&sources));
    match &loaded {
        Ok(config) => {
            findings.add("configuration", Verdict::Ok, "valid");
            check_configuration(config, &mut findings);
            if let Backend::Sqlite(folder) = &config.storage.backend {
                check_disk(folder, &mut findings);
            }
            check_store(config, &mut findings).await;
        }
        Err(error) => findings.add("configuration", Verdict::Fail, ConfigError::to_string(error)),
    }
    check_clock(SystemClock.now(), &mut findings);
    check_open_files(&mut findings);
    show(&findings.0, args.json)?;
    let has_failed = findings.0.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(if has_failed { Exit::Failure } else { Exit::Ok })
}

fn show(findings: &[Finding], json: bool) -> anyhow::Result<()> {
    if json {
        terminal::line(&serde_json::to_string_pretty(findings)?)?;
        return Ok(());
    }
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        terminal::line(&format!("{verdict}  {:<13}  {}", finding.check, terminal::escaped(&finding.text)))?;
    }
    Ok(())
}

fn check_configuration(config: &Config, findings: &mut Findings) {
    let listen = config.server.listen;
    if listen.ip().is_loopback() {
        findings.add("listen", Verdict::Ok, format!("{listen}: programs of this machine only"));
    } else {
        findings.add(
            "listen",
            Verdict::Warn,
            format!("{listen}: reachable from elsewhere without TLS; put a TLS proxy before it"),
        );
    }
    let egress = &config.egress.policy;
    if egress.allow_metadata {
        findings.add(
            "egress",
            Verdict::Warn,
            "egress.allow_metadata is on: an endpoint may read the machine's cloud credentials",
        );
    } else if egress.allow.is_empty() && egress.allow_names.is_empty() {
        findings.add("egress", Verdict::Ok, "public destinations only");
    } else {
        let nets = egress.allow.iter().map(ToString::to_string).chain(egress.allow_names.iter().cloned());
        let list = nets.collect::<Vec<_>>().join(", ");
        findings.add("egress", Verdict::Warn, format!("egress.allow opens {list} to everyone who may create an endpoint"));
    }
    if let Some(secret) = &config.auth.jwt_secret {
        let bytes = secret.expose().len();
        if bytes < JWT_SECRET_BYTES_WARN {
            let text = format!("auth.jwt_secret is {bytes} bytes; use {JWT_SECRET_BYTES_WARN} random ones or more (RFC 7518)");
            findings.add("tokens", Verdict::Warn, text);
        } else {
            findings.add("tokens", Verdict::Ok, "auth.jwt_secret is long enough");
        }
    }
    findings.add("retention", Verdict::Ok, format!("messages are kept for {}", format_duration(config.storage.retention)));
}

fn check_disk(store: &Path, findings: &mut Findings) {
    let folder = existing(store);
    match rustix::fs::statvfs(&folder) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let text = format!("{} MiB free for {}", terminal::thousands(free >> 20), store.display());
            let verdict = match free {
                free if free < SPACE_BYTES_FAIL => Verdict::Fail,
                free if free < SPACE_BYTES_WARN => Verdict::Warn,
                _ => Verdict::Ok,
            };
            findings.add("disk space", verdict, text);
        }
        Err(error) => findings.add("disk space", Verdict::Fail, format!("{}: {error}", folder.display())),
    }
    if bench::process::is_in_memory(&folder) {
        findings.add(
            "disk",
            Verdict::Warn,
            format!("{} is in memory: everything is lost when the machine restarts", folder.display()),
        );
    }
    if rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK).is_err() {
        findings.add("disk", Verdict::Fail, format!("{} cannot be written by this user", folder.display()));
    }
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    folder.ancestors().find(|path| path.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

async fn check_store(config: &Config, findings: &mut Findings) {
    if let Backend::Postgres(url) = &config.storage.backend
        && !check_database(url, findings).await
    {
        return;
    }
    match vault::is_there(&config.storage.backend).await {
        Ok(true) => {}
        Ok(false) => {
            let text = format!("none in {} yet; `bellwire serve` makes it", config.storage.backend);
            findings.add("store", Verdict::Ok, text);
            return;
        }
        Err(error) => {
            findings.add("store", Verdict::Fail, crate::exit::text_of(&error));
            return;
        }
    }
    check_master_key(config, findings);
    let (_, store) = match vault::open(&vault::Place::of(config), Duration::ZERO).await {
        Ok(opened) => opened,
        Err(error) => {
            match error.downcast_ref::<StoreError>() {
                Some(StoreError::Locked { .. }) => {
                    findings.add("lock", Verdict::Ok, "a running server holds the store; stop it to have every page checked");
                }
                _ => findings.add("store", Verdict::Fail, crate::exit::text_of(&error)),
            }
            return;
        }
    };
    if !store.is_shared() {
        findings.add("lock", Verdict::Ok, "free: no server is running on this store");
    }
    examine(store.as_ref(), findings).await;
    if let Err(error) = store.close().await {
        findings.add("store", Verdict::Fail, format!("does not close cleanly: {error}"));
    }
}

/// The database server's settings and state. False: it does not answer.
async fn check_database(url: &Secret, findings: &mut Findings) -> bool {
    match diagnose(url.expose()).await {
        Ok(found) => {
            for finding in found {
                let verdict = match finding.severity {
                    Severity::Refuse => Verdict::Fail,
                    Severity::Warn => Verdict::Warn,
                    Severity::Info => Verdict::Ok,
                };
                findings.add("database", verdict, finding.text);
            }
            true
        }
        Err(error) => {
            findings.add("database", Verdict::Fail, error.to_string());
            false
        }
    }
}

async fn examine(store: &dyn Store, findings: &mut Findings) {
    match store.check().await {
        Ok(faults) if faults.is_empty() && store.is_shared() => findings.add("store", Verdict::Ok, "its tables are sound"),
        Ok(faults) if faults.is_empty() => findings.add("store", Verdict::Ok, "every file is sound"),
        Ok(faults) => faults.into_iter().for_each(|fault| findings.add("store", Verdict::Fail, fault)),
        Err(error) => findings.add("store", Verdict::Fail, error.to_string()),
    }
    if let Ok(report) = store.report().await {
        let parts = if store.is_shared() { "days" } else { "segments" };
        let size = format!("{} MiB in {} {parts}", terminal::thousands(report.bytes_on_disk >> 20), report.segments);
        findings.add("store", if report.is_full { Verdict::Fail } else { Verdict::Ok }, size);
        report.notes.into_iter().for_each(|note| findings.add("store", Verdict::Ok, note));
    }
    match store.count_unfinished().await {
        Ok((first, retries)) => {
            let text = format!(
                "{} first tries and {} retries are outstanding",
                terminal::thousands(first),
                terminal::thousands(retries)
            );
            findings.add("deliveries", Verdict::Ok, text);
        }
        Err(error) => findings.add("deliveries", Verdict::Fail, error.to_string()),
    }
    if let Ok(key) = store.last_key().await
        && key > 0
    {
        let (newest, now) = (key_to_timestamp(key), SystemClock.now());
        let ahead = newest.since(now);
        if ahead > Duration::from_secs(5) {
            let text = format!(
                "the store's newest id is {} ahead of the clock ({newest}): the clock was set back",
                format_duration(ahead)
            );
            findings.add("clock", Verdict::Fail, text);
        }
    }
}

fn check_master_key(config: &Config, findings: &mut Findings) {
    use std::os::unix::fs::PermissionsExt as _;
    if config.security.master_key.is_some() {
        findings.add("master key", Verdict::Ok, "configured");
        return;
    }
    let path = vault::key_path(&config.server.data_dir);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            findings.add("master key", Verdict::Warn, format!("{} is readable by others; chmod 600 it", path.display()));
        }
        Ok(_) => findings.add(
            "master key",
            Verdict::Ok,
            format!("{}: keep a copy of it apart from the store's backups", path.display()),
        ),
        // Opening the store says it in full.
        Err(_) => {}
    }
}

fn check_clock(now: Timestamp, findings: &mut Findings) {
    if now < CLOCK_EARLIEST {
        findings.add("clock", Verdict::Fail, format!("it is {now} by this machine: receivers will refuse what is signed"));
    } else {
        findings.add("clock", Verdict::Ok, format!("it is {now} by this machine; receivers tolerate five minutes"));
    }
}

fn check_open_files(findings: &mut Findings) {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < OPEN_FILES_WARN => {
            findings.add(
                "open files",
                Verdict::Warn,
                format!("at most {limit}; raise the limit (ulimit -Hn, LimitNOFILE) for many receivers"),
            );
        }
        Some(limit) => findings.add("open files", Verdict::Ok, format!("at most {limit}")),
        None => findings.add("open files", Verdict::Ok, "no limit"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: a machine whose clock was never set looks healthy, and every signature is refused.
    #[test]
    fn a_clock_that_was_never_set_is_a_failure() {
        let mut findings = Findings::default();
        check_clock(Timestamp(0), &mut findings);
        check_clock(Timestamp(1_763_683_200_000), &mut findings);
        assert_eq!(findings.0.iter().map(|finding| finding.verdict).collect::<Vec<_>>(), [Verdict::Fail, Verdict::Ok]);
    }

    #[test]
    fn space_is_measured_where_the_folder_will_be() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing(&folder.path().join("a/b")), std::path::absolute(folder.path()).unwrap());
    }
}
