//! How values stand in columns: lists, JSON, ids, payloads.

use bellwire_core::{IdKind, Message, MessageId, Timestamp};
use rusqlite::Row;

use super::fault::Outcome;
use super::pack::{origin_sql, payload_sql};
pub use crate::stored::{JSON, StoredPayload, from_json, list_to_text, origin, text_to_list, to_json, unpack};

pub fn from_json_opt<T: serde::de::DeserializeOwned>(text: Option<String>) -> Outcome<Option<T>> {
    Ok(text.as_deref().map(from_json).transpose()?)
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

/// The columns [`message`] reads, in its order.
pub const MESSAGE_COLUMNS: &str = concat!(
    "message.id, message.tail, message.event_type, message.event_id, message.content_type, message.channels, message.tags, \
     message.created_at, message.deliver_at, message.payload_expires_at, message.encoding, message.checksum, ",
    origin_sql!()
);
/// The column that follows them where the payload is wanted, and where it is not.
pub const WITH_PAYLOAD: &str = payload_sql!();
pub const WITHOUT_PAYLOAD: &str = "NULL";
/// How many columns that makes.
pub const MESSAGE_WIDTH: usize = 14;

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
        origin: origin(row.get_ref(at + 12)?.as_str_or_null()?),
    };
    Ok(MessageRow { message, encoding: row.get(at + 10)?, checksum: row.get(at + 11)?, stored: row.get(at + 13)? })
}

impl MessageRow {
    /// Unpacks the payload and verifies it.
    pub fn unpack(self) -> Outcome<Message> {
        let Self { mut message, encoding, checksum: expected, stored } = self;
        let Some(stored) = stored else { return Ok(message) };
        message.payload = Some(unpack(message.id, encoding, expected, stored)?);
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_blobs_read_back_as_written() {
        let keys = [1, i64::MAX, 0x0102_0304_0506_0708];
        assert_eq!(blob_to_keys(&keys_to_blob(keys)).collect::<Vec<_>>(), keys);
    }
}
