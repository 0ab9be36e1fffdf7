//! `[storage]`: which backend, and how long things are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;
use super::parse_duration_between;

/// `[storage]`
#[derive(Clone, Debug)]
pub struct Storage {
    /// Folder of the embedded store.
    pub folder: PathBuf,
    pub retention: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

pub const KEYS: &[Key; 2] = &[
    Key {
        path: "storage.url",
        default: "",
        example: "sqlite:///var/lib/bellwire",
        accepts: "sqlite:// and a folder (sqlite://./data is relative, sqlite:///var/lib/bellwire absolute)",
        about: "The store. Default: the embedded one (SQLite) in `data_dir`.",
        secrecy: Secrecy::UrlCredentials,
    },
    Key {
        path: "storage.retention",
        default: "90d",
        example: "30d",
        accepts: "a duration from 1h to 3650d",
        about: "How long messages and their attempts are kept. What is older is removed, and its disk space freed, once nothing \
                of it waits for a retry any more.",
        secrecy: Secrecy::Open,
    },
];

impl Storage {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [url, retention] = KEYS;
        Ok(Self {
            folder: layers.required(url, parse_url)?,
            retention: layers
                .required(retention, |text| parse_duration_between(text, Duration::from_secs(3_600), 3_650 * DAY))?,
        })
    }
}

fn parse_url(text: &str) -> Result<PathBuf, String> {
    match text.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => Ok(PathBuf::from(path)),
        Some(("sqlite", _)) => Err("names no folder".to_owned()),
        Some(("postgres" | "postgresql", _)) => {
            Err("the PostgreSQL store comes with a later version; this one has the embedded store".to_owned())
        }
        _ => Err(format!("{text:?} does not begin with sqlite://")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: data lands in another folder than the operator named, or PostgreSQL is taken for a folder.
    #[test]
    fn the_url_names_a_folder_and_postgres_is_refused_with_the_reason() {
        assert_eq!(parse_url("sqlite:///var/lib/b"), Ok(PathBuf::from("/var/lib/b")));
        assert_eq!(parse_url("sqlite://./b"), Ok(PathBuf::from("./b")));
        assert!(parse_url("postgres://db/bellwire").unwrap_err().contains("later version"));
        assert!(parse_url("sqlite://").is_err() && parse_url("/var/lib/b").is_err() && parse_url("").is_err());
    }
}
