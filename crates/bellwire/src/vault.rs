//! The data folder: who may read it, the master key in it, and opening the store.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::{Cipher, Store};

use crate::config::security::{MasterKey, master_key_text, parse_master_key};

/// Name of the key's file in the data folder.
pub const MASTER_KEY_FILE: &str = "master.key";

/// Random bytes from the operating system's generator.
///
/// # Errors
/// There is none.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the operating system gives no random numbers"))?;
    Ok(bytes)
}

/// The master key: the configured one, or the one in the data folder, which is made at the first start.
///
/// # Errors
/// It cannot be read or made; or the store is there and the key is not.
pub fn master_key(folder: &Path, data_dir: &Path, configured: Option<&MasterKey>) -> anyhow::Result<MasterKey> {
    match configured {
        Some(key) => Ok(key.clone()),
        None => {
            make_folder(data_dir)?;
            load_or_make_key(data_dir, has_store(folder))
        }
    }
}

/// Opens the store in `folder`, which is made if it is missing. `retention` decides how much time a file of messages spans.
///
/// # Errors
/// `StoreError::Locked`, `StoreError::TooNew` and the rest of the store's.
pub fn open(folder: &Path, key: &MasterKey, retention: Duration) -> anyhow::Result<Arc<dyn Store>> {
    make_folder(folder)?;
    let store = SqliteStore::open(SqliteOptions::new(folder, Cipher::new(key.0)).with_retention(retention))?;
    Ok(store)
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

fn load_or_make_key(data_dir: &Path, is_store_there: bool) -> anyhow::Result<MasterKey> {
    let path = key_path(data_dir);
    match fs::read_to_string(&path) {
        Ok(text) => parse_master_key(&text).map_err(|problem| anyhow::anyhow!("{} {problem}", path.display())),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be read", path.display()))
        }
        // Making a new key here would lock the secrets up for good, and say so only at the first delivery.
        Err(_) if is_store_there => bail!(
            "{} is missing, and without it the secrets in the store cannot be read; bring it back from your backup, or set \
             BELLWIRE_SECURITY__MASTER_KEY",
            path.display()
        ),
        Err(_) => make_key(data_dir, &path),
    }
}

/// Complete on the disk or not there at all: a half-written key would be worse than none.
fn make_key(data_dir: &Path, path: &Path) -> anyhow::Result<MasterKey> {
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
        Ok(()) => Ok(key),
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
        assert_eq!(load_or_make_key(folder.path(), true).unwrap(), first);
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
}
