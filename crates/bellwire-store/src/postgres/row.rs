//! How values stand in columns: lists, JSON, ids, payloads.

use bellwire_core::{AppId, IdKind, Message, MessageId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::fault::Outcome;
use crate::StoreError;
pub use crate::stored::{JSON, StoredPayload, from_json, list_to_text, origin, text_to_list, to_json, unpack};

/// A column's value.
pub fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Outcome<T> {
    Ok(row.try_get(column)?)
}

/// An id from its key and tail columns.
pub fn id<I: IdKind>(row: &Row, key: usize, tail: usize) -> Outcome<I> {
    Ok(I::from_key_and_tail(get(row, key)?, fixed(row, tail)?))
}

/// An id from one column of 20 bytes.
pub fn whole_id<I: IdKind>(row: &Row, column: usize) -> Outcome<I> {
    Ok(I::from_bytes(fixed(row, column)?))
}

/// A column that always has so many bytes.
pub fn fixed<const N: usize>(row: &Row, column: usize) -> Outcome<[u8; N]> {
    let bytes: &[u8] = get(row, column)?;
    let found = bytes.len();
    bytes.try_into().map_err(|_| StoreError::Corrupt(format!("{found} bytes where {N} belong")).into())
}

pub fn time(row: &Row, column: usize) -> Outcome<Timestamp> {
    Ok(Timestamp(get(row, column)?))
}

pub fn time_opt(row: &Row, column: usize) -> Outcome<Option<Timestamp>> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp))
}

pub fn rate(row: &Row, column: usize) -> Outcome<Option<u16>> {
    Ok(get::<Option<i32>>(row, column)?.and_then(|rate| u16::try_from(rate).ok()))
}

/// As [`rate`] reads it.
pub fn rate_sql(rate: Option<u16>) -> Option<i32> {
    rate.map(i32::from)
}

pub fn count(row: &Row, column: usize) -> Outcome<u64> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

/// JSON in a column that may be NULL.
pub fn json_opt<T: serde::de::DeserializeOwned>(row: &Row, column: usize) -> Outcome<Option<T>> {
    Ok(get::<Option<&str>>(row, column)?.map(from_json).transpose()?)
}

/// The tail of an id as a parameter.
pub fn tail<I: IdKind>(id: &I) -> Vec<u8> {
    id.tail().to_vec()
}

/// The whole id as a parameter.
pub fn bytes<I: IdKind>(id: &I) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// The columns [`message`] reads, in its order.
pub const MESSAGE_COLUMNS: &str = "message.id, message.tail, message.event_type, message.event_id, message.content_type, \
     message.channels, message.tags, message.created_at, message.deliver_at, message.payload_expires_at, message.encoding, \
     message.checksum, message.origin";
/// The column that follows them where the payload is wanted, and where it is not.
pub const WITH_PAYLOAD: &str = "message.payload";
pub const WITHOUT_PAYLOAD: &str = "NULL::bytea";
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
pub fn message(row: &Row, at: usize, app: AppId) -> Outcome<MessageRow> {
    let id: MessageId = id(row, at, at + 1)?;
    let message = Message {
        id,
        app,
        event_type: get(row, at + 2)?,
        event_id: get(row, at + 3)?,
        payload: None,
        content_type: get::<Option<String>>(row, at + 4)?.unwrap_or_else(|| JSON.to_owned()),
        channels: text_to_list(get(row, at + 5)?),
        tags: text_to_list(get(row, at + 6)?),
        created_at: time_opt(row, at + 7)?.unwrap_or_else(|| id.created()),
        deliver_at: time_opt(row, at + 8)?,
        payload_expires_at: time(row, at + 9)?,
        origin: origin(get(row, at + 12)?),
    };
    let encoding = i64::from(get::<i16>(row, at + 10)?);
    Ok(MessageRow { message, encoding, checksum: get(row, at + 11)?, stored: get(row, at + 13)? })
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
