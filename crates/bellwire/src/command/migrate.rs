//! `bellwire migrate`: moves the embedded store into a PostgreSQL database. Whoever interrupts it runs it again, and it goes on.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bellwire_store::postgres::{PostgresOptions, PostgresStore};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::transfer::{self, Phase, Progress, Report};
use bellwire_store::{Cipher, MaintenanceStore as _};
use clap::Args;

use super::load;
use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::config::storage::{Backend, parse_url};
use crate::exit::{Exit, Failure};
use crate::signal::Signals;
use crate::{telemetry, terminal, vault};

/// Between two updates of the bar, and between two lines where there is no terminal.
const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Characters of the bar.
const BAR_WIDTH: u64 = 30;

#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The store to move: sqlite:// and its folder. No server may be running on it
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// An empty database, or the one of an interrupted move: postgres://user@host/database; default: `storage.url`
    /// (BELLWIRE_STORAGE__URL), where a password is safer
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// Print JSON: the rows of each table
    #[arg(long)]
    pub json: bool,
}

/// The errors show nothing of what was given: it may hold a password.
fn folder(text: &str) -> anyhow::Result<PathBuf> {
    match parse_url(text) {
        Ok(Backend::Sqlite(folder)) => Ok(folder),
        _ => Err(Failure::new(Exit::Usage, "--from must be sqlite:// and a folder: only the embedded store can be moved").into()),
    }
}

fn database(text: &str) -> anyhow::Result<Backend> {
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    match parse_url(text) {
        Ok(backend @ Backend::Postgres(_)) => Ok(backend),
        Err(problem) if is_postgres => Err(Failure::new(Exit::Usage, format!("--to {problem}")).into()),
        _ => Err(Failure::new(Exit::Usage, "--to must be postgres://user@host/database").into()),
    }
}

/// # Errors
/// The source is in use, missing or sealed with another key; the target is not empty, belongs to another move, or is not safe; what
/// arrived differs from what was sent.
pub async fn run(args: &MigrateArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let from = folder(&args.from)?;
    let config = load(config)?;
    telemetry::start(&config.log);
    let to = match &args.to {
        Some(text) => database(text)?,
        None => config.storage.backend.clone(),
    };
    let Backend::Postgres(url) = &to else {
        let text = "the target is not a PostgreSQL database: give --to postgres://user@host/database, or set storage.url";
        return Err(Failure::new(Exit::Usage, text).into());
    };
    if !vault::has_store(&from) {
        let text = format!("there is no store in {}: give --from sqlite:// and the folder that has control.db", from.display());
        return Err(Failure::new(Exit::Failure, text).into());
    }
    let mut signals = Signals::install()?;
    let cipher = Cipher::new(key_of(&from, &config)?);
    vault::judge(&to, Duration::ZERO).await?;
    let retention = config.storage.retention;
    let source = SqliteStore::open(SqliteOptions::new(&from, cipher.clone()).with_retention(retention))
        .with_context(|| format!("the source {} cannot be opened", from.display()))?;
    let options = PostgresOptions { is_move_target: true, retention, ..PostgresOptions::new(url.expose(), cipher) };
    let target = PostgresStore::open(options).await.with_context(|| format!("the target {to} cannot be opened"))?;
    let mut shown = Shown::new(args.json);
    let mut show = |progress: Progress| shown.show(&progress);
    let report = tokio::select! {
        report = transfer::run(&source, &target, &mut show) => Some(report),
        _ = signals.next() => None,
    };
    shown.end();
    target.close().await?;
    source.close().await?;
    let Some(report) = report else {
        let text = "interrupted; what was moved is kept: run the same command again, and it goes on";
        return Err(Failure::new(Exit::Failure, text).into());
    };
    tell(&report?, args.json, &from, &to, &config)?;
    Ok(Exit::Ok)
}

/// The key that the source was made with: the configured one, or the one in its own folder, or in the data folder.
fn key_of(from: &Path, config: &Config) -> anyhow::Result<[u8; 32]> {
    if let Some(key) = &config.security.master_key {
        return Ok(key.0);
    }
    let beside = if vault::key_path(from).exists() { from } else { config.server.data_dir.as_path() };
    Ok(vault::existing_key(beside)
        .with_context(|| {
            format!("the master key of {} is needed to check that both stores can read its secrets", from.display())
        })?
        .0)
}

fn tell(report: &Report, is_json: bool, from: &Path, to: &Backend, config: &Config) -> anyhow::Result<()> {
    if is_json {
        let tables: serde_json::Map<String, serde_json::Value> =
            report.tables.iter().map(|(name, rows)| ((*name).to_owned(), (*rows).into())).collect();
        terminal::line(&serde_json::json!({ "tables": tables, "wasResumed": report.was_resumed }).to_string())?;
        return Ok(());
    }
    let rows = report.tables.iter().map(|(name, rows)| vec![(*name).to_owned(), terminal::thousands(*rows)]);
    terminal::line(&terminal::table(&["TABLE", "ROWS"], rows))?;
    terminal::line(&format!(
        "\nEverything is in {to} and was read back. {} stays as it was: start no server on it any more, or what it still has to \
         deliver is delivered twice.",
        from.display()
    ))?;
    let key = match config.security.master_key {
        Some(_) => "security.master_key as it is set now".to_owned(),
        None => format!("the {} that was used here in their data folder", vault::MASTER_KEY_FILE),
    };
    terminal::line(&format!("Servers on the database need its address as storage.url, and {key}."))?;
    Ok(())
}

/// Progress: a bar on a terminal, lines elsewhere; on standard error, so that standard output has the result alone.
struct Shown {
    is_quiet: bool,
    is_bar: bool,
    last: Option<(Phase, Instant)>,
}

impl Shown {
    fn new(is_quiet: bool) -> Self {
        Self { is_quiet, is_bar: std::io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, progress: &Progress) {
        let every = if self.is_bar { BAR_EVERY } else { LINE_EVERY };
        let is_due = self.last.is_none_or(|(phase, at)| phase != progress.phase || at.elapsed() >= every);
        if self.is_quiet || !(is_due || (self.is_bar && progress.done == progress.total)) {
            return;
        }
        self.last = Some((progress.phase, Instant::now()));
        let text = text(progress);
        // A closed standard error is no reason to stop.
        let mut out = std::io::stderr().lock();
        drop(if self.is_bar { write!(out, "\r\u{1b}[K{} {text}", bar(progress)) } else { writeln!(out, "{text}") });
        drop(out.flush());
    }

    fn end(&self) {
        if self.is_bar && self.last.is_some() {
            drop(writeln!(std::io::stderr().lock()));
        }
    }
}

fn text(progress: &Progress) -> String {
    let phase = match progress.phase {
        Phase::Copy => "copying",
        Phase::Compare => "reading the source again",
        Phase::Verify => "reading back",
    };
    let (done, total) = (terminal::thousands(progress.done), terminal::thousands(progress.total));
    format!("{phase} {}: {done} of {total} rows", progress.table)
}

fn bar(progress: &Progress) -> String {
    let filled = (progress.done.min(progress.total) * BAR_WIDTH).checked_div(progress.total).unwrap_or(BAR_WIDTH);
    (0..BAR_WIDTH).map(|at| if at < filled { '█' } else { '░' }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn at(done: u64, total: u64) -> Progress {
        Progress { phase: Phase::Copy, table: "message", done, total }
    }

    #[test]
    fn the_bar_fills_from_nothing_to_all() {
        let filled = |done, total| bar(&at(done, total)).chars().filter(|c| *c == '█').count();
        assert_eq!([filled(0, 10), filled(5, 10), filled(10, 10), filled(11, 10), filled(0, 0)], [0, 15, 30, 30, 30]);
        assert_eq!(text(&at(1_000, 2_000)), "copying message: 1,000 of 2,000 rows");
    }

    #[test]
    fn only_the_embedded_store_is_moved() {
        assert_eq!(folder("sqlite:///var/lib/b").unwrap(), PathBuf::from("/var/lib/b"));
        for wrong in ["postgres://joe:hunter2@db/x", "/var/lib/hunter2"] {
            let error = folder(wrong).unwrap_err().to_string();
            assert!(error.contains("sqlite://") && !error.contains("hunter2"), "{error}");
        }
        for wrong in ["postgre://joe:hunter2@db/x", "sqlite://hunter2", "postgres://joe:hunter2@db:port/x"] {
            let error = database(wrong).unwrap_err().to_string();
            assert!(error.contains("--to") && !error.contains("hunter2"), "{error}");
        }
    }
}
