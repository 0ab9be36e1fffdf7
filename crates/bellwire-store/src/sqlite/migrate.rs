//! Schema versions: embedded files, forward only, one transaction each; the number lives in `user_version`.

use rusqlite::Connection;

use super::fault::Outcome;
use crate::StoreError;

/// The steps of one kind of file; step n brings it to version n.
pub type Steps = &'static [(&'static str, &'static str)];

pub const CONTROL: Steps = &[
    ("0001_first", include_str!("../../migrations/sqlite/control/0001_first.sql")),
    ("0002_source", include_str!("../../migrations/sqlite/control/0002_source.sql")),
];
pub const SEGMENT: Steps = &[
    ("0001_first", include_str!("../../migrations/sqlite/segment/0001_first.sql")),
    ("0002_source", include_str!("../../migrations/sqlite/segment/0002_source.sql")),
];

/// Brings a file to the newest version this binary knows.
pub fn migrate(conn: &mut Connection, steps: Steps) -> Outcome<()> {
    let supported = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > supported {
        return Err(StoreError::TooNew { found, supported }.into());
    }
    for (version, (name, sql)) in (1i64..).zip(steps) {
        if version <= found {
            continue;
        }
        tracing::debug!(migration = name, "applying a store migration");
        let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
