//! How the process ends: documented exit codes, and the one place that turns an error into one of them.

use std::process::ExitCode;

use bellwire_store::StoreError;

use crate::config::ConfigError;

/// Why the process ended. The numbers are part of the interface: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed; the message says why. Also: `doctor` found something.
    Failure = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// The configuration is wrong.
    Config = 3,
    /// The address to listen at is taken.
    PortTaken = 4,
    /// Another process holds the store.
    StoreLocked = 5,
    /// The store was written by a newer Bellwire.
    StoreTooNew = 6,
    /// The disk is full.
    DiskFull = 7,
    /// The server (of `send`, `app list`, …) cannot be reached.
    Unreachable = 8,
    /// The database does not answer, or takes no writes.
    StoreAway = 9,
    /// The database server is set up to lose what it acknowledges.
    StoreUnsafe = 10,
    /// A second signal ended it at once, without waiting (the bench: the first one).
    Forced = 130,
}

/// All of them, as help and `docs/cli.md` have them.
pub const TABLE: &[(Exit, &str)] = &[
    (Exit::Ok, "done"),
    (Exit::Failure, "it failed, the message says why; `doctor` found a FAIL"),
    (Exit::Usage, "the command line cannot be understood"),
    (Exit::Config, "the configuration is wrong"),
    (Exit::PortTaken, "the address to listen at is taken"),
    (Exit::StoreLocked, "another process holds the store"),
    (Exit::StoreTooNew, "the store was written by a newer Bellwire"),
    (Exit::DiskFull, "the disk is full"),
    (Exit::Unreachable, "the server that a command talks to cannot be reached"),
    (Exit::StoreAway, "the database does not answer, or takes no writes"),
    (Exit::StoreUnsafe, "the database server is set up to lose what it acknowledges; `bellwire doctor` says how"),
    (Exit::Forced, "a second signal ended it at once"),
];

/// The table for `bellwire --help`.
pub fn help() -> String {
    let lines = TABLE.iter().map(|(exit, meaning)| format!("{:>5}  {meaning}", *exit as u8));
    format!("Exit codes:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// An error that has its own exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The exit code of an error: the first cause in the chain that has one.
pub fn code_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(code_of_cause).unwrap_or(Exit::Failure)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if cause.downcast_ref::<ConfigError>().is_some() {
        return Some(Exit::Config);
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(match error {
            StoreError::Locked { .. } => Exit::StoreLocked,
            StoreError::TooNew { .. } => Exit::StoreTooNew,
            StoreError::Full => Exit::DiskFull,
            StoreError::Unavailable(_) => Exit::StoreAway,
            _ => Exit::Failure,
        });
    }
    match cause.downcast_ref::<std::io::Error>()?.kind() {
        std::io::ErrorKind::AddrInUse => Some(Exit::PortTaken),
        std::io::ErrorKind::StorageFull => Some(Exit::DiskFull),
        _ => None,
    }
}

/// The error and its causes in one line, without those that an outer text repeats already.
pub fn text_of(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    /// Broken: scripts cannot tell a taken port from a locked store from a wrong setting.
    #[test]
    fn each_cause_has_its_code_however_deep_it_lies() {
        let io = |kind| anyhow::Error::from(std::io::Error::from(kind)).context("serve");
        assert_eq!(code_of(&io(std::io::ErrorKind::AddrInUse)), Exit::PortTaken);
        assert_eq!(code_of(&io(std::io::ErrorKind::StorageFull)), Exit::DiskFull);
        assert_eq!(code_of(&anyhow::Error::from(StoreError::TooNew { found: 9, supported: 1 }).context("x")), Exit::StoreTooNew);
        assert_eq!(code_of(&anyhow::Error::from(StoreError::Locked { path: "/x".into() })), Exit::StoreLocked);
        assert_eq!(code_of(&anyhow::Error::from(StoreError::Unavailable("x".into())).context("x")), Exit::StoreAway);
        assert_eq!(code_of(&anyhow::Error::from(ConfigError::Together("x".into()))), Exit::Config);
        assert_eq!(code_of(&anyhow::anyhow!("anything")), Exit::Failure);
        let nested: Result<(), _> = Err(Failure::new(Exit::Unreachable, "no answer"));
        assert_eq!(code_of(&nested.context("send").unwrap_err()), Exit::Unreachable);
    }

    #[test]
    fn the_table_has_every_code_once() {
        let mut codes: Vec<u8> = TABLE.iter().map(|(exit, _)| *exit as u8).collect();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130]);
    }
}
