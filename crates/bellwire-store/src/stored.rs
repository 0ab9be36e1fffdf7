//! How payloads and lists stand in columns, in every backend alike: so that rows can be moved from one to the other as they are.

use bellwire_core::{MessageId, limits};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Result, StoreError};

/// What `content_type` NULL stands for.
pub const JSON: &str = "application/json";
/// An unpacked payload: what ingest takes, and room for an operator who allows more.
const UNPACKED_BYTES_MAX: usize = 64 * limits::PAYLOAD_BYTES_MAX;

/// `|a|b|`, so that a search for `|a|` finds an element; NULL when empty.
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

pub fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Io(error.to_string()))
}

pub fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Where a message came from, out of its column. What cannot be read is left out: it is beside the message, not part of it.
pub fn origin(text: Option<&str>) -> Option<Box<bellwire_core::Origin>> {
    text.and_then(|text| serde_json::from_str(text).ok())
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
        Self::plain(payload).compressed(payload)
    }

    /// As it came.
    pub fn plain(payload: Option<&Bytes>) -> Self {
        Self { compressed: None, checksum: payload.map_or(0, |payload| checksum(payload)) }
    }

    /// The same, compressed where that pays.
    pub fn compressed(&self, payload: Option<&Bytes>) -> Self {
        let compressed = payload
            .filter(|payload| payload.len() > limits::COMPRESS_ABOVE_BYTES)
            .map(|payload| (payload, lz4_flex::block::compress_prepend_size(payload)))
            .filter(|(payload, compressed)| compressed.len() < payload.len())
            .map(|(_, compressed)| compressed);
        Self { compressed, checksum: self.checksum }
    }

    /// 0: as it came; 1: LZ4, behind four bytes (little-endian) of its size.
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

/// Unpacks a stored payload and verifies it.
///
/// # Errors
/// [`StoreError::Corrupt`] if it is not what was stored.
pub fn unpack(message: MessageId, encoding: i64, expected: i64, stored: Vec<u8>) -> Result<Bytes> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("payload of {message}: {what}"));
    let payload = match encoding {
        0 => stored,
        1 => {
            let (size, packed) = lz4_flex::block::uncompressed_size(&stored).map_err(|error| corrupt(&error.to_string()))?;
            // Damage, not a reason to allocate.
            if size > UNPACKED_BYTES_MAX {
                return Err(corrupt("larger than a payload may be"));
            }
            lz4_flex::block::decompress(packed, size).map_err(|error| corrupt(&error.to_string()))?
        }
        other => return Err(corrupt(&format!("unknown encoding {other}"))),
    };
    if checksum(&payload) != expected {
        return Err(corrupt("checksum mismatch"));
    }
    Ok(payload.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: what is packed by a thread depends on what it packed before.
    #[test]
    fn payloads_read_back_whatever_was_packed_before() {
        let id = <MessageId as bellwire_core::IdKind>::from_bytes([7; 20]);
        for bytes in [3_000, 100_000, 2_049, 100, 7_000, 2_048, 9_000] {
            let payload = Bytes::from("{\"bell\":\"rings\"}".repeat(bytes / 16 + 1).into_bytes()).slice(..bytes);
            let packed = StoredPayload::of(Some(&payload));
            let stored = packed.bytes(Some(&payload)).unwrap().to_vec();
            assert_eq!(packed.encoding() == 1, bytes > limits::COMPRESS_ABOVE_BYTES, "{bytes}");
            assert!(packed.encoding() == 0 || stored.len() < bytes / 2, "{bytes}: {}", stored.len());
            assert_eq!(unpack(id, packed.encoding(), packed.checksum, stored).unwrap(), payload);
        }
    }

    /// Broken: damage is taken for a payload.
    #[test]
    fn what_was_not_stored_is_not_read() {
        let id = <MessageId as bellwire_core::IdKind>::from_bytes([7; 20]);
        let payload = Bytes::from("{\"bell\":\"rings\"}".repeat(500));
        let lz4 = lz4_flex::block::compress_prepend_size(&payload);
        for (encoding, stored) in [(0, payload.to_vec()), (1, lz4.clone())] {
            assert_eq!(unpack(id, encoding, checksum(&payload), stored).unwrap(), payload, "{encoding}");
        }
        let mut far_too_large = lz4.clone();
        far_too_large[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        for (encoding, stored) in
            [(1, Vec::new()), (1, lz4[..lz4.len() - 3].to_vec()), (1, far_too_large), (0, lz4), (2, payload.to_vec())]
        {
            assert!(matches!(unpack(id, encoding, checksum(&payload), stored), Err(StoreError::Corrupt(_))), "{encoding}");
        }
    }

    #[test]
    fn lists_read_back_as_written() {
        for list in [vec![], vec!["a".to_owned()], vec!["a".to_owned(), "b.c-d".to_owned()]] {
            assert_eq!(text_to_list(list_to_text(&list).as_deref()), list);
        }
    }
}
