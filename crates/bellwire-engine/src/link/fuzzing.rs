//! For fuzzing only: what reads a peer's frames.

use bytes::Bytes;

use super::wire::{Reader, put_answer, put_message};

/// Reads messages and answers out of any bytes; what could be read must come out the same when it is written and read again.
///
/// # Panics
/// If it does not.
pub fn frame(bytes: &[u8]) {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    while let Some(new) = reader.message() {
        let mut out = Vec::new();
        assert!(put_message(&mut out, &new).is_some(), "a message that was read cannot be written");
        let again = Reader::new(out.into()).message();
        assert_eq!(format!("{again:?}"), format!("{:?}", Some(new)), "a message changes when it is sent on");
    }
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    while let Some((number, answer)) = reader.answer() {
        let mut out = Vec::new();
        put_answer(&mut out, number, answer);
        assert_eq!(Reader::new(out.into()).answer(), Some((number, answer)), "an answer changes when it is sent on");
    }
}
