//! Ids: a noun's prefix and a 27-character KSUID whose first eight bytes sort by time, also within one second.
//!
//! A KSUID is 20 bytes: seconds since 2014-05-13 (4 bytes) and 16 bytes that are random in the original. Here the first four
//! of those 16 are a sub-second sequence, strictly increasing in one process, so that ids of one second sort in the order they
//! were made and the first eight bytes are a key of their own ([`MessageId::key`]). The other twelve bytes stay random.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::time::Timestamp;

const EPOCH_SECONDS: i64 = 1_400_000_000;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const TEXT_LEN: usize = 27;
const RAW_LEN: usize = 20;

/// Why a text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {prefix}… (prefix and 27 letters or digits)")]
pub struct ParseIdError {
    pub text: String,
    pub prefix: &'static str,
}

/// What all id types share: their prefix and their 20 bytes.
pub trait IdKind: Sized + Copy + Ord + fmt::Display {
    const PREFIX: &'static str;
    fn from_bytes(raw: [u8; 20]) -> Self;
    fn as_bytes(&self) -> &[u8; 20];

    /// The time-ordered first eight bytes: unique and increasing in one store.
    fn key(&self) -> i64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.as_bytes()[..8]);
        i64::from_be_bytes(head)
    }

    /// The random last twelve bytes.
    fn tail(&self) -> [u8; 12] {
        let mut tail = [0; 12];
        tail.copy_from_slice(&self.as_bytes()[8..]);
        tail
    }

    fn from_key_and_tail(key: i64, tail: [u8; 12]) -> Self {
        let mut raw = [0; RAW_LEN];
        raw[..8].copy_from_slice(&key.to_be_bytes());
        raw[8..].copy_from_slice(&tail);
        Self::from_bytes(raw)
    }

    /// When it was made, to the millisecond.
    fn created(&self) -> Timestamp {
        key_to_timestamp(self.key())
    }
}

/// The time inside a key (see [`IdKind::key`]).
pub fn key_to_timestamp(key: i64) -> Timestamp {
    let seconds = (key >> 32) + EPOCH_SECONDS;
    let fraction_ms = ((key & 0xffff_ffff) * 1_000) >> 32;
    Timestamp(seconds * 1_000 + fraction_ms)
}

/// The smallest key an id made at `at` can have; the bound for "created before/after" queries.
pub fn timestamp_to_key(at: Timestamp) -> i64 {
    let seconds = (at.as_unix_seconds() - EPOCH_SECONDS).clamp(0, i64::from(i32::MAX));
    let fraction = at.as_millis().rem_euclid(1_000);
    // Rounded up, so that converting back never lands in the millisecond before.
    (seconds << 32) | ((fraction << 32).div_euclid(1_000) + i64::from(fraction != 0))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; RAW_LEN]);

        impl IdKind for $name {
            const PREFIX: &'static str = $prefix;
            fn from_bytes(raw: [u8; 20]) -> Self { Self(raw) }
            fn as_bytes(&self) -> &[u8; 20] { &self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(&self.0);
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .and_then(|rest| decode(rest.as_bytes()))
                    .map(Self)
                    .ok_or_else(|| ParseIdError { text: text.chars().take(64).collect(), prefix: $prefix })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

ids! {
    /// An organisation: the owner of applications and event types.
    OrgId = "org_",
    AppId = "app_",
    EndpointId = "ep_",
    MessageId = "msg_",
    AttemptId = "atmpt_",
    /// A background task (recover, replay).
    TaskId = "qtask_",
    /// The public half of an API key.
    ApiKeyId = "key_",
    /// A way in.
    SourceId = "src_",
    /// An entry of a source's log: a request that did not become a message of its own.
    ReceiptId = "log",
    /// A portal token, so that it can be revoked.
    TokenId = "tok_",
}

fn encode(raw: &[u8; RAW_LEN]) -> [u8; TEXT_LEN] {
    // Base 62 by repeated division, five 32-bit limbs, most significant first.
    let mut limbs = [0u32; 5];
    for (limb, chunk) in limbs.iter_mut().zip(raw.chunks_exact(4)) {
        *limb = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    let mut out = [b'0'; TEXT_LEN];
    // 62^5 = 916,132,832 fits 32 bits: five digits a division.
    let mut at = TEXT_LEN;
    while at > 0 {
        let mut rest: u64 = 0;
        for limb in &mut limbs {
            let value = (rest << 32) | u64::from(*limb);
            *limb = (value / 916_132_832) as u32;
            rest = value % 916_132_832;
        }
        for _ in 0..5.min(at) {
            at -= 1;
            out[at] = ALPHABET[(rest % 62) as usize];
            rest /= 62;
        }
    }
    out
}

fn decode(text: &[u8]) -> Option<[u8; RAW_LEN]> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut limbs = [0u32; 5];
    for &c in text {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'A'..=b'Z' => c - b'A' + 10,
            b'a'..=b'z' => c - b'a' + 36,
            _ => return None,
        };
        let mut carry = u64::from(digit);
        for limb in limbs.iter_mut().rev() {
            let value = u64::from(*limb) * 62 + carry;
            *limb = value as u32;
            carry = value >> 32;
        }
        if carry != 0 {
            return None;
        }
    }
    let mut raw = [0; RAW_LEN];
    for (chunk, limb) in raw.chunks_exact_mut(4).zip(limbs) {
        chunk.copy_from_slice(&limb.to_be_bytes());
    }
    Some(raw)
}

/// Nodes that can make ids for one store at the same time: each has a number of its own in the low bits of every key, so that
/// two never make the same one. It leaves 4,096 keys a millisecond and node.
pub const ID_SLOTS: u16 = 1_024;

/// Makes ids whose keys strictly increase, whatever the clock does. One per process; share it by `Arc`.
#[derive(Debug)]
pub struct IdGenerator {
    last: AtomicI64,
    /// Negative: the only node there is, all keys are its own.
    slot: AtomicI64,
}

impl IdGenerator {
    /// `last_key` is the largest key the store holds (0 for an empty one), so that a clock set back cannot repeat a key.
    pub fn new(last_key: i64) -> Self {
        Self { last: AtomicI64::new(last_key), slot: AtomicI64::new(-1) }
    }

    /// From now on keys are this node's alone: below [`ID_SLOTS`], and no other node's at the same time.
    pub fn set_slot(&self, slot: Option<u16>) {
        self.slot.store(slot.map_or(-1, |slot| i64::from(slot % ID_SLOTS)), Ordering::Relaxed);
    }

    /// A new id made at `now` with twelve random bytes.
    pub fn generate<I: IdKind>(&self, now: Timestamp, random: [u8; 12]) -> I {
        I::from_key_and_tail(self.next_key(now), random)
    }

    /// Raises the floor: later keys are above `key`.
    pub fn observe(&self, key: i64) {
        self.last.fetch_max(key, Ordering::Relaxed);
    }

    fn next_key(&self, now: Timestamp) -> i64 {
        let wanted = timestamp_to_key(now);
        let slot = self.slot.load(Ordering::Relaxed);
        let above = |last: i64| {
            let least = wanted.max(last + 1);
            // The next key from there on that is this node's.
            if slot < 0 { least } else { least + (slot - least).rem_euclid(i64::from(ID_SLOTS)) }
        };
        let previous = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(above(last))).unwrap_or(wanted);
        above(previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_matches_the_ksuid_specification() {
        // Known pair from the reference implementation's README (segmentio/ksuid).
        let raw: [u8; 20] = [
            0x06, 0x69, 0xF7, 0xEF, 0xB5, 0xA1, 0xCD, 0x34, 0xB5, 0xF9, 0x9D, 0x11, 0x54, 0xFB, 0x68, 0x53, 0x34, 0x5C, 0x97,
            0x35,
        ];
        let id = MessageId::from_bytes(raw);
        assert_eq!(id.to_string(), "msg_0ujtsYcgvSTl8PAuAdqWYSMnLOv");
        assert_eq!("msg_0ujtsYcgvSTl8PAuAdqWYSMnLOv".parse::<MessageId>(), Ok(id));
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            "",
            "msg_",
            "app_0ujtsYcgvSTl8PAuAdqWYSMnLOv",
            "msg_0ujtsYcgvSTl8PAuAdqWYSMnLO",
            "msg_zzzzzzzzzzzzzzzzzzzzzzzzzzz",
            "msg_0ujtsYcgvSTl8PAuAdqWYSMnLO-",
        ] {
            assert!(text.parse::<MessageId>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_sort_in_the_order_they_were_made_even_when_the_clock_stands_still_or_goes_back() {
        let generator = IdGenerator::new(0);
        let mut last: Option<MessageId> = None;
        for step in 0..10_000i64 {
            let now = Timestamp(1_760_000_000_000 - (step % 7) * 1_000);
            let id: MessageId = generator.generate(now, [step as u8; 12]);
            if let Some(last) = last {
                assert!(id > last && id.key() > last.key() && id.to_string() > last.to_string());
            }
            last = Some(id);
        }
    }

    #[test]
    fn nodes_never_make_the_same_key_however_alike_their_clocks_are() {
        let generators = [0, 1, 1_023].map(|slot| {
            let generator = IdGenerator::new(0);
            generator.set_slot(Some(slot));
            generator
        });
        let mut seen = std::collections::HashSet::new();
        for step in 0..3_000 {
            let now = Timestamp(1_760_000_000_000 + step / 500);
            for generator in &generators {
                let id: MessageId = generator.generate(now, [0; 12]);
                assert!(seen.insert(id.key()), "two ids with one key");
                assert_eq!(id.created(), now, "the time inside stays right");
            }
        }
    }

    #[test]
    fn the_time_inside_an_id_is_the_time_it_was_made() {
        for ms in [1_760_000_000_000, 1_760_000_000_001, 1_760_000_000_999] {
            let id: AppId = IdGenerator::new(0).generate(Timestamp(ms), [9; 12]);
            assert_eq!(id.created(), Timestamp(ms));
        }
    }
}
