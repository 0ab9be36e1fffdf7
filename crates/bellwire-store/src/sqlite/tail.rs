//! From the 8-byte key of an application or endpoint to its whole id: the random tail is in the control file only.

use std::collections::HashMap;

use bellwire_core::{AppId, EndpointId, IdKind, limits};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};

use super::fault::Outcome;

/// Tails looked up before. Rows are never removed from those tables, so what is known stays true.
#[derive(Debug, Default)]
pub struct Tails {
    apps: Mutex<HashMap<i64, [u8; 12]>>,
    endpoints: Mutex<HashMap<i64, [u8; 12]>>,
}

impl Tails {
    pub fn app(&self, control: &Connection, key: i64) -> Outcome<AppId> {
        lookup(&self.apps, control, "SELECT tail FROM application WHERE id = ?1", key)
    }

    pub fn endpoint(&self, control: &Connection, key: i64) -> Outcome<EndpointId> {
        lookup(&self.endpoints, control, "SELECT tail FROM endpoint WHERE id = ?1", key)
    }
}

/// An id nobody knows gets a tail of zeros: it is then unknown to whoever asks for it, which ends its delivery.
fn lookup<I: IdKind>(known: &Mutex<HashMap<i64, [u8; 12]>>, control: &Connection, sql: &str, key: i64) -> Outcome<I> {
    if let Some(tail) = known.lock().get(&key) {
        return Ok(I::from_key_and_tail(key, *tail));
    }
    let Some(tail) = control.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()? else {
        return Ok(I::from_key_and_tail(key, [0; 12]));
    };
    let mut known = known.lock();
    if known.len() >= limits::ID_TAILS_KEPT {
        known.clear();
    }
    known.insert(key, tail);
    Ok(I::from_key_and_tail(key, tail))
}
