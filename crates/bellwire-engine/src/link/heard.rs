//! What peers told of messages that they accepted and this node delivers some of: kept until their deliveries are fetched, so that the messages need
//! not be. What is forgotten too early is read from the database.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::IdKind;
use bellwire_store::NewMessage;
use tokio::time::Instant;

use super::wire::bytes_of;

const MESSAGES_MAX: usize = 8_192;
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// What was not fetched by then was not this node's, or was read without it.
const AGE_MAX: Duration = Duration::from_secs(3);

#[derive(Default)]
pub struct Heard {
    messages: HashMap<i64, Arc<NewMessage>>,
    /// Oldest first.
    order: VecDeque<(Instant, i64)>,
    bytes: usize,
}

impl Heard {
    pub fn put(&mut self, now: Instant, new: Arc<NewMessage>) {
        let key = new.message.id.key();
        self.bytes += bytes_of(&new);
        match self.messages.insert(key, new) {
            Some(before) => self.bytes -= bytes_of(&before),
            None => self.order.push_back((now, key)),
        }
        while self.messages.len() > MESSAGES_MAX || self.bytes > BYTES_MAX {
            self.forget_first();
        }
    }

    pub fn get(&self, key: i64) -> Option<Arc<NewMessage>> {
        self.messages.get(&key).cloned()
    }

    pub fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.duration_since(*since) > AGE_MAX) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        if let Some(new) = self.messages.remove(&key) {
            self.bytes -= bytes_of(&new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::accepted;
    use super::*;

    fn new(key: i64, bytes: usize) -> Arc<NewMessage> {
        accepted(key, Some(vec![b'x'; bytes]), vec![])
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_bytes_and_age() {
        let now = Instant::now();
        let mut heard = Heard::default();
        (0..20_000).for_each(|key| heard.put(now, new(key, 1)));
        assert_eq!((heard.messages.len(), heard.order.len(), heard.bytes), (MESSAGES_MAX, MESSAGES_MAX, MESSAGES_MAX));
        assert!(heard.get(19_999).is_some() && heard.get(19_999 - 8_192).is_none(), "the oldest go first");
        (30_000..30_200).for_each(|key| heard.put(now, new(key, 90 * 1024)));
        assert!(heard.bytes <= BYTES_MAX && heard.messages.len() == BYTES_MAX / (90 * 1024), "{}", heard.messages.len());
        // Told twice, it is counted once.
        let bytes = heard.bytes;
        heard.put(now, new(30_199, 90 * 1024));
        assert_eq!((heard.bytes, heard.order.len()), (bytes, heard.messages.len()));
        heard.forget_old(now + AGE_MAX);
        assert!(heard.get(30_199).is_some());
        heard.forget_old(now + AGE_MAX + Duration::from_millis(1));
        assert_eq!((heard.messages.len(), heard.order.len(), heard.bytes), (0, 0, 0));
    }
}
