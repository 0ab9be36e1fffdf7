//! `[storage]`: which backend, and how long things are kept.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bellwire_core::Secret;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;
use super::{parse_count, parse_duration_between};

/// Where messages are kept.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The embedded store, in this folder.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by its URL. It may hold a password, so it is shown by [`Backend`]'s `Display` only.
    Postgres(Secret),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(folder) => write!(f, "sqlite://{}", folder.display()),
            Self::Postgres(url) => f.write_str(&Secrecy::UrlCredentials.shown(url.expose())),
        }
    }
}

/// `[storage]`
#[derive(Clone, Debug)]
pub struct Storage {
    pub backend: Backend,
    pub retention: Duration,
    /// To the database, of this node.
    pub connections: usize,
    /// How long a start waits for a database that does not answer.
    pub start_timeout: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);
/// The writing connections keep theirs; reads and chores need some beside them.
const CONNECTIONS_MIN: usize = 8;
/// A server of PostgreSQL serves a few hundred well; more need a pooler, which multiplies them itself.
const CONNECTIONS_CONFIGURED_MAX: usize = 512;

pub const KEYS: &[Key; 4] = &[
    Key {
        path: "storage.url",
        default: "",
        example: "postgres://bellwire@db.internal/bellwire",
        accepts: "sqlite:// and a folder (sqlite://./data is relative, sqlite:///var/lib/bellwire absolute), or \
                  postgres://user:password@host/database, with several hosts if there are standbys \
                  (postgres://user@one,two/database)",
        about: "The store. Default: the embedded one (SQLite) in `data_dir`, for a single node. With PostgreSQL (15 or newer) any \
                number of nodes share one database; all of them need the same `security.master_key`.",
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
    Key {
        path: "storage.connections",
        default: "16",
        example: "32",
        accepts: "a whole number from 8 to 512",
        about: "PostgreSQL only: connections that this node opens at most. The sum over all nodes must stay below the server's \
                `max_connections`, or a pooler stands in between.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "storage.start_timeout",
        default: "30s",
        example: "5m",
        accepts: "a duration from 0s to 1h",
        about: "PostgreSQL only: how long a start waits for a database that does not answer yet, before it ends with exit code 9.",
        secrecy: Secrecy::Open,
    },
];

impl Storage {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [url, retention, connections, start_timeout] = KEYS;
        Ok(Self {
            backend: layers.required(url, parse_url)?,
            retention: layers
                .required(retention, |text| parse_duration_between(text, Duration::from_secs(3_600), 3_650 * DAY))?,
            connections: layers.required(connections, |text| parse_count(text, CONNECTIONS_MIN, CONNECTIONS_CONFIGURED_MAX))?,
            start_timeout: layers
                .required(start_timeout, |text| parse_duration_between(text, Duration::ZERO, Duration::from_secs(3_600)))?,
        })
    }
}

/// A store by its URL.
///
/// # Errors
/// What is wrong with it; nothing of the URL, which may hold a password, unless its beginning is.
pub fn parse_url(text: &str) -> Result<Backend, String> {
    match text.split_once("://") {
        Some(("sqlite", path)) if !path.is_empty() => Ok(Backend::Sqlite(PathBuf::from(path))),
        Some(("sqlite", _)) => Err("names no folder".to_owned()),
        Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
            match bellwire_store::postgres::database::check_url(text) {
                Ok(()) => Ok(Backend::Postgres(Secret::new(text))),
                Err(problem) => Err(problem),
            }
        }
        Some(("postgres" | "postgresql", _)) => Err("names no database server".to_owned()),
        _ => Err(format!("{text:?} does not begin with sqlite:// or postgres://")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse_url(text).unwrap().to_string()
    }

    /// Broken: data lands in another folder or database than the operator named.
    #[test]
    fn the_url_names_a_folder_or_a_database() {
        let folder = |text: &str| match parse_url(text).unwrap() {
            Backend::Sqlite(folder) => folder,
            Backend::Postgres(_) => panic!("{text} is a folder"),
        };
        assert_eq!(folder("sqlite:///var/lib/b"), PathBuf::from("/var/lib/b"));
        assert_eq!(folder("sqlite://./b"), PathBuf::from("./b"));
        let Backend::Postgres(url) = parse_url("postgres://joe@one:5432,two/hooks?sslmode=require").unwrap() else {
            panic!("a database is taken for a folder")
        };
        assert_eq!(url.expose(), "postgres://joe@one:5432,two/hooks?sslmode=require");
        for wrong in
            ["sqlite://", "/var/lib/b", "", "postgres://", "mysql://db/x", "postgres://db:port/x", "postgres://db/x?colour=red"]
        {
            assert!(parse_url(wrong).is_err(), "{wrong:?} is taken");
        }
    }

    /// Broken: the database's password stands in the log.
    #[test]
    fn a_database_is_shown_without_its_password() {
        assert_eq!(shown("postgres://joe:hunter2@db/hooks"), "postgres://[redacted]@db/hooks");
        let text = shown("postgresql://db/hooks?user=joe&password=hunter2&sslmode=require");
        assert!(!text.contains("hunter2") && text.contains("sslmode=require"), "{text}");
        assert!(!format!("{:?}", parse_url("postgres://joe:hunter2@db/hooks")).contains("hunter2"));
    }
}
