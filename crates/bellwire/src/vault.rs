//! The data folder: who may read it, the master key in it; and opening the store, there or in a database.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bellwire_core::Secret;
use bellwire_store::postgres::database::{self, Found};
use bellwire_store::postgres::diagnose::{Severity, diagnose};
use bellwire_store::postgres::{PostgresOptions, PostgresStore};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::{Cipher, Store, StoreError};

use crate::config::Config;
use crate::config::security::{MasterKey, master_key_text, parse_master_key};
use crate::config::storage::{Backend, Storage};
use crate::exit::{Exit, Failure};

/// Name of the key's file in the data folder.
pub const MASTER_KEY_FILE: &str = "master.key";

/// Between two tries to reach a database that does not answer, and between two lines about it in the log.
const RETRY_WAIT: Duration = Duration::from_millis(500);
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Random bytes from the operating system's generator.
///
/// # Errors
/// There is none.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the operating system gives no random numbers"))?;
    Ok(bytes)
}

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub storage: &'a Storage,
    /// Where the master key lies unless it is configured.
    pub data_dir: &'a Path,
    pub master_key: Option<&'a MasterKey>,
}

impl<'a> Place<'a> {
    pub fn of(config: &'a Config) -> Self {
        Self { storage: &config.storage, data_dir: &config.server.data_dir, master_key: config.security.master_key.as_ref() }
    }
}

/// Opens the store and makes what is missing: the folder, the schema, the master key. A database that does not answer is tried
/// again until `patience` is over.
///
/// # Errors
/// The store's; the server of the database is set up to lose what it acknowledges ([`Exit::StoreUnsafe`]); or the store is there
/// and its key is not.
pub async fn open(place: &Place<'_>, patience: Duration) -> anyhow::Result<(MasterKey, Arc<dyn Store>)> {
    match &place.storage.backend {
        Backend::Sqlite(folder) => {
            let key = match place.master_key {
                Some(key) => key.clone(),
                None => load_or_make_key(place.data_dir, has_store(folder))?.key,
            };
            make_folder(folder)?;
            let options = SqliteOptions::new(folder, Cipher::new(key.0)).with_retention(place.storage.retention);
            Ok((key, SqliteStore::open(options)?))
        }
        Backend::Postgres(url) => {
            let found = when_there(patience, || look(url)).await.map_err(|error| with_way_out(error, place))?;
            let key = match place.master_key {
                Some(key) => NodeKey { key: key.clone(), is_new: false },
                None => load_or_make_key(place.data_dir, found != Found::Nothing)?,
            };
            let opened = when_there(patience, || open_postgres(place.storage, url, &key.key)).await;
            if let Err(error) = &opened
                && key.is_new
                && matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Cipher(_)))
            {
                // Another node's first start was quicker: the key made here opens nothing.
                fs::remove_file(key_path(place.data_dir))?;
            }
            let store = opened.map_err(|error| with_way_out(error, place))?;
            if key.is_new {
                tracing::warn!(
                    path = %key_path(place.data_dir).display(),
                    "a master key was made; every node needs this one: copy the file, or set BELLWIRE_SECURITY__MASTER_KEY"
                );
            }
            Ok((key.key, store))
        }
    }
}

/// Refuses to serve from a database that may lose what was acknowledged, and logs what will cause trouble.
///
/// # Errors
/// [`Exit::StoreUnsafe`], or the database does not answer within `patience`.
pub async fn judge(backend: &Backend, patience: Duration) -> anyhow::Result<()> {
    let Backend::Postgres(url) = backend else { return Ok(()) };
    let findings = when_there(patience, async || Ok(diagnose(url.expose()).await?)).await;
    let findings = findings.map_err(|error| away(error, backend))?;
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Warn) {
        tracing::warn!(finding = finding.text, "the database");
    }
    let refused = findings.iter().filter(|finding| finding.severity == Severity::Refuse);
    let refused: Vec<&str> = refused.map(|finding| finding.text.as_str()).collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::StoreUnsafe, format!("the database {backend} is not safe to serve from: {}", refused.join("; ")))
        .into())
}

/// Whether a store is there that this binary may open without changing it. Tries once.
///
/// # Errors
/// The database does not answer, or holds a store of an older version, which only `serve` brings up to date.
pub async fn is_there(backend: &Backend) -> anyhow::Result<bool> {
    match backend {
        Backend::Sqlite(folder) => Ok(has_store(folder)),
        Backend::Postgres(url) => match look(url).await.map_err(|error| away(error, backend))? {
            Found::Nothing => Ok(false),
            Found::Older(version) => {
                bail!("the store is of version {version}, older than this binary's; `bellwire serve` brings it up to date")
            }
            // Opening says what is wrong with a newer one.
            Found::Current | Found::Newer(_) => Ok(true),
        },
    }
}

/// What is in the database, seen without changing anything.
async fn look(url: &Secret) -> anyhow::Result<Found> {
    Ok(database::look(url.expose()).await?)
}

async fn open_postgres(storage: &Storage, url: &Secret, key: &MasterKey) -> anyhow::Result<Arc<dyn Store>> {
    let mut options = PostgresOptions::new(url.expose(), Cipher::new(key.0));
    options.connections_max = storage.connections;
    options.retention = storage.retention;
    Ok(PostgresStore::open(options).await?)
}

fn with_way_out(error: anyhow::Error, place: &Place<'_>) -> anyhow::Error {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Cipher(problem)) => {
            let whose = match place.master_key {
                Some(_) => "security.master_key".to_owned(),
                None => key_path(place.data_dir).display().to_string(),
            };
            let text = format!(
                "{problem} ({whose}); all nodes of a database need the same: copy {MASTER_KEY_FILE} from the data folder of the \
                 node that started first, or set BELLWIRE_SECURITY__MASTER_KEY to its content"
            );
            Failure::new(Exit::Failure, text).into()
        }
        _ => away(error, &place.storage.backend),
    }
}

/// With the way out, if it is that the database does not answer.
fn away(error: anyhow::Error, backend: &Backend) -> anyhow::Error {
    let Some(StoreError::Unavailable(problem)) = error.downcast_ref::<StoreError>() else { return error };
    let text = format!(
        "the database {backend} does not answer: {problem}; check storage.url, and that the server runs and takes writes \
         (storage.start_timeout says how long a start waits)"
    );
    Failure::new(Exit::StoreAway, text).into()
}

/// Repeats what fails for want of an answering database.
async fn when_there<T>(patience: Duration, mut act: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        let error = match act().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let is_away = matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Unavailable(_)));
        if !is_away || started.elapsed() + RETRY_WAIT > patience {
            return Err(error);
        }
        if told.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            told = Some(Instant::now());
            let left = patience.saturating_sub(started.elapsed()).as_secs();
            tracing::warn!(%error, left_s = left, "waiting for the database");
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}

/// A key for another use, derived from the master key (HKDF-SHA256), so that it survives restarts and is stored nowhere.
///
/// # Errors
/// The library refuses, which it does not for 32 bytes.
pub fn derived_key(key: &MasterKey, purpose: &str) -> anyhow::Result<[u8; 32]> {
    use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
    let prk = Salt::new(HKDF_SHA256, b"bellwire derived keys v1").extract(&key.0);
    let mut out = [0; 32];
    prk.expand(&[purpose.as_bytes()], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .map_err(|_| anyhow::anyhow!("no key can be derived for {purpose}"))?;
    Ok(out)
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the data folder {} cannot be made", path.display()))
}

/// Whether a store stands in the folder already.
pub fn has_store(folder: &Path) -> bool {
    folder.join("control.db").exists()
}

/// Where the key's file is.
pub fn key_path(data_dir: &Path) -> PathBuf {
    data_dir.join(MASTER_KEY_FILE)
}

/// The key in the data folder of a store that is there.
///
/// # Errors
/// It is not there or cannot be read.
pub fn existing_key(data_dir: &Path) -> anyhow::Result<MasterKey> {
    Ok(load_or_make_key(data_dir, true)?.key)
}

/// The master key of this node.
#[derive(Debug)]
struct NodeKey {
    key: MasterKey,
    /// Made just now.
    is_new: bool,
}

/// The key in the data folder; made if neither it nor a store is there.
fn load_or_make_key(data_dir: &Path, is_store_there: bool) -> anyhow::Result<NodeKey> {
    let path = key_path(data_dir);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let key = parse_master_key(&text).map_err(|problem| anyhow::anyhow!("{} {problem}", path.display()))?;
            Ok(NodeKey { key, is_new: false })
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be read", path.display()))
        }
        // Making a new key here would lock the secrets up for good, and say so only at the first delivery.
        Err(_) if is_store_there => bail!(
            "{} is missing, and without it the secrets in the store cannot be read; bring it back from your backup (with \
             PostgreSQL: copy it from another node), or set BELLWIRE_SECURITY__MASTER_KEY",
            path.display()
        ),
        Err(_) => {
            make_folder(data_dir)?;
            make_key(data_dir, &path)
        }
    }
}

/// Complete on the disk or not there at all: a half-written key would be worse than none.
fn make_key(data_dir: &Path, path: &Path) -> anyhow::Result<NodeKey> {
    let key = MasterKey(random()?);
    let written = data_dir.join(format!(".{MASTER_KEY_FILE}.{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&written)?;
        file.write_all(format!("{}\n", master_key_text(&key)).as_bytes())?;
        file.sync_all()?;
        // A link fails if another process was first: then its key counts.
        let linked = fs::hard_link(&written, path);
        fs::remove_file(&written)?;
        fs::File::open(data_dir)?.sync_all()?;
        linked
    };
    match write() {
        Ok(()) => Ok(NodeKey { key, is_new: true }),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => load_or_make_key(data_dir, true),
        Err(error) => Err(error).with_context(|| format!("{} cannot be written", path.display())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Broken: after a restart the secrets cannot be read, or others on the machine can read them.
    #[test]
    fn the_key_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = load_or_make_key(folder.path(), false).unwrap();
        let again = load_or_make_key(folder.path(), true).unwrap();
        assert!(again.key == first.key && first.is_new && !again.is_new);
        let mode = fs::metadata(key_path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no half-written files stay");
    }

    /// Broken: a lost key is silently replaced, and every signature fails from then on.
    #[test]
    fn a_missing_key_of_an_existing_store_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = load_or_make_key(folder.path(), true).unwrap_err().to_string();
        assert!(error.contains(MASTER_KEY_FILE) && error.contains("backup"), "{error}");
        assert!(!key_path(folder.path()).exists());
        fs::write(key_path(folder.path()), "AAAA").unwrap();
        assert!(load_or_make_key(folder.path(), true).unwrap_err().to_string().contains("3 bytes"));
    }

    /// Broken: a start beside a database that is starting too ends at once, or one with a wrong setting waits for nothing.
    #[tokio::test]
    async fn only_a_database_that_does_not_answer_is_waited_for() {
        let away = || anyhow::Error::from(StoreError::Unavailable("refused".to_owned()));
        let mut tries = 0;
        let third = when_there(Duration::from_secs(30), async || {
            tries += 1;
            if tries < 3 { Err(away()) } else { Ok(tries) }
        });
        assert_eq!(third.await.unwrap(), 3);
        let never: anyhow::Result<()> = when_there(Duration::ZERO, async || Err(away())).await;
        assert!(never.is_err());
        let mut tries = 0;
        let wrong: anyhow::Result<()> = when_there(Duration::from_secs(30), async || {
            tries += 1;
            Err(StoreError::TooNew { found: 9, supported: 1 }.into())
        })
        .await;
        assert!(wrong.is_err() && tries == 1);
    }
}
