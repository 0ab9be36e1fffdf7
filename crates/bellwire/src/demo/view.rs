//! The demo's lines: messages going in, deliveries coming out. Colours on a terminal, plain lines elsewhere.

use std::time::Duration;

use bellwire_core::{Clock as _, IdKind as _, MessageId, SystemClock};

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

/// A message went in.
///
/// # Errors
/// Standard output is closed.
pub fn published(payload: &Payload, id: &str, took: Duration) -> anyhow::Result<()> {
    line(&format!(
        "{}  {}  {}  {} ({} bytes), stored in {:.1} ms",
        time(),
        coloured(BLUE, "-> message "),
        terminal::escaped(id),
        payload.from,
        thousands(payload.text.trim().len() as u64),
        took.as_secs_f64() * 1_000.0
    ))
}

/// A delivery came out.
///
/// # Errors
/// Standard output is closed.
pub fn delivered(endpoint: &str, id: &str, attempt: u32, status: u16, is_genuine: bool) -> anyhow::Result<()> {
    let since = id.parse::<MessageId>().map(|id| SystemClock.now().since(id.created())).unwrap_or_default();
    let arrow = if status == 200 { coloured(GREEN, "<- delivery") } else { coloured(RED, "<- delivery") };
    let what = match (status, is_genuine) {
        (_, false) => "signature does not fit",
        (200, _) if attempt > 1 => "recovered",
        (200, _) => "delivered",
        _ => "failed, retry follows",
    };
    line(&format!(
        "{}  {arrow}  {}  {endpoint:<9} attempt {attempt}  {status}  {what} after {} ms",
        time(),
        terminal::escaped(id),
        thousands(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    ))
}

fn time() -> String {
    // 2026-01-01T12:34:56.789Z
    SystemClock.now().to_string().get(11..23).unwrap_or_default().to_owned()
}

fn coloured(colour: &str, text: &str) -> String {
    if terminal::is_colourful() { format!("{colour}{text}{RESET}") } else { text.to_owned() }
}
