//! Packs: what an application's messages of one commit carry (payload, and the origin of received ones), compressed together. Webhooks of
//! one source resemble each other more than the parts of any one of them do, so a message costs the disk a fraction of what it costs
//! alone: in the log, in the checkpoint, and for as long as it is kept.
//!
//! Never two applications in one pack, and nothing of one message is needed to read another but the pack itself. A payload that expires
//! or is deleted is overwritten inside its pack.

use std::collections::HashMap;

use bellwire_core::{IdKind, Message, limits};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
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

/// Before a pack's compressed bytes stands how many there were.
const SIZE_BYTES: usize = 4;
/// Drafts of the largest group, more or less.
const SPARE_MAX: usize = limits::GROUP_BYTES_MAX / limits::PACK_BYTES_MAX;

struct Draft {
    /// The key of its first message.
    id: i64,
    bytes: Vec<u8>,
}

/// Memory that packing needs, from one group to the next: taken anew each time, clearing its pages costs more than compressing.
pub struct Press {
    table: CompressTable,
    packed: Vec<u8>,
    /// For drafts.
    spare: Vec<Vec<u8>>,
}

impl Press {
    pub fn new() -> Self {
        Self { table: CompressTable::small(), packed: Vec::new(), spare: Vec::new() }
    }

    /// As it is stored: its size, and then its bytes, compressed.
    fn pack(&mut self, bytes: &[u8]) -> Outcome<&[u8]> {
        self.packed.resize(SIZE_BYTES + get_maximum_output_size(limits::PACK_BYTES_MAX), 0);
        let (size, packed) = self.packed.split_at_mut(SIZE_BYTES);
        size.copy_from_slice(&number(bytes.len()).to_le_bytes());
        let written = compress_into_with_table(bytes, packed, &mut self.table)
            .map_err(|error| StoreError::Io(format!("a pack cannot be compressed: {error}")))?;
        Ok(&self.packed[..SIZE_BYTES + written])
    }

    fn draft(&mut self, id: i64) -> Draft {
        Draft { id, bytes: self.spare.pop().unwrap_or_else(|| Vec::with_capacity(limits::PACK_BYTES_MAX)) }
    }

    fn take_back(&mut self, mut draft: Draft) {
        if self.spare.len() < SPARE_MAX {
            draft.bytes.clear();
            self.spare.push(draft.bytes);
        }
    }
}

/// The packs of one group, while it is written.
pub struct Packs<'p> {
    /// Applications with enough in the group, and the pack that takes their next message.
    open: HashMap<i64, Option<Draft>>,
    full: Vec<Draft>,
    press: &'p mut Press,
}

/// Bytes that could go into a pack; `None`: so large that the message has little to gain from others.
pub fn packable(message: &Message, origin: Option<&String>) -> Option<usize> {
    let bytes = message.payload.as_ref().map_or(0, bytes::Bytes::len) + origin.map_or(0, String::len);
    (bytes <= limits::PACK_ITEM_BYTES_MAX).then_some(bytes)
}

impl<'p> Packs<'p> {
    /// Packs for what there are at least two of, and enough of that a pack is smaller than what it replaces.
    pub fn plan(accepts: &[Accept], press: &'p mut Press) -> Self {
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
        Self { open: worth.map(|(app, _)| (app, None)).collect(), full: Vec::new(), press }
    }

    /// `None`: the message is to carry it in its own row.
    pub fn put(&mut self, message: &Message, origin: Option<&String>) -> Option<Place> {
        let payload = message.payload.as_deref();
        let bytes = packable(message, origin)?;
        let draft = self.open.get_mut(&message.app.key())?;
        if draft.as_ref().is_some_and(|draft| draft.bytes.len() + bytes > limits::PACK_BYTES_MAX) {
            self.full.extend(draft.take());
        }
        let draft = draft.get_or_insert_with(|| self.press.draft(message.id.key()));
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
                draft.take().into_iter().for_each(|draft| self.press.take_back(draft));
            }
        }
    }

    pub fn write(mut self, conn: &Connection) -> Outcome<()> {
        self.full.extend(self.open.into_values().flatten());
        // Appended to the tree, not put here and there.
        self.full.sort_unstable_by_key(|draft| draft.id);
        let mut insert = conn.prepare_cached("INSERT INTO pack (id, bytes) VALUES (?1, ?2)")?;
        for draft in self.full {
            insert.execute(params![draft.id, self.press.pack(&draft.bytes)?])?;
            self.press.take_back(draft);
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

/// Makes `unpacked(pack, at, bytes)` known to a connection: NULL without a place.
pub fn teach(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("unpacked", 3, flags, |context| {
        part(context).map_err(|error| {
            // SQLite passes on either a text or a code.
            tracing::error!(%error, "a payload cannot be read");
            rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), None)
        })
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
    pub pack: i64,
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::sqlite::fixture::new_message;
    use crate::stored::StoredPayload;

    fn accept(app: u8, n: i64, payload: &str) -> Accept {
        let new = new_message(n, app, payload, vec![]);
        let payload = StoredPayload::plain(new.message.payload.as_ref());
        Accept { new, payload, origin: Some(format!("from {n}")), reply: oneshot::channel().0 }
    }

    fn text(n: i64) -> String {
        format!("the payload of {n}, {}", "much like every other ".repeat(200))
    }

    fn segment() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        super::super::migrate::migrate(&mut conn, super::super::migrate::SEGMENT).unwrap();
        teach(&conn).unwrap();
        conn
    }

    fn read(conn: &Connection, pack: i64, at: u32, bytes: u32) -> rusqlite::Result<String> {
        let sql = "SELECT CAST(unpacked((SELECT bytes FROM pack WHERE id = ?1), ?2, ?3) AS TEXT)";
        conn.query_row(sql, params![pack, at, bytes], |row| row.get(0))
    }

    /// Broken: packs mix applications, grow without bound, or give out another message's bytes.
    #[test]
    fn messages_are_packed_by_application_and_found_in_their_packs() {
        let conn = segment();
        let mut accepts: Vec<Accept> = (0..60).map(|n| accept(1 + (n % 2) as u8, n, &text(n))).collect();
        accepts.push(accept(3, 60, &text(60)));
        accepts.push(accept(4, 61, "small"));
        accepts.push(accept(4, 62, "small"));
        accepts.push(accept(1, 63, &"large ".repeat(4_000)));
        let mut press = Press::new();
        let mut packs = Packs::plan(&accepts, &mut press);
        let places: Vec<_> = accepts.iter().map(|accept| packs.put(&accept.new.message, accept.origin.as_ref())).collect();
        packs.write(&conn).unwrap();
        assert_eq!(places[60..], [None; 4], "alone, too little to be worth one, too large");
        let mut apps = HashMap::new();
        for (accept, place) in accepts.iter().zip(&places[..60]) {
            let (message, place) = (&accept.new.message, place.unwrap());
            assert_eq!(*apps.entry(place.pack).or_insert(message.app), message.app);
            let origin = place.origin_bytes.unwrap();
            assert_eq!(read(&conn, place.pack, place.at, origin).unwrap(), format!("from {}", message.id.key()));
            let payload = read(&conn, place.pack, place.at + origin, place.payload_bytes.unwrap()).unwrap();
            assert_eq!(payload, text(message.id.key()));
        }
        let sum = |what: &str| -> usize { conn.query_row(what, [], |row| row.get::<_, u32>(0)).unwrap() as usize };
        let (count, bytes) = (sum("SELECT count(*) FROM pack"), sum("SELECT sum(length(bytes)) FROM pack"));
        assert_eq!(count, apps.len());
        let whole: usize = (0..60).map(|n| text(n).len()).sum();
        assert!(count >= whole / limits::PACK_BYTES_MAX && bytes < whole / 20, "{count} packs of {bytes} bytes for {whole}");
    }

    /// Broken: what was refused is stored, or its neighbours are found elsewhere.
    #[test]
    fn what_was_refused_is_in_no_pack() {
        let conn = segment();
        let accepts: Vec<Accept> = (0..6).map(|n| accept(1, n, &text(n))).collect();
        let mut press = Press::new();
        let mut packs = Packs::plan(&accepts, &mut press);
        let mut places = Vec::new();
        for accept in &accepts {
            let message = &accept.new.message;
            let place = packs.put(message, accept.origin.as_ref()).unwrap();
            // The first one too: its key may be that of a pack that is there already.
            if message.id.key() % 2 == 0 {
                packs.take_back(message, place);
            } else {
                places.push((message.id.key(), place));
            }
        }
        packs.write(&conn).unwrap();
        let stored: Vec<u8> = conn.query_row("SELECT bytes FROM pack WHERE id = 1", [], |row| row.get(0)).unwrap();
        let whole = String::from_utf8(unpacked(&stored).unwrap()).unwrap();
        assert_eq!(whole, [1, 3, 5].map(|n| format!("from {n}{}", text(n))).concat());
        for (n, place) in places {
            assert_eq!(read(&conn, place.pack, place.at, place.origin_bytes.unwrap()).unwrap(), format!("from {n}"));
        }
    }

    /// Broken: a deleted payload is still there, or takes others along.
    #[test]
    fn a_shredded_payload_is_overwritten_and_no_other() {
        let conn = segment();
        let accepts: Vec<Accept> = (0..30).map(|n| accept(1, n, &text(n))).collect();
        let mut press = Press::new();
        let mut packs = Packs::plan(&accepts, &mut press);
        let places: Vec<Place> =
            accepts.iter().map(|accept| packs.put(&accept.new.message, accept.origin.as_ref()).unwrap()).collect();
        packs.write(&conn).unwrap();
        let range = |n: usize| {
            let Place { pack, at, origin_bytes, payload_bytes } = places[n];
            Range { pack, at: at + origin_bytes.unwrap(), bytes: payload_bytes.unwrap() }
        };
        shred(&conn, vec![range(29), range(4), range(3)]).unwrap();
        for (n, place) in places.iter().enumerate() {
            let Range { pack, at, bytes } = range(n);
            let payload = read(&conn, pack, at, bytes).unwrap();
            if [3, 4, 29].contains(&n) {
                assert!(payload.bytes().all(|byte| byte == 0) && payload.len() == bytes as usize, "{n}");
            } else {
                assert_eq!(payload, text(n as i64));
            }
            assert_eq!(read(&conn, pack, place.at, place.origin_bytes.unwrap()).unwrap(), format!("from {n}"));
        }
    }

    /// Broken: damage is taken for a payload, allocates what it claims, or keeps a payload from being deleted.
    #[test]
    fn a_damaged_pack_is_an_error_and_can_be_shredded() {
        let conn = segment();
        let whole = lz4_flex::block::compress_prepend_size(text(1).as_bytes());
        let mut too_large = whole.clone();
        too_large[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        for (id, damaged) in [(1, Vec::new()), (2, whole[..whole.len() - 3].to_vec()), (3, too_large), (4, vec![0xff; 90])] {
            conn.execute("INSERT INTO pack (id, bytes) VALUES (?1, ?2)", params![id, damaged]).unwrap();
            let error = read(&conn, id, 0, 1).unwrap_err();
            let error = StoreError::from(super::super::fault::Fault::from(error));
            assert!(matches!(error, StoreError::Corrupt(_)), "{id}: {error}");
            shred(&conn, vec![Range { pack: id, at: 0, bytes: 1 }]).unwrap();
            let left: Vec<u8> = conn.query_row("SELECT bytes FROM pack WHERE id = ?1", [id], |row| row.get(0)).unwrap();
            assert!(left.is_empty(), "{id}");
        }
        conn.execute("INSERT INTO pack (id, bytes) VALUES (9, ?1)", [whole]).unwrap();
        let end = number(text(1).len());
        assert_eq!(read(&conn, 9, end, 0).unwrap(), "");
        for (pack, at, bytes) in [(9, end, 1), (9, 0, end + 1), (9, u32::MAX, u32::MAX), (8, 0, 1)] {
            assert!(read(&conn, pack, at, bytes).is_err(), "{pack} {at} {bytes}");
        }
    }
}
