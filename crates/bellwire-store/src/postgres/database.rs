//! A database as a whole: whether its address can be read, whether a store is in it, and throw-away ones to measure on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;

use super::connection::{Conn, Db};
use super::fault::Outcome;
use super::migrate;
use crate::{Result, StoreError};

/// Connections for a question or two.
const CONNECTIONS: usize = 1;
/// What a host without a port listens at.
const DEFAULT_PORT: u16 = 5432;
/// Of one host's name.
const LOOKUP_MAX: Duration = Duration::from_secs(2);
/// For what goes through all of a database.
const WHOLE_MAX: Duration = Duration::from_secs(600);

/// Whether the address can be read. The text of the error shows nothing of the address, which may hold a password.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> std::result::Result<(), String> {
    let config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("cannot be read: {}", if cause.is_empty() { error.to_string() } else { cause })
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("names no host".to_owned());
    }
    Ok(())
}

/// This machine's own address on the way to the database's first host that can be found: where other nodes, which reach that host
/// too, should reach this machine. Nothing is sent.
pub async fn local_address(url: &str) -> Option<IpAddr> {
    let config: Config = url.parse().ok()?;
    let port = |at: usize| config.get_ports().get(at).or(config.get_ports().first()).copied().unwrap_or(DEFAULT_PORT);
    for (at, host) in config.get_hosts().iter().enumerate() {
        let Host::Tcp(name) = host else { return Some(Ipv4Addr::LOCALHOST.into()) };
        let found = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((name.as_str(), port(at)))).await;
        let Ok(Ok(addresses)) = found else { continue };
        if let Some(local) = addresses.into_iter().find_map(way_to) {
            return Some(local);
        }
    }
    config.get_hostaddrs().iter().enumerate().find_map(|(at, address)| way_to(SocketAddr::new(*address, port(at))))
}

/// The address from which a connection to `destination` would come.
fn way_to(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What of ours is in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// A store of this version, which is this binary's.
    Current,
    /// A store of an older version: opening it brings it to this binary's.
    Older(i32),
    /// A store of a newer version: this binary cannot open it.
    Newer(i32),
}

/// Looks without changing anything.
///
/// # Errors
/// [`StoreError::Unavailable`]
pub async fn look(url: &str) -> Result<Found> {
    Ok(look_inner(&connect(url).await?).await?)
}

async fn look_inner(conn: &Conn) -> Outcome<Found> {
    let is_there: bool = conn.query_one("SELECT to_regclass('migration') IS NOT NULL", &[]).await?.try_get(0)?;
    if !is_there {
        return Ok(Found::Nothing);
    }
    let version: Option<i32> = conn.query_one("SELECT max(number) FROM migration", &[]).await?.try_get(0)?;
    Ok(match version {
        None => Found::Nothing,
        Some(version) if version == migrate::newest() => Found::Current,
        Some(version) if version < migrate::newest() => Found::Older(version),
        Some(version) => Found::Newer(version),
    })
}

/// Makes an empty database called `name` on the server of `url`; returns its address.
///
/// # Errors
/// The server refuses: the role may not create databases, or there is one of this name.
pub async fn create(url: &str, name: &str) -> Result<String> {
    let conn = connect(url).await?;
    conn.batch(&format!("CREATE DATABASE {}", quoted(name)?)).await.map_err(StoreError::from)?;
    Ok(with_database(url, name))
}

/// Removes the database called `name`, whoever is connected to it.
///
/// # Errors
/// The server refuses.
pub async fn remove(url: &str, name: &str) -> Result<()> {
    let conn = connect(url).await?;
    conn.query_within(WHOLE_MAX, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name)?), &[]).await?;
    Ok(())
}

/// Brings the statistics up to date, clears away dead rows and writes out what is in memory, as the server does in time.
///
/// # Errors
/// [`StoreError::Unavailable`]
pub async fn settle(url: &str) -> Result<()> {
    let conn = connect(url).await?;
    conn.query_within(WHOLE_MAX, "VACUUM (ANALYZE)", &[]).await?;
    match conn.query_within(WHOLE_MAX, "CHECKPOINT", &[]).await {
        // Not everybody may; then the server does it when it likes.
        Err(fault) if fault.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// What the database takes on its server's disk, in bytes.
///
/// # Errors
/// [`StoreError::Unavailable`]
pub async fn size_bytes(url: &str) -> Result<u64> {
    let conn = connect(url).await?;
    let row = conn.query_one("SELECT pg_database_size(current_database())", &[]).await?;
    let bytes: i64 = row.try_get(0).map_err(super::fault::Fault::from)?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The process id, on its own machine, of the server process behind a connection.
///
/// # Errors
/// [`StoreError::Unavailable`]
pub async fn backend_pid(url: &str) -> Result<u32> {
    let conn = connect(url).await?;
    let row = conn.query_one("SELECT pg_backend_pid()", &[]).await?;
    let pid: i32 = row.try_get(0).map_err(super::fault::Fault::from)?;
    Ok(u32::try_from(pid).unwrap_or(0))
}

async fn connect(url: &str) -> Result<Conn> {
    Ok(Db::new(url, CONNECTIONS)?.get().await?)
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("dbname=")).collect();
    let mark = if rest.is_empty() { "" } else { "?" };
    format!("{}/{name}{mark}{}", &address[..end], rest.join("&"))
}

/// A name as SQL takes it. Plain ones only: these are made by programs.
fn quoted(name: &str) -> Result<String> {
    if !name.is_empty() && name.len() <= 63 && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_') {
        Ok(format!("\"{name}\""))
    } else {
        Err(StoreError::Io(format!("{name:?} is no plain name of a database (a-z, 0-9 and _, at most 63)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: what is measured lands in the operator's own database.
    #[test]
    fn another_database_of_the_same_server_is_addressed() {
        assert_eq!(with_database("postgres://u:p@h:1,i/db?sslmode=require", "x"), "postgres://u:p@h:1,i/x?sslmode=require");
        assert_eq!(with_database("postgres://h", "x"), "postgres://h/x");
        assert_eq!(with_database("postgres:///db?host=/run&dbname=y", "x"), "postgres:///x?host=/run");
        assert!(quoted("x\"; DROP").is_err() && quoted("").is_err() && quoted("bench_1").is_ok());
    }

    /// Broken: an address that cannot work is found out at the first connection, or its password is printed.
    #[test]
    fn an_address_is_judged_without_being_shown() {
        assert_eq!(check_url("postgres://u:p@h:5432,i/db?sslmode=require&target_session_attrs=any"), Ok(()));
        for wrong in ["postgres://u:hunter2@h:port/db", "postgres://u:hunter2@h/db?colour=red", "postgres://"] {
            let problem = check_url(wrong).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
