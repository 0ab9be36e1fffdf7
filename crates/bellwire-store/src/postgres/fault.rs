//! Errors of the driver, judged: the caller's, the server's absence, or ours.

use tokio_postgres::error::SqlState;

use crate::StoreError;

/// What goes wrong between the traits and the driver.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sql(#[from] tokio_postgres::Error),
}

pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Sql(error) => error.code(),
            Self::Store(_) => None,
        }
    }

    /// A uniqueness rule was broken; the name of the index says which.
    pub fn unique_index(&self) -> Option<&str> {
        match self {
            Self::Sql(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => error.as_db_error()?.constraint(),
            _ => None,
        }
    }

    /// A row that was to be new is there, under whatever index.
    pub fn is_there_already(&self) -> bool {
        self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// A prepared statement is not, or is already, on the server's connection: somebody else's is in between.
    pub fn is_statement_elsewhere(&self) -> bool {
        let codes = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
        self.code().is_some_and(|code| codes.contains(code))
    }

    /// A row outside all partitions there are.
    pub fn is_no_partition(&self) -> bool {
        match self {
            Self::Sql(error) => {
                error.code() == Some(&SqlState::CHECK_VIOLATION)
                    && error.as_db_error().is_some_and(|db| db.message().starts_with("no partition of relation"))
            }
            Self::Store(_) => false,
        }
    }

    /// Whether the transaction may have been committed all the same: nobody said that it was not.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Sql(error) => error.code().is_none_or(|code| is_away(code) && code.code() != "25006"),
            Self::Store(StoreError::Unavailable(_) | StoreError::Busy(_)) => true,
            Self::Store(_) => false,
        }
    }
}

/// The server is not there for writing: shutting down, starting, crashed, out of connections, or a standby.
fn is_away(code: &SqlState) -> bool {
    let code = code.code();
    // 08: connection; 57P: operator intervention; 53300: too many connections; 25006: read-only transaction.
    code.starts_with("08") || code.starts_with("57P") || code == "53300" || code == "25006"
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(error) => error,
            Fault::Sql(error) => match error.code() {
                None => Self::Unavailable(describe(&error)),
                Some(code) if is_away(code) => Self::Unavailable(describe(&error)),
                Some(code) if *code == SqlState::QUERY_CANCELED => Self::Busy("a statement took too long"),
                Some(code) if *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE => {
                    Self::Busy("two writes were in each other's way")
                }
                Some(code) if *code == SqlState::DISK_FULL => Self::Full,
                Some(_) => Self::Io(describe(&error)),
            },
        }
    }
}

/// The server's message if there is one; never a parameter's value.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text.push_str(": ");
                text.push_str(&inner.to_string());
                source = inner.source();
            }
            text
        }
    }
}
