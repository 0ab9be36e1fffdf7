//! Which deliveries that other nodes accepted this one has handed out: by the word of a peer or from their rows in `handover`, whichever
//! came first. Each of the two asks here before it hands one out; what the word brought, the rows do not bring again, and are only deleted.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;

use super::handover::{Handover, Key};

/// Handed out by word, with rows still to be deleted. More are left to the rows.
const THERE_MAX: usize = 65_536;
/// Rows gone, and remembered: word of them may yet come. Some seconds' worth.
const GONE_MAX: usize = 65_536;

#[derive(Default)]
pub struct HandedOut {
    /// Rows of these may be there; with how many looks there had been when they were handed out.
    there: HashMap<Key, u64>,
    /// Rows of these are gone. Oldest first in `order`.
    gone: HashSet<Key>,
    order: VecDeque<Key>,
    looks: u64,
}

impl HandedOut {
    /// By word of whoever committed it. False: it has been handed out, or is left to its row.
    pub fn by_word(&mut self, key: Key) -> bool {
        if self.there.len() >= THERE_MAX || self.gone.contains(&key) || self.there.contains_key(&key) {
            return false;
        }
        self.there.insert(key, self.looks);
        true
    }

    pub fn is_there(&self, key: &Key) -> bool {
        self.there.contains_key(key)
    }

    /// Another membership, another past.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn is_gone(&mut self, key: Key) {
        if self.gone.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > GONE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }
}

/// One look at the table. Dropped before its end, it has handed out nothing.
pub struct Look<'a> {
    of: &'a Mutex<HandedOut>,
    number: u64,
    /// What it hands out.
    taken: Vec<Key>,
}

impl<'a> Look<'a> {
    /// Before the rows are read: whatever was handed out by word until now was committed by then, and is among them.
    pub fn begin(of: &'a Mutex<HandedOut>) -> Self {
        let mut handed_out = of.lock();
        handed_out.looks += 1;
        let number = handed_out.looks;
        drop(handed_out);
        Self { of, number, taken: Vec::new() }
    }

    /// Which of these are still to be handed out.
    pub fn take(&mut self, keys: impl Iterator<Item = Key>) -> &[Key] {
        let mut handed_out = self.of.lock();
        for key in keys {
            if let Entry::Vacant(place) = handed_out.there.entry(key) {
                place.insert(self.number);
                self.taken.push(key);
            }
        }
        drop(handed_out);
        &self.taken
    }

    /// These rows are gone, and all that it found is `found`, if that is everything there was.
    pub fn end(mut self, gone: &[Handover], found: Option<&HashSet<Key>>) {
        let mut handed_out = self.of.lock();
        for key in gone.iter().flat_map(|row| &row.deliveries) {
            handed_out.there.remove(key);
            handed_out.is_gone(*key);
        }
        if let Some(found) = found {
            let number = self.number;
            let lost: Vec<Key> = handed_out
                .there
                .iter()
                .filter(|(key, looks)| **looks < number && !found.contains(*key))
                .map(|(key, _)| *key)
                .collect();
            for key in lost {
                handed_out.there.remove(&key);
                handed_out.is_gone(key);
            }
        }
        drop(handed_out);
        self.taken.clear();
    }

    /// What it took is handed out, and its rows may be there or not.
    pub fn end_in_doubt(mut self) {
        self.taken.clear();
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let mut handed_out = self.of.lock();
        for key in &self.taken {
            handed_out.there.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(keys: &[Key]) -> Handover {
        Handover::of(keys.to_vec())
    }

    fn all(keys: &[Key]) -> HashSet<Key> {
        keys.iter().copied().collect()
    }

    const A: Key = (1, 1, false);
    const B: Key = (2, 1, false);

    #[test]
    fn a_look_that_fails_has_handed_out_nothing_and_one_in_doubt_everything() {
        let of = Mutex::new(HandedOut::default());
        assert!(of.lock().by_word(A));
        let mut look = Look::begin(&of);
        assert_eq!(look.take([A, B].into_iter()), [B]);
        assert!(!of.lock().by_word(B), "it is being handed out");
        drop(look);
        // The rows are met again: the one by word is not handed out again, the other one is.
        let mut look = Look::begin(&of);
        assert_eq!(look.take([A, B].into_iter()), [B]);
        look.end_in_doubt();
        let mut look = Look::begin(&of);
        assert_eq!(look.take([A, B].into_iter()), []);
        look.end(&[row(&[A, B])], Some(&all(&[A, B])));
        assert!(of.lock().there.is_empty() && !of.lock().by_word(A) && !of.lock().by_word(B));
        // An owner who was wrong about it makes a delivery due again: that is a row like any other.
        assert_eq!(Look::begin(&of).take([A].into_iter()), [A]);
    }

    #[test]
    fn what_was_taken_by_word_is_remembered_until_its_row_is_gone_for_certain() {
        let of = Mutex::new(HandedOut::default());
        assert!(of.lock().by_word(A));
        // Not everything was read: the row may be among the rest.
        Look::begin(&of).end(&[], None);
        assert!(of.lock().is_there(&A));
        // Read, and left where it is.
        Look::begin(&of).end(&[], Some(&all(&[A])));
        assert!(of.lock().is_there(&A));
        // Taken while the look was under way: its row may have come after it.
        let look = Look::begin(&of);
        assert!(of.lock().by_word(B));
        look.end(&[], Some(&all(&[])));
        assert!(!of.lock().is_there(&A) && of.lock().is_there(&B));
        Look::begin(&of).end(&[], Some(&all(&[])));
        assert!(of.lock().there.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let of = Mutex::new(HandedOut::default());
        let keys = |from: i64| (from..).map(|message| (message, 1, false));
        assert_eq!(keys(0).take(100_000).filter(|key| of.lock().by_word(*key)).count(), THERE_MAX);
        Look::begin(&of).end(&[], Some(&all(&[])));
        let mut look = Look::begin(&of);
        look.take(keys(200_000).take(10));
        look.end(&[row(&keys(200_000).take(10).collect::<Vec<_>>())], None);
        let of = of.lock();
        assert_eq!((of.there.len(), of.gone.len(), of.order.len()), (0, GONE_MAX, GONE_MAX));
        assert!(of.gone.contains(&(200_009, 1, false)));
    }
}
