//! Packs: what an application's messages of one commit carry (payload, and the origin of received ones), compressed together. Webhooks of
//! one source resemble each other more than the parts of any one of them do, so a message costs the disk a fraction of what it costs
//! alone: in the log, in the checkpoint, and for as long as it is kept.
//!
//! Never two applications in one pack, and nothing of one message is needed to read another but the pack itself. A payload that expires
//! or is deleted is overwritten inside its pack.

use std::collections::HashMap;

use bellwire_core::{IdKind, Message, limits};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, OptionalExtension, ffi, params};

use super::fault::Outcome;
use super::inbox::Accept;
use crate::StoreError;

/// SQL for the payload of a message (which is in scope as `message`), wherever it is.
macro_rules! payload_sql {
    () => {
        "(coalesce(message.payload, unpacked((SELECT bytes FROM pack WHERE pack.id = message.pack), \
         message.pack_at + coalesce(message.origin_bytes, 0), message.payload_bytes)))"
    };
}
/// The same for its origin.
macro_rules! origin_sql {
    () => {
        "(coalesce(message.origin, CAST(unpacked((SELECT bytes FROM pack WHERE pack.id = message.pack), \
         message.pack_at, message.origin_bytes) AS TEXT)))"
    };
}
pub(super) use {origin_sql, payload_sql};

/// SQL: whether the message still has its payload.
pub const HAS_PAYLOAD: &str = "(message.payload IS NOT NULL OR message.payload_bytes IS NOT NULL)";

/// Where a message's origin and, behind it, its payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub pack: i64,
    pub at: u32,
    pub origin_bytes: Option<u32>,
    pub payload_bytes: Option<u32>,
}

struct Draft {
    /// The key of its first message.
    id: i64,
    bytes: Vec<u8>,
}

/// The packs of one group, while it is written.
pub struct Packs {
    /// Applications with enough in the group, and the pack that takes their next message.
    open: HashMap<i64, Option<Draft>>,
    full: Vec<Draft>,
}

/// Bytes that could go into a pack; `None`: so large that the message has little to gain from others.
pub fn packable(message: &Message, origin: Option<&String>) -> Option<usize> {
    let bytes = message.payload.as_ref().map_or(0, bytes::Bytes::len) + origin.map_or(0, String::len);
    (bytes <= limits::PACK_ITEM_BYTES_MAX).then_some(bytes)
}

impl Packs {
    /// Packs for what there are at least two of, and enough of that a pack is smaller than what it replaces.
    pub fn plan(accepts: &[Accept]) -> Self {
        let mut sums: HashMap<i64, (usize, usize)> = HashMap::new();
        for accept in accepts {
            let message = &accept.new.message;
            if let Some(bytes) = packable(message, accept.origin.as_ref()) {
                let (count, sum) = sums.entry(message.app.key()).or_default();
                *count += 1;
                *sum += bytes;
            }
        }
        let worth = sums.into_iter().filter(|(_, (count, sum))| *count > 1 && *sum >= limits::PACK_BYTES_MIN);
        Self { open: worth.map(|(app, _)| (app, None)).collect(), full: Vec::new() }
    }

    /// `None`: the message is to carry it in its own row.
    pub fn put(&mut self, message: &Message, origin: Option<&String>) -> Option<Place> {
        let payload = message.payload.as_deref();
        let bytes = packable(message, origin)?;
        let draft = self.open.get_mut(&message.app.key())?;
        if draft.as_ref().is_some_and(|draft| draft.bytes.len() + bytes > limits::PACK_BYTES_MAX) {
            self.full.extend(draft.take());
        }
        let draft =
            draft.get_or_insert_with(|| Draft { id: message.id.key(), bytes: Vec::with_capacity(limits::PACK_BYTES_MAX) });
        let at = number(draft.bytes.len());
        draft.bytes.extend_from_slice(origin.map_or(&[], |origin| origin.as_bytes()));
        draft.bytes.extend_from_slice(payload.unwrap_or_default());
        Some(Place {
            pack: draft.id,
            at,
            origin_bytes: origin.map(|origin| number(origin.len())),
            payload_bytes: payload.map(|payload| number(payload.len())),
        })
    }

    /// Undoes the last `put`: its message was refused.
    pub fn take_back(&mut self, message: &Message, place: Place) {
        let Some(draft) = self.open.get_mut(&message.app.key()) else { return };
        if let Some(last) = draft
            && last.id == place.pack
        {
            last.bytes.truncate(place.at as usize);
            if place.at == 0 {
                *draft = None;
            }
        }
    }

    pub fn write(mut self, conn: &Connection) -> Outcome<()> {
        self.full.extend(self.open.into_values().flatten());
        // Appended to the tree, not put here and there.
        self.full.sort_unstable_by_key(|draft| draft.id);
        let mut insert = conn.prepare_cached("INSERT INTO pack (id, bytes) VALUES (?1, ?2)")?;
        for Draft { id, bytes } in self.full {
            insert.execute(params![id, lz4_flex::block::compress_prepend_size(&bytes)])?;
        }
        Ok(())
    }
}

/// All sizes here are below [`limits::PACK_BYTES_MAX`].
fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn no_place() -> StoreError {
    StoreError::Corrupt("a place outside its pack".to_owned())
}

fn unpacked(stored: &[u8]) -> Result<Vec<u8>, StoreError> {
    let corrupt = |error: &dyn std::fmt::Display| StoreError::Corrupt(format!("a pack of payloads: {error}"));
    let (size, packed) = lz4_flex::block::uncompressed_size(stored).map_err(|error| corrupt(&error))?;
    // Damage, not a reason to allocate.
    if size > limits::PACK_BYTES_MAX {
        return Err(corrupt(&"larger than one may be"));
    }
    lz4_flex::block::decompress(packed, size).map_err(|error| corrupt(&error))
}

/// Makes `unpacked(pack, at, bytes)` known to a connection: NULL if any of them is.
pub fn teach(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("unpacked", 3, flags, |context| {
        part(context)
            .map_err(|error| rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(error.to_string())))
    })
}

fn part(context: &Context<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let number = |argument: usize| context.get::<Option<u32>>(argument).map_err(|_| no_place());
    let (Some(at), Some(bytes)) = (number(1)?, number(2)?) else { return Ok(None) };
    let stored = context.get_raw(0).as_blob().map_err(|_| StoreError::Corrupt("a pack of payloads is missing".to_owned()))?;
    let (from, to) = (at as usize, at as usize + bytes as usize);
    let whole = unpacked(stored)?;
    Ok(Some(whole.get(from..to).ok_or_else(no_place)?.to_vec()))
}

/// The payload of a message inside a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pack: i64,
    at: u32,
    bytes: u32,
}

impl Range {
    pub const COLUMNS: &str = "message.pack, message.pack_at + coalesce(message.origin_bytes, 0), message.payload_bytes";

    /// Of [`Range::COLUMNS`], beginning at `column`. `None`: the payload is in the message's row, or gone.
    pub fn read(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Self>> {
        let (Some(pack), Some(bytes)) = (row.get(column)?, row.get(column + 2)?) else { return Ok(None) };
        Ok(Some(Self { pack, at: row.get(column + 1)?, bytes }))
    }
}

/// Overwrites payloads inside their packs.
pub fn shred(conn: &Connection, mut ranges: Vec<Range>) -> Outcome<()> {
    ranges.sort_unstable();
    for ranges in ranges.chunk_by(|a, b| a.pack == b.pack) {
        let id = ranges[0].pack;
        let find = "SELECT bytes FROM pack WHERE id = ?1";
        let Some(stored) = conn.prepare_cached(find)?.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional()? else {
            continue;
        };
        let left = shredded(&stored, ranges).unwrap_or_else(|error| {
            tracing::error!(%error, pack = id, "deleted with the payload that was to be deleted from it");
            Vec::new()
        });
        conn.prepare_cached("UPDATE pack SET bytes = ?2 WHERE id = ?1")?.execute(params![id, left])?;
    }
    Ok(())
}

fn shredded(stored: &[u8], ranges: &[Range]) -> Result<Vec<u8>, StoreError> {
    let mut bytes = unpacked(stored)?;
    for range in ranges {
        let part = bytes.get_mut(range.at as usize..range.at as usize + range.bytes as usize);
        part.ok_or_else(no_place)?.fill(0);
    }
    Ok(lz4_flex::block::compress_prepend_size(&bytes))
}
