//! Writing accepted messages: one group, one transaction, one item's conflict never another's.

use bellwire_core::{IdKind, Message, MessageId, Timestamp, Trigger};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Fault, Outcome};
use super::files::Files;
use super::inbox::Accept;
use super::keys::Made;
use super::pack::{self, Packs};
use super::row::{self, JSON};
use crate::{Accepted, Idempotency, Result, StoreError};

const INSERT_MESSAGE: &str = "INSERT INTO message (id, tail, app, event_type, event_id, encoding, checksum, content_type, channels, \
     tags, created_at, deliver_at, payload_expires_at, payload_dies_at, payload, origin, pack, pack_at, payload_bytes, origin_bytes) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
const INSERT_QUEUE: &str = "INSERT OR REPLACE INTO queue (message, tail, app, endpoints) VALUES (?1, ?2, ?3, ?4)";
const INSERT_RETRY: &str = "INSERT OR REPLACE INTO retry (message, endpoint, tail, app, state, tries, due_at, trigger, is_delivered) \
     VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, 0)";

/// Writes the messages of one segment, inside its transaction. What each came to is in their order.
pub fn write(files: &Files, at: usize, accepts: &[Accept]) -> Outcome<Vec<Result<Accepted>>> {
    if accepts.is_empty() {
        return Ok(Vec::new());
    }
    let conn = files.segments[at].file.tx()?;
    let mut insert_message = conn.prepare_cached(INSERT_MESSAGE)?;
    let mut insert_queue = conn.prepare_cached(INSERT_QUEUE)?;
    let mut results = Vec::with_capacity(accepts.len());
    let mut press = files.press.borrow_mut();
    let mut packs = Packs::plan(accepts, &mut press);
    for accept in accepts {
        let new = &*accept.new;
        let message = &new.message;
        if let Some(result) = refuse_or_replay(files, at, message, new.idempotency.as_ref())? {
            results.push(result);
            continue;
        }
        let place = packs.put(message, accept.origin.as_ref());
        let payload = message.payload.as_ref();
        // What goes into its own row all the same.
        let alone = (place.is_none() && pack::packable(message, accept.origin.as_ref()).is_some())
            .then(|| accept.payload.compressed(payload));
        let stored = alone.as_ref().unwrap_or(&accept.payload);
        let inserted = insert_message.execute(params![
            message.id.key(),
            message.id.tail(),
            message.app.key(),
            &message.event_type,
            &message.event_id,
            stored.encoding(),
            stored.checksum,
            (message.content_type != JSON).then_some(&message.content_type),
            row::list_to_text(&message.channels),
            row::list_to_text(&message.tags),
            (message.created_at != message.id.created()).then_some(message.created_at.as_millis()),
            message.deliver_at.map(Timestamp::as_millis),
            message.payload_expires_at.as_millis(),
            dies_early(files, message).then_some(message.payload_expires_at.as_millis()),
            stored.bytes(payload).filter(|_| place.is_none()),
            accept.origin.as_ref().filter(|_| place.is_none()),
            place.map(|place| place.pack),
            place.map(|place| place.at),
            place.and_then(|place| place.payload_bytes),
            place.and_then(|place| place.origin_bytes),
        ]);
        if let Err(error) = inserted {
            if let Some(place) = place {
                packs.take_back(message, place);
            }
            results.push(Err(conflict(error.into(), message)?));
            continue;
        }
        if let Some(key) = &new.idempotency {
            let made = Made { request: key.request, message: message.id.key(), expires_at: key.expires_at.as_millis() };
            files.segments[at].keys.borrow_mut().add(key.key, made);
        }
        if let Some(due_at) = message.deliver_at {
            let mut insert_retry = conn.prepare_cached(INSERT_RETRY)?;
            for endpoint in &new.endpoints {
                insert_retry.execute(params![
                    message.id.key(),
                    endpoint.key(),
                    message.id.tail(),
                    message.app.key(),
                    due_at.as_millis(),
                    Trigger::Scheduled as u8,
                ])?;
            }
        } else if !new.endpoints.is_empty() {
            let endpoints = row::keys_to_blob(new.endpoints.iter().map(IdKind::key));
            insert_queue.execute((message.id.key(), message.id.tail(), message.app.key(), endpoints))?;
        }
        results.push(Ok(Accepted::Fresh));
    }
    packs.write(conn)?;
    let mut keys = files.segments[at].keys.borrow_mut();
    keys.write(conn)?;
    keys.advance(conn, accepts.len())?;
    Ok(results)
}

/// Whether the payload goes before retention would take the whole segment.
fn dies_early(files: &Files, message: &Message) -> bool {
    message.payload.is_some() && message.payload_expires_at < message.id.created().plus(files.options.retention)
}

/// What can be said before the message is written: the key was used, or the event id is taken in another segment.
fn refuse_or_replay(files: &Files, at: usize, message: &Message, key: Option<&Idempotency>) -> Outcome<Option<Result<Accepted>>> {
    // A key that was used says more: it is looked at first.
    if let Some(found) = key.map(|key| find_key(files, key)).transpose()?.flatten() {
        return Ok(Some(found.map(Accepted::Replayed)));
    }
    Ok(refuse_event_id(files, at, message)?.map(Err))
}

fn refuse_event_id(files: &Files, at: usize, message: &Message) -> Outcome<Option<StoreError>> {
    if let Some(event_id) = &message.event_id {
        for (other, segment) in files.segments.iter().enumerate() {
            if other == at {
                continue;
            }
            let taken = segment
                .file
                .conn
                .prepare_cached("SELECT 1 FROM message WHERE app = ?1 AND event_id = ?2")?
                .exists(params![message.app.key(), event_id])?;
            if taken {
                return Ok(Some(event_id_taken(message)));
            }
        }
    }
    Ok(None)
}

/// The message made under this key, if it still counts. Keys live shorter than segments, so few segments are asked.
fn find_key(files: &Files, key: &Idempotency) -> Outcome<Option<Result<MessageId>>> {
    let now = key.made_at();
    for segment in files.segments.iter().rev() {
        let conn = &segment.file.conn;
        let made = segment.keys.borrow().find(conn, &key.key)?.filter(|made| made.expires_at > now.as_millis());
        if let Some(made) = made
            && let Some(id) = message_of(conn, &made)?
        {
            return Ok(Some(if made.request == key.request { Ok(id) } else { Err(StoreError::IdempotencyMismatch) }));
        }
        // All messages of the segments before this one are older than the window.
        if bellwire_core::id::key_to_timestamp(segment.segment.start) < now.minus(key.window) {
            break;
        }
    }
    Ok(None)
}

fn message_of(conn: &Connection, made: &Made) -> Outcome<Option<MessageId>> {
    let mut statement = conn.prepare_cached("SELECT id, tail FROM message WHERE id = ?1")?;
    Ok(statement.query_row([made.message], |row| row::id(row, 0, 1)).optional()?)
}

fn event_id_taken(message: &Message) -> StoreError {
    StoreError::Conflict { what: "eventId", value: message.event_id.clone().unwrap_or_default() }
}

/// A broken uniqueness rule, by which it was; anything else is the group's fault.
fn conflict(fault: Fault, message: &Message) -> Outcome<StoreError> {
    if fault.is_unique_index() {
        Ok(event_id_taken(message))
    } else if fault.is_constraint() {
        Ok(StoreError::Conflict { what: "id", value: message.id.to_string() })
    } else {
        Err(fault)
    }
}
