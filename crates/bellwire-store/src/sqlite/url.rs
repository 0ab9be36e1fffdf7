//! Where attempts were sent: a URL is stored once a segment, and attempts carry its number.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use bellwire_core::limits;
use rusqlite::{Connection, OptionalExtension};

use super::fault::Outcome;

/// Numbers known by heart, by segment start and URL.
#[derive(Default)]
pub struct Urls {
    known: RefCell<HashMap<Arc<str>, (i64, i64)>>,
}

impl Urls {
    /// The number of `url` in the segment that begins at `start`; gives it one if it has none.
    pub fn number(&self, conn: &Connection, start: i64, url: &Arc<str>) -> Outcome<i64> {
        if let Some((segment, number)) = self.known.borrow().get(url)
            && *segment == start
        {
            return Ok(*number);
        }
        let found = conn.prepare_cached("SELECT id FROM url WHERE url = ?1")?.query_row([&**url], |row| row.get(0)).optional()?;
        let number = match found {
            Some(number) => number,
            None => {
                conn.prepare_cached("INSERT INTO url (url) VALUES (?1)")?.execute([&**url])?;
                conn.last_insert_rowid()
            }
        };
        let mut known = self.known.borrow_mut();
        if known.len() >= limits::URLS_KEPT {
            known.clear();
        }
        known.insert(url.clone(), (start, number));
        Ok(number)
    }

    pub fn clear(&self) {
        self.known.borrow_mut().clear();
    }
}
