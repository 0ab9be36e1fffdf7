//! What can go wrong in a store, by whose fault it is.

/// Errors of every store method. `Conflict`, `IdempotencyMismatch`, `NotFound` and `Outdated` are the caller's; the rest are ours.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A uniqueness rule: `what` is taken (`uid`, `eventId`, `event type name`).
    #[error("{what} {value:?} already exists")]
    Conflict { what: &'static str, value: String },
    #[error("the idempotency key was used with another request")]
    IdempotencyMismatch,
    #[error("{0} not found")]
    NotFound(&'static str),
    /// Somebody has changed it since the caller read it: nothing was written. Read it again, and decide again.
    #[error("the {0} was changed by somebody else meanwhile")]
    Outdated(&'static str),
    /// The disk is full: nothing was written; writing goes on by itself once there is space.
    #[error("the disk is full; nothing was written")]
    Full,
    /// The writer's queue or a reader is overloaded, or a statement took too long. Retry later.
    #[error("the store is busy: {0}")]
    Busy(&'static str),
    /// The database does not answer, or has no primary. What was being written may or may not be; nothing was acknowledged.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// This node was declared dead: others have its work. It has to join again.
    #[error("this node was declared dead by another and has lost its shards")]
    Fenced,
    #[error("the store is closing")]
    Closed,
    /// The directory belongs to another process.
    #[error("{path} is in use by another Bellwire process (lock held); stop it or choose another data directory")]
    Locked { path: String },
    #[error("the store is of version {found}, newer than this binary's {supported}; run the newer Bellwire")]
    TooNew { found: i64, supported: i64 },
    /// A move from another store cannot begin or go on, or has not ended. The text says what to do.
    #[error("{0}")]
    Move(String),
    #[error("secrets cannot be read: {0}")]
    Cipher(String),
    #[error("the store holds damaged data: {0}")]
    Corrupt(String),
    #[error("storage error: {0}")]
    Io(String),
}
