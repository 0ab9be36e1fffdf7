//! Errors inside this backend, before they become [`StoreError`]: a statement's, or one that is already the store's.

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::StoreError;

#[derive(Debug)]
pub enum Fault {
    Store(StoreError),
    Sql(rusqlite::Error),
}

pub type Outcome<T> = std::result::Result<T, Fault>;

impl Fault {
    /// The disk is full: nothing was written, and space may come back.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Full),
            // Growing the shared index of the log reports a full disk as a failed ftruncate or write.
            Self::Sql(error) => {
                error.sqlite_error_code() == Some(ErrorCode::DiskFull)
                    || error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE)
            }
        }
    }

    /// A uniqueness rule was about to be broken; the statement changed nothing.
    pub fn is_constraint(&self) -> bool {
        matches!(self, Self::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation))
    }

    /// Of a constraint: it was a unique index, not the row's own key.
    pub fn is_unique_index(&self) -> bool {
        matches!(self, Self::Sql(error) if error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE))
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        if fault.is_full() {
            return Self::Full;
        }
        match fault {
            Fault::Store(error) => error,
            Fault::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) => Self::Busy("a read took too long; ask for less at a time"),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy("a file is locked"),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
                _ => Self::Io(error.to_string()),
            },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Sql(error) => error.fmt(f),
        }
    }
}

/// An error of the file system outside SQLite.
pub fn io(what: &str, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(format!("{what}: {error}")),
    }
}
