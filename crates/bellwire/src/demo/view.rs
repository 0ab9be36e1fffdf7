//! The demo's lines: messages going in, deliveries coming out. Colours on a terminal, plain lines elsewhere.

use std::time::Duration;

use bellwire_core::{Clock as _, IdKind as _, MessageId, SystemClock};
use parking_lot::Mutex;

use super::payload::Payload;
use crate::terminal::{self, thousands};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const BLUE: &str = "\x1b[34m";
const RESET: &str = "\x1b[0m";

/// A line of its own.
///
/// # Errors
/// Standard output is closed.
pub fn line(text: &str) -> anyhow::Result<()> {
    terminal::line(text)?;
    Ok(())
}

/// Keeps the order that a reader expects: a message goes in before its deliveries come out, also when the receiver is quicker
/// than the answer to its publisher.
#[derive(Default)]
pub struct View {
    /// Lines held back while a message is being published.
    held: Mutex<Option<Vec<String>>>,
}

impl View {
    /// A message is about to be published.
    pub fn publishing(&self) {
        self.held.lock().get_or_insert_with(Vec::new);
    }

    /// It went in.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn published(&self, payload: &Payload, id: &str, took: Duration) -> anyhow::Result<()> {
        let text = format!(
            "{}  {}  {}  {} ({} bytes), stored in {:.1} ms",
            time(),
            coloured(BLUE, "-> message "),
            terminal::escaped(id),
            payload.from,
            thousands(payload.text.trim().len() as u64),
            took.as_secs_f64() * 1_000.0
        );
        let mut held = self.held.lock();
        line(&text)?;
        held.take().unwrap_or_default().iter().try_for_each(|text| line(text))
    }

    /// A delivery came out.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn delivered(&self, endpoint: &str, id: &str, attempt: u32, status: u16, is_genuine: bool) -> anyhow::Result<()> {
        let since = id.parse::<MessageId>().map(|id| SystemClock.now().since(id.created())).unwrap_or_default();
        let arrow = if status == 200 { coloured(GREEN, "<- delivery") } else { coloured(RED, "<- delivery") };
        let what = match (status, is_genuine) {
            (_, false) => "signature does not fit",
            (200, _) if attempt > 1 => "recovered",
            (200, _) => "delivered",
            _ => "failed, retry follows",
        };
        let text = format!(
            "{}  {arrow}  {}  {endpoint:<9} attempt {attempt}  {status}  {what} after {} ms",
            time(),
            terminal::escaped(id),
            thousands(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        );
        match &mut *self.held.lock() {
            Some(held) => held.push(text),
            None => line(&text)?,
        }
        Ok(())
    }
}

fn time() -> String {
    // 2026-01-01T12:34:56.789Z
    SystemClock.now().to_string().get(11..23).unwrap_or_default().to_owned()
}

fn coloured(colour: &str, text: &str) -> String {
    if terminal::is_colourful() { format!("{colour}{text}{RESET}") } else { text.to_owned() }
}
