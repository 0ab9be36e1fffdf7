//! Which endpoints of a fan-out have not had their first try recorded: known by heart, so that the queue row need not be read
//! or rewritten for each of them, only deleted with the last.
//!
//! Forgetting is harmless: the row and the attempts say the same.

use std::collections::HashMap;

use bellwire_core::limits;

#[derive(Debug, Default)]
pub struct Outstanding {
    by_message: HashMap<i64, Vec<i64>>,
    endpoints: usize,
}

impl Outstanding {
    pub fn get(&self, message: i64) -> Option<&[i64]> {
        self.by_message.get(&message).map(Vec::as_slice)
    }

    /// Remembers what is left of a message's fan-out, unless memory for that is used up. Empty: nothing is left.
    pub fn set(&mut self, message: i64, rest: Vec<i64>) {
        if let Some(old) = self.by_message.remove(&message) {
            self.endpoints -= old.len();
        }
        if !rest.is_empty() && self.endpoints + rest.len() <= limits::OUTSTANDING_ENDPOINTS_KEPT {
            self.endpoints += rest.len();
            self.by_message.insert(message, rest);
        }
    }

    pub fn clear(&mut self) {
        self.by_message.clear();
        self.endpoints = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut outstanding = Outstanding::default();
        let large: Vec<i64> = (0..limits::OUTSTANDING_ENDPOINTS_KEPT as i64).collect();
        outstanding.set(1, large);
        outstanding.set(2, vec![1]);
        assert!(outstanding.get(2).is_none(), "beyond the limit nothing is remembered");
        outstanding.set(1, vec![]);
        outstanding.set(2, vec![1, 2]);
        assert_eq!(outstanding.get(2), Some(&[1, 2][..]));
        assert!(outstanding.get(1).is_none());
    }
}
