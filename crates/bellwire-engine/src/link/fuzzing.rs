//! For fuzzing only: what reads a peer's frames.

use std::time::Duration;

use bellwire_core::{AppId, EndpointId, IdKind, Message, MessageId, Timestamp};
use bellwire_store::{Accepted, Idempotency, NewMessage};
use bytes::Bytes;

use super::wire::{Reader, Said, put_answer, put_behind, put_message};

/// Reads messages and answers out of any bytes; what could be read must come out the same when it is written and read again. How many
/// there were of each.
///
/// # Panics
/// If it does not.
pub fn frame(bytes: &[u8]) -> (usize, usize) {
    let (mut messages, mut answers) = (0, 0);
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    while let Some(new) = reader.message() {
        let mut out = Vec::new();
        assert!(put_message(&mut out, &new).is_some(), "a message that was read cannot be written");
        let again = Reader::new(out.into()).message();
        assert_eq!(format!("{again:?}"), format!("{:?}", Some(new)), "a message changes when it is sent on");
        messages += 1;
    }
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    while let Some(said) = reader.said() {
        let mut out = Vec::new();
        match &said {
            Said::Answer(number, answer) => put_answer(&mut out, *number, *answer),
            Said::Behind(apps) if apps.len() > 1_024 => continue,
            Said::Behind(apps) => put_behind(&mut out, apps),
        }
        assert_eq!(Reader::new(out.into()).said(), Some(said), "what is said changes when it is sent on");
        answers += 1;
    }
    (messages, answers)
}

/// Frames as nodes send them.
pub fn frames() -> Vec<Vec<u8>> {
    let message = Message {
        id: MessageId::from_bytes([1; 20]),
        app: AppId::from_bytes([2; 20]),
        event_type: "a.b".to_owned(),
        event_id: Some("event".to_owned()),
        payload: Some(Bytes::from_static(b"{}")),
        content_type: "application/json".to_owned(),
        channels: vec!["x".to_owned()],
        tags: vec!["t".to_owned()],
        created_at: Timestamp(5),
        deliver_at: Some(Timestamp(6)),
        payload_expires_at: Timestamp(7),
        origin: None,
    };
    let idempotency = Idempotency { key: [3; 16], request: [4; 16], expires_at: Timestamp(9), window: Duration::from_secs(1) };
    let endpoints = vec![EndpointId::from_bytes([5; 20]); 2];
    let full = NewMessage { message, endpoints, idempotency: Some(idempotency), app_version: Some(12) };
    let mut empty = full.clone();
    (empty.message.payload, empty.message.event_id, empty.idempotency, empty.app_version) = (None, None, None, None);
    let messages = [&full, &empty].map(|new| {
        let mut out = Vec::new();
        put_message(&mut out, new);
        out
    });
    let mut answers = Vec::new();
    let kinds = [Some(Accepted::Fresh), Some(Accepted::Replayed(full.message.id)), Some(Accepted::Outdated), None];
    (0..).zip(kinds).for_each(|(number, answer)| put_answer(&mut answers, number, answer));
    put_behind(&mut answers, &[full.message.app]);
    vec![messages[0].clone(), messages.concat(), answers]
}
