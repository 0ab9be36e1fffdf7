//! How values stand in columns: lists, JSON, ids, payloads.

use bellwire_core::{IdKind, Message, MessageId, Timestamp, limits};
use bytes::Bytes;
use rusqlite::Row;
use xxhash_rust::xxh3::xxh3_64;

use super::fault::Outcome;
use crate::StoreError;

/// What `content_type` NULL stands for.
pub const JSON: &str = "application/json";
/// zstd level: the fastest; the disk is not the bottleneck, the writer's processor is.
const COMPRESSION_LEVEL: i32 = 1;
/// An unpacked payload: what ingest takes, and room for an operator who allows more.
const UNPACKED_BYTES_MAX: usize = 64 * limits::PAYLOAD_BYTES_MAX;

/// `|a|b|`, so that `instr(column, '|a|')` finds an element; NULL when empty.
pub fn list_to_text(list: &[String]) -> Option<String> {
    if list.is_empty() {
        return None;
    }
    let mut text = String::with_capacity(list.iter().map(|s| s.len() + 1).sum::<usize>() + 1);
    text.push('|');
    for item in list {
        text.push_str(item);
        text.push('|');
    }
    Some(text)
}

pub fn text_to_list(text: Option<&str>) -> Vec<String> {
    match text {
        Some(text) => text.split('|').filter(|item| !item.is_empty()).map(str::to_owned).collect(),
        None => Vec::new(),
    }
}

pub fn to_json<T: serde::Serialize>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Io(error.to_string()).into())
}

pub fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Outcome<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()).into())
}

pub fn from_json_opt<T: serde::de::DeserializeOwned>(text: Option<String>) -> Outcome<Option<T>> {
    text.as_deref().map(from_json).transpose()
}

/// An id from its key and tail columns.
pub fn id<I: IdKind>(row: &Row<'_>, key: usize, tail: usize) -> rusqlite::Result<I> {
    Ok(I::from_key_and_tail(row.get(key)?, row.get(tail)?))
}

/// An id from one column of 20 bytes.
pub fn whole_id<I: IdKind>(row: &Row<'_>, column: usize) -> rusqlite::Result<I> {
    Ok(I::from_bytes(row.get(column)?))
}

pub fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp(row.get(column)?))
}

pub fn time_opt(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

pub fn rate(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u16>> {
    row.get(column)
}

/// Keys of endpoints as the queue holds them.
pub fn keys_to_blob(keys: impl IntoIterator<Item = i64>) -> Vec<u8> {
    keys.into_iter().flat_map(i64::to_be_bytes).collect()
}

pub fn blob_to_keys(blob: &[u8]) -> impl Iterator<Item = i64> + '_ {
    blob.as_chunks::<8>().0.iter().map(|chunk| i64::from_be_bytes(*chunk))
}

/// A payload as it will be stored; made by the caller of the writer, not on its thread.
#[derive(Debug)]
pub struct StoredPayload {
    /// `None`: as it came.
    compressed: Option<Vec<u8>>,
    pub checksum: i64,
}

impl StoredPayload {
    pub fn of(payload: Option<&Bytes>) -> Self {
        let Some(payload) = payload else { return Self { compressed: None, checksum: 0 } };
        let compressed = (payload.len() > limits::COMPRESS_ABOVE_BYTES)
            .then(|| zstd::bulk::compress(payload, COMPRESSION_LEVEL).ok())
            .flatten()
            .filter(|compressed| compressed.len() < payload.len());
        Self { compressed, checksum: checksum(payload) }
    }

    pub fn encoding(&self) -> i64 {
        i64::from(self.compressed.is_some())
    }

    pub fn bytes<'a>(&'a self, payload: Option<&'a Bytes>) -> Option<&'a [u8]> {
        self.compressed.as_deref().or(payload.map(AsRef::as_ref))
    }
}

fn checksum(payload: &[u8]) -> i64 {
    xxh3_64(payload).cast_signed()
}

/// The columns [`message`] reads, in its order.
pub const MESSAGE_COLUMNS: &str = "message.id, message.tail, message.event_type, message.event_id, message.content_type, \
     message.channels, message.tags, message.created_at, message.deliver_at, message.payload_expires_at, message.encoding, \
     message.checksum";
/// The column that follows them where the payload is wanted, and where it is not.
pub const WITH_PAYLOAD: &str = "message.payload";
pub const WITHOUT_PAYLOAD: &str = "NULL";
/// How many columns that makes.
pub const MESSAGE_WIDTH: usize = 13;

/// A message's row as read, its payload not yet unpacked.
#[derive(Debug)]
pub struct MessageRow {
    pub message: Message,
    encoding: i64,
    checksum: i64,
    stored: Option<Vec<u8>>,
}

/// Reads a row of [`MESSAGE_COLUMNS`] and the payload column, beginning at column `at`. The application's tail is the caller's.
pub fn message(row: &Row<'_>, at: usize, app: bellwire_core::AppId) -> rusqlite::Result<MessageRow> {
    let id: MessageId = id(row, at, at + 1)?;
    let text = |column: usize| -> rusqlite::Result<Vec<String>> { Ok(text_to_list(row.get_ref(at + column)?.as_str_or_null()?)) };
    let message = Message {
        id,
        app,
        event_type: row.get(at + 2)?,
        event_id: row.get(at + 3)?,
        payload: None,
        content_type: row.get::<_, Option<String>>(at + 4)?.unwrap_or_else(|| JSON.to_owned()),
        channels: text(5)?,
        tags: text(6)?,
        created_at: time_opt(row, at + 7)?.unwrap_or_else(|| id.created()),
        deliver_at: time_opt(row, at + 8)?,
        payload_expires_at: time(row, at + 9)?,
    };
    Ok(MessageRow { message, encoding: row.get(at + 10)?, checksum: row.get(at + 11)?, stored: row.get(at + 12)? })
}

impl MessageRow {
    /// Unpacks the payload and verifies it.
    pub fn unpack(self) -> Outcome<Message> {
        let Self { mut message, encoding, checksum: expected, stored } = self;
        let Some(stored) = stored else { return Ok(message) };
        let corrupt = |what: &str| StoreError::Corrupt(format!("payload of {}: {what}", message.id));
        let payload = match encoding {
            0 => stored,
            1 => {
                // The frame says its size; what says more than a payload may be is damage, not a reason to allocate.
                let size = zstd::zstd_safe::get_frame_content_size(&stored).ok().flatten().unwrap_or(0);
                let size = usize::try_from(size).unwrap_or(usize::MAX).min(UNPACKED_BYTES_MAX);
                zstd::bulk::decompress(&stored, size).map_err(|error| corrupt(&error.to_string()))?
            }
            other => return Err(corrupt(&format!("unknown encoding {other}")).into()),
        };
        if checksum(&payload) != expected {
            return Err(corrupt("checksum mismatch").into());
        }
        message.payload = Some(payload.into());
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_back_as_written() {
        for list in [vec![], vec!["a".to_owned()], vec!["a".to_owned(), "b.c-d".to_owned()]] {
            assert_eq!(text_to_list(list_to_text(&list).as_deref()), list);
        }
    }

    #[test]
    fn queue_blobs_read_back_as_written() {
        let keys = [1, i64::MAX, 0x0102_0304_0506_0708];
        assert_eq!(blob_to_keys(&keys_to_blob(keys)).collect::<Vec<_>>(), keys);
    }
}
