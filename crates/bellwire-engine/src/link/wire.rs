//! What goes over a link: messages to accept, and what became of them. Numbers are little endian; a text or list has its length before it.

use std::time::Duration;

use bellwire_core::{AppId, EndpointId, IdKind, Message, MessageId, Origin, Timestamp, limits};
use bellwire_store::{Accepted, Idempotency, NewMessage};
use bytes::Bytes;

const ID_BYTES: usize = 20;
const FRESH: u8 = 0;
const REPLAYED: u8 = 1;
const OUTDATED: u8 = 2;
const REFUSED: u8 = 3;
/// In place of the number of a request that is answered: the applications whose messages are to wait.
const BEHIND: u64 = u64::MAX;
/// More are not named.
const BEHIND_MAX: usize = 1_024;

/// In place of a request's number, with nothing after it: the database has something for the peer. No request has it: they are counted.
pub const NUDGE: u64 = u64::MAX;
/// In place of a request's number, before a message that this node has accepted: with the endpoints that are the peer's. Not answered.
pub const ACCEPTED: u64 = u64::MAX - 1;
/// The same of a message accepted less than [`super::FRESH_MAX`] ago: the peer may take the sender's word for it.
pub const JUST_ACCEPTED: u64 = u64::MAX - 2;

/// What a peer says to whom it is linked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Answer(u64, Answer),
    /// Its deliveries for these applications are behind, and for no others.
    Behind(Vec<AppId>),
}

/// What the peer made of a message; `None`: nothing, or it does not know.
pub type Answer = Option<Accepted>;

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Everything that is encoded is bounded far below.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    put_length(out, texts.len());
    texts.iter().for_each(|text| put_bytes(out, text.as_bytes()));
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_number(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// How large it will be at least; what is larger than a frame is not encoded at all.
pub fn bytes_of(new: &NewMessage) -> usize {
    new.message.payload.as_ref().map_or(0, Bytes::len) + new.endpoints.len() * ID_BYTES
}

/// Appends a message. `None`: it has an origin that cannot be written.
pub fn put_message(out: &mut Vec<u8>, new: &NewMessage) -> Option<()> {
    let NewMessage { message, endpoints, idempotency, app_version } = new;
    put_message_for(out, message, endpoints)?;
    put_option(out, idempotency.as_ref(), |out, idempotency| {
        out.extend_from_slice(&idempotency.key);
        out.extend_from_slice(&idempotency.request);
        put_number(out, idempotency.expires_at.as_millis());
        put_number(out, i64::try_from(idempotency.window.as_millis()).unwrap_or(i64::MAX));
    });
    put_option(out, *app_version, put_number);
    Some(())
}

/// Appends a message that has been accepted, for a node that has these of its endpoints.
pub fn put_accepted(out: &mut Vec<u8>, message: &Message, endpoints: &[EndpointId]) -> Option<()> {
    put_message_for(out, message, endpoints)?;
    put_option(out, None::<()>, |_, ()| ());
    put_option(out, None, put_number);
    Some(())
}

fn put_message_for(out: &mut Vec<u8>, message: &Message, endpoints: &[EndpointId]) -> Option<()> {
    let origin = message.origin.as_deref().map(serde_json::to_vec).transpose().ok()?;
    out.extend_from_slice(message.id.as_bytes());
    out.extend_from_slice(message.app.as_bytes());
    put_bytes(out, message.event_type.as_bytes());
    put_option(out, message.event_id.as_ref(), |out, id| put_bytes(out, id.as_bytes()));
    put_option(out, message.payload.as_ref(), |out, payload| put_bytes(out, payload));
    put_bytes(out, message.content_type.as_bytes());
    put_texts(out, &message.channels);
    put_texts(out, &message.tags);
    put_number(out, message.created_at.as_millis());
    put_option(out, message.deliver_at, |out, at| put_number(out, at.as_millis()));
    put_number(out, message.payload_expires_at.as_millis());
    put_option(out, origin, |out, origin| put_bytes(out, &origin));
    put_length(out, endpoints.len());
    endpoints.iter().for_each(|endpoint| out.extend_from_slice(endpoint.as_bytes()));
    Some(())
}

pub fn put_answer(out: &mut Vec<u8>, number: u64, answer: Answer) {
    out.extend_from_slice(&number.to_le_bytes());
    match answer {
        Some(Accepted::Fresh) => out.push(FRESH),
        Some(Accepted::Replayed(id)) => {
            out.push(REPLAYED);
            out.extend_from_slice(id.as_bytes());
        }
        Some(Accepted::Outdated) => out.push(OUTDATED),
        None => out.push(REFUSED),
    }
}

pub fn put_behind(out: &mut Vec<u8>, apps: &[AppId]) {
    out.extend_from_slice(&BEHIND.to_le_bytes());
    let apps = &apps[..apps.len().min(BEHIND_MAX)];
    put_length(out, apps.len());
    apps.iter().for_each(|app| out.extend_from_slice(app.as_bytes()));
}

/// Reads what a peer sent, which has the key but may be of another build: whatever is wrong is `None`.
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    pub fn new(frame: Bytes) -> Self {
        Self { rest: frame }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, bytes: usize) -> Option<Bytes> {
        (bytes <= self.rest.len()).then(|| self.rest.split_to(bytes))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk::<N>().copied()
    }

    fn number(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.array()?))
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp)
    }

    /// Of a list whose elements have `each` bytes at least: no more than are there.
    fn length(&mut self, each: usize) -> Option<usize> {
        let length = usize::try_from(u32::from_le_bytes(self.array()?)).ok()?;
        (length.checked_mul(each)? <= self.rest.len()).then_some(length)
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.length(1)?;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn texts(&mut self) -> Option<Vec<String>> {
        (0..self.length(4)?).map(|_| self.text()).collect()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.array()? {
            [0] => Some(None),
            [1] => read(self).map(Some),
            _ => None,
        }
    }

    fn id<I: IdKind>(&mut self) -> Option<I> {
        self.array().map(I::from_bytes)
    }

    pub fn request_number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    pub fn message(&mut self) -> Option<NewMessage> {
        let message = Message {
            id: self.id::<MessageId>()?,
            app: self.id::<AppId>()?,
            event_type: self.text()?,
            event_id: self.option(Self::text)?,
            // Not a part of the frame: a payload that waits for its delivery must not keep the others in memory.
            payload: self.option(|reader| Some(Bytes::copy_from_slice(&reader.bytes()?)))?,
            content_type: self.text()?,
            channels: self.texts()?,
            tags: self.texts()?,
            created_at: self.time()?,
            deliver_at: self.option(Self::time)?,
            payload_expires_at: self.time()?,
            origin: self.option(|reader| serde_json::from_slice::<Origin>(&reader.bytes()?).ok())?.map(Box::new),
        };
        let endpoints = self.length(ID_BYTES)?;
        if endpoints > limits::ENDPOINTS_PER_APPLICATION_MAX {
            return None;
        }
        let endpoints = (0..endpoints).map(|_| self.id::<EndpointId>()).collect::<Option<_>>()?;
        let idempotency = self.option(|reader| {
            Some(Idempotency {
                key: reader.array()?,
                request: reader.array()?,
                expires_at: reader.time()?,
                window: Duration::from_millis(u64::try_from(reader.number()?).ok()?),
            })
        })?;
        Some(NewMessage { message, endpoints, idempotency, app_version: self.option(Self::number)? })
    }

    pub fn said(&mut self) -> Option<Said> {
        let number = self.request_number()?;
        if number == BEHIND {
            let apps = self.length(ID_BYTES)?;
            return (0..apps).map(|_| self.id()).collect::<Option<_>>().map(Said::Behind);
        }
        let answer = match self.array()? {
            [FRESH] => Some(Accepted::Fresh),
            [REPLAYED] => Some(Accepted::Replayed(self.id()?)),
            [OUTDATED] => Some(Accepted::Outdated),
            [REFUSED] => None,
            _ => return None,
        };
        Some(Said::Answer(number, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> NewMessage {
        let message = Message {
            id: MessageId::from_bytes([1; 20]),
            app: AppId::from_bytes([2; 20]),
            event_type: "a.b".to_owned(),
            event_id: Some("é".to_owned()),
            payload: Some(Bytes::from_static(b"\0{}")),
            content_type: "text/plain".to_owned(),
            channels: vec!["x".to_owned(), String::new()],
            tags: vec!["t".to_owned()],
            created_at: Timestamp(5),
            deliver_at: Some(Timestamp(i64::MAX)),
            payload_expires_at: Timestamp(-1),
            origin: Some(Box::new(Origin {
                source: "src".to_owned(),
                method: "POST".to_owned(),
                path: "/x".to_owned(),
                headers: vec![("a".to_owned(), "b".to_owned())],
                remote_address: "::1".to_owned(),
                verified_by: "none".to_owned(),
                ordering_key: Some("k".to_owned()),
                occurred_at: Some(3),
                sequence: None,
                is_late: true,
                is_stale: false,
            })),
        };
        let idempotency =
            Idempotency { key: [3; 16], request: [4; 16], expires_at: Timestamp(9), window: Duration::from_millis(77) };
        let endpoints = vec![EndpointId::from_bytes([5; 20]), EndpointId::from_bytes([6; 20])];
        NewMessage { message, endpoints, idempotency: Some(idempotency), app_version: Some(12) }
    }

    fn empty() -> NewMessage {
        let mut new = full();
        new.message = Message {
            event_id: None,
            payload: None,
            channels: vec![],
            tags: vec![],
            deliver_at: None,
            origin: None,
            ..new.message
        };
        NewMessage { endpoints: vec![], idempotency: None, app_version: None, ..new }
    }

    #[test]
    fn messages_and_answers_read_back_as_written() {
        let answers =
            [Some(Accepted::Fresh), Some(Accepted::Replayed(MessageId::from_bytes([8; 20]))), Some(Accepted::Outdated), None];
        let mut out = vec![];
        for new in [full(), empty()] {
            put_message(&mut out, &new).unwrap();
        }
        for (number, answer) in (0..).zip(answers) {
            put_answer(&mut out, number, answer);
        }
        let behind = vec![AppId::from_bytes([7; 20]), AppId::from_bytes([8; 20])];
        put_behind(&mut out, &behind);
        put_behind(&mut out, &[]);
        let mut reader = Reader::new(out.into());
        for new in [full(), empty()] {
            assert_eq!(format!("{:?}", reader.message().unwrap()), format!("{new:?}"));
        }
        for (number, answer) in (0..).zip(answers) {
            assert_eq!(reader.said(), Some(Said::Answer(number, answer)));
        }
        assert_eq!(reader.said(), Some(Said::Behind(behind)));
        assert_eq!(reader.said(), Some(Said::Behind(vec![])));
        assert!(reader.is_empty());
    }

    #[test]
    fn what_is_cut_short_or_says_more_than_is_there_is_nothing() {
        let mut out = vec![];
        put_message(&mut out, &full()).unwrap();
        for cut in 0..out.len() {
            assert!(Reader::new(Bytes::copy_from_slice(&out[..cut])).message().is_none(), "cut at {cut}");
        }
        let event_type_length = 2 * ID_BYTES;
        out[event_type_length..event_type_length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Reader::new(out.into()).message().is_none());
    }
}
