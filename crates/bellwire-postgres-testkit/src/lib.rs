//! A real PostgreSQL for tests: one server for each test binary, a fresh database for each test.
//!
//! The server is started by `scripts/postgres` on first use and ends with the process: the script runs until the pipe to its
//! standard input is closed, which the kernel does however the process ends. `BELLWIRE_TEST_POSTGRES` (the URL of a
//! server where databases may be made) wins; databases made there stay.
//!
//! Depends on nothing of ours, so that every crate's tests may use it.
#![allow(clippy::expect_used)] // A test that has no database fails by panicking.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Set to the URL of a running server: no other is started.
pub const SERVER_VARIABLE: &str = "BELLWIRE_TEST_POSTGRES";
/// For how long a template may still be in use by connections that are being closed.
const TEMPLATE_WAIT: Duration = Duration::from_secs(10);
const TEMPLATE_POLL: Duration = Duration::from_millis(50);

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    admin_url: String,
    /// The script that runs the server. Its standard input is held open for as long as this lives.
    script: Option<Child>,
}

impl Postgres {
    /// The server of this process, started on first use.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var(SERVER_VARIABLE) {
            Ok(admin_url) if !admin_url.is_empty() => Self { admin_url, script: None },
            _ => Self::start(),
        })
    }

    /// A server of its own, for tests that stop it or load it. It ends when this is dropped, or with the process.
    pub fn start() -> Self {
        let mut script = Command::new(script_path())
            .arg("run")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/postgres can be run");
        let mut url = String::new();
        let output = script.stdout.take().expect("the pipe asked for");
        BufReader::new(output).read_line(&mut url).expect("a line from scripts/postgres");
        assert!(url.ends_with('\n'), "scripts/postgres did not start a server (see above); it printed {url:?}");
        Self { admin_url: url.trim_end().to_owned(), script: Some(script) }
    }

    /// The URL of the database `postgres` (or of the one named in `BELLWIRE_TEST_POSTGRES`), as a user who may make databases.
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// The URL of the database of this name.
    pub fn url(&self, name: &str) -> String {
        with_database(&self.admin_url, name)
    }

    /// Makes an empty database that nobody else uses. Returns its URL.
    pub fn create_database(&self) -> String {
        let name = fresh_name();
        self.sql(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")).expect("a fresh database");
        self.url(&name)
    }

    /// Makes a copy of a database (its name or its URL), to which nobody may be connected. Returns its URL.
    pub fn create_database_from(&self, template: &str) -> String {
        let (name, template) = (fresh_name(), database_of(template));
        let deadline = Instant::now() + TEMPLATE_WAIT;
        loop {
            match self.sql(&format!("CREATE DATABASE {name} TEMPLATE {template}")) {
                Ok(_) => return self.url(&name),
                // Connections end a moment after their client has gone; nothing tells when.
                Err(fault) if fault.contains("being accessed by other users") && Instant::now() < deadline => {
                    std::thread::sleep(TEMPLATE_POLL);
                }
                Err(fault) => panic!("a copy of the database {template}: {fault}"),
            }
        }
    }

    /// Drops a database (its name or its URL), whoever is connected to it.
    pub fn drop_database(&self, database: &str) {
        self.sql(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", database_of(database))).expect("a dropped database");
    }

    /// Runs one statement in the database of [`Self::admin_url`].
    fn sql(&self, statement: &str) -> Result<String, String> {
        query(&self.admin_url, statement)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(script) = &mut self.script {
            drop(script.stdin.take());
            // Its folder is gone when it has ended.
            let _ = script.wait();
        }
    }
}

/// Runs one statement through `psql` and returns its rows as lines, columns with `|` between them; else what went wrong.
pub fn query(url: &str, statement: &str) -> Result<String, String> {
    let output = Command::new(script_path())
        .args(["sql", url, statement])
        .stdin(Stdio::null())
        .output()
        .map_err(|fault| format!("scripts/postgres cannot be run: {fault}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn script_path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "scripts", "postgres"].iter().collect()
}

/// A name no other process on this machine uses.
fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("bellwire_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `postgres://user@host:port/database?settings` with another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, settings) = url.split_once('?').map_or((url, None), |(address, settings)| (address, Some(settings)));
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find('/').map_or(address.len(), |at| start + at);
    let settings = settings.map(|settings| format!("?{settings}")).unwrap_or_default();
    format!("{}/{name}{settings}", &address[..end])
}

fn database_of(url_or_name: &str) -> &str {
    let Some((_, rest)) = url_or_name.split_once("://") else { return url_or_name };
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    path.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, tests connect to a database they did not make, or lose how to connect.
    #[test]
    fn a_url_keeps_everything_but_the_database() {
        assert_eq!(with_database("postgres://u@h:5/postgres", "a"), "postgres://u@h:5/a");
        assert_eq!(
            with_database("postgres://u:p%2F@h:5,g:6/x?sslmode=require", "a"),
            "postgres://u:p%2F@h:5,g:6/a?sslmode=require"
        );
        assert_eq!(with_database("postgres://h", "a"), "postgres://h/a");
        assert_eq!(database_of("postgres://u@h:5/name?x=y"), "name");
        assert_eq!(database_of("name"), "name");
    }
}
