//! Iterators of lists: the id (or name) of the last row; with `-` before it, of the first row, for going back.

use serde::Serialize;

/// Which way an iterator leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Travel {
    Forward,
    Backward,
}

/// Takes an iterator apart. A leading `~` marks a forward one whose own text begins with `-` (an event type may be named so).
pub fn read(text: &str) -> (Travel, &str) {
    if let Some(cursor) = text.strip_prefix('~') {
        (Travel::Forward, cursor)
    } else if let Some(cursor) = text.strip_prefix('-') {
        (Travel::Backward, cursor)
    } else {
        (Travel::Forward, text)
    }
}

/// A page as the API answers it.
#[derive(Debug, Serialize)]
pub struct ListOut<T> {
    pub data: Vec<T>,
    pub iterator: Option<String>,
    #[serde(rename = "prevIterator")]
    pub prev_iterator: Option<String>,
    pub done: bool,
}

impl<T> ListOut<T> {
    /// `cursor` tells a row's id.
    pub fn new(data: Vec<T>, done: bool, cursor: impl Fn(&T) -> String) -> Self {
        let iterator = data.last().map(&cursor).map(|text| if text.starts_with('-') { format!("~{text}") } else { text });
        let prev_iterator = data.first().map(|row| format!("-{}", cursor(row)));
        Self { data, iterator, prev_iterator, done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterators_lead_back_to_the_row_they_came_from_whatever_its_name() {
        for name in ["a", "-a", "--", "-"] {
            let page = ListOut::new(vec![name], true, ToString::to_string);
            assert_eq!(read(page.iterator.as_deref().unwrap()), (Travel::Forward, name));
            assert_eq!(read(page.prev_iterator.as_deref().unwrap()), (Travel::Backward, name));
        }
    }
}
