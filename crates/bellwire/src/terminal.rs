//! Writing for people: tables on a terminal, JSON for programs, and no control characters from elsewhere on either.

use std::io::{self, IsTerminal, Write};

use comfy_table::presets::{NOTHING, UTF8_HORIZONTAL_ONLY};
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

/// Narrower terminals get whole lines, and wrap them themselves.
const TABLE_COLUMNS_MIN: u16 = 60;

/// Writes a line to standard output.
///
/// # Errors
/// What the stream says; a closed pipe ends the program quietly (see `main`).
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Colours and cursor movement are wanted: a terminal, and `NO_COLOR` is not set.
pub fn is_colourful() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Makes control characters (and what else could rewrite a terminal or reorder a line) visible: `\u{1b}`.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
            {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    out
}

/// As [`escaped`], but line breaks stay: for our own texts that quote others'.
pub fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// A table of escaped cells. Lines between head and rows only on a terminal, so that piped output stays easy to cut.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(if is_terminal() { UTF8_HORIZONTAL_ONLY } else { NOTHING });
    // A terminal that does not know its width (0 columns) would get one letter a line.
    let is_wrapped = is_terminal() && table.width().is_some_and(|width| width >= TABLE_COLUMNS_MIN);
    table.set_content_arrangement(if is_wrapped { ContentArrangement::Dynamic } else { ContentArrangement::Disabled });
    table.set_header(head.iter().map(|name| (*name).to_owned()));
    for row in rows {
        table.add_row(row.iter().map(|cell| escaped(cell)));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A JSON value as a cell: texts bare, lists joined, nothing for null.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// An object as lines of `name  value`, nested values as JSON.
pub fn record(value: &Value) -> String {
    let Value::Object(fields) = value else { return escaped(&cell(value)) };
    table(
        &["FIELD", "VALUE"],
        fields.iter().map(|(name, value)| {
            let text = if value.is_object() { value.to_string() } else { cell(value) };
            vec![name.clone(), text]
        }),
    )
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: an event type or an endpoint's answer rewrites the operator's terminal.
    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(escaped("a\u{1b}[2Jb\r\n\u{202e}c\u{9b}ü"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c\\u{9b}ü");
        let shown = table(&["ID"], [vec!["x\u{1b}]0;y\u{7}".to_owned()]]);
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
        assert!(!record(&serde_json::json!({"a": "\u{1b}", "b": {"c": "\u{1b}"}})).contains('\u{1b}'));
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1_000, 12_345_678].map(thousands).each_ref().map(String::as_str)
        );
    }
}
