//! Messages on a schedule. Invariant: one for each source and minute, whichever node makes it; the key of source and minute sees to it.
//!
//! The node that has shard 0 looks at the start of every minute. What came due while nobody looked is made up once, not once for
//! every time.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bellwire_core::{IdKind, Message, Origin, Shard, Source, Timestamp, limits};
use bellwire_store::{Idempotency, StoreError};
use bytes::Bytes;
use jiff::tz::TimeZone;

use crate::Engine;

/// The kind of the sources that this is about.
pub const KIND: &str = "cron";
const MINUTE_MS: i64 = 60_000;
const WINDOW: Duration = Duration::from_secs(86_400);
/// Whether a minute has begun is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Five fields: minute, hour, day of month, month, day of week. `*`, numbers, ranges, lists, steps, names of months and days; where
/// both days are restricted, either fits, as cron has it.
#[derive(Clone, Debug)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    is_any_day: bool,
    is_any_weekday: bool,
    zone: TimeZone,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule; `zone` is a name such as `Europe/Berlin`, or UTC without one.
    ///
    /// # Errors
    /// The field and what it accepts.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, String> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            let count = fields.len();
            return Err(format!("{text:?} has {count} fields; five are needed: minute, hour, day of month, month, day of week"));
        };
        let zone = match zone.map(str::trim).filter(|name| !name.is_empty()) {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| format!("{name:?} is no time zone such as Europe/Berlin"))?,
        };
        let mut weekday_bits = field("day of week", weekdays, 0, 7, WEEKDAYS)?;
        if weekday_bits & 1 << 7 != 0 {
            weekday_bits = weekday_bits & !(1 << 7) | 1;
        }
        Ok(Self {
            minutes: field("minute", minutes, 0, 59, &[])?,
            hours: field("hour", hours, 0, 23, &[])?,
            days: field("day of month", days, 1, 31, &[])?,
            months: field("month", months, 1, 12, MONTHS)?,
            weekdays: weekday_bits,
            is_any_day: days.starts_with('*'),
            is_any_weekday: weekdays.starts_with('*'),
            zone,
        })
    }

    /// Whether it is due in the minute that begins then.
    pub fn is_due(&self, minute: Timestamp) -> bool {
        let Ok(instant) = jiff::Timestamp::from_millisecond(minute.as_millis()) else { return false };
        let local = instant.to_zoned(self.zone.clone());
        let is_in = |bits: u64, value: i8| u32::try_from(value).is_ok_and(|value| value < 64 && bits >> value & 1 == 1);
        let day = is_in(self.days, local.day());
        let weekday = is_in(self.weekdays, local.weekday().to_sunday_zero_offset());
        let is_day = if self.is_any_day || self.is_any_weekday { day && weekday } else { day || weekday };
        is_day && is_in(self.minutes, local.minute()) && is_in(self.hours, local.hour()) && is_in(self.months, local.month())
    }
}

/// One field as bits.
fn field(what: &str, text: &str, min: u32, max: u32, names: &[&str]) -> Result<u64, String> {
    let wrong = || {
        let shown: String = text.chars().take(64).collect();
        format!(
            "{what} {shown:?} cannot be read; write *, numbers from {min} to {max}, ranges (1-5), lists (1,3) or steps (*/15)"
        )
    };
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let named = named.and_then(|index| u32::try_from(index).ok()).map(|index| index + u32::from(names.len() == 12));
        named.or_else(|| text.parse().ok()).filter(|number| (min..=max).contains(number))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| (1..=max).contains(step)).ok_or_else(wrong)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (min, max.min(if names.len() == 7 { 6 } else { max })),
            Some((from, to)) => (number(from).ok_or_else(wrong)?, number(to).ok_or_else(wrong)?),
            // `5/10`: from five on.
            None => {
                let from = number(range).ok_or_else(wrong)?;
                (from, if part.contains('/') { max } else { from })
            }
        };
        if from > to {
            return Err(wrong());
        }
        let mut value = from;
        while value <= to {
            bits |= 1 << value;
            value += step;
        }
    }
    Ok(bits)
}

fn minute_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(MINUTE_MS)
}

/// Looks at the start of every minute while this node has shard 0.
pub async fn run(engine: Arc<Engine>) {
    let mut last = minute_of(engine.now());
    while !engine.is_stopping() {
        engine.sleep(LOOK_EVERY).await;
        let now = minute_of(engine.now());
        if !engine.shards.holds(Shard(0)) {
            last = now;
            continue;
        }
        if now <= last {
            continue;
        }
        match make_due(&engine, last, now).await {
            Ok(()) => last = now,
            Err(StoreError::Closed) => return,
            Err(error) => tracing::warn!(%error, "scheduled messages not made; trying again"),
        }
    }
}

/// Makes the messages of every source that was due after `last`, up to `now`: one each.
async fn make_due(engine: &Arc<Engine>, last: i64, now: i64) -> Result<(), StoreError> {
    let first = (last + 1).max(now - i64::from(limits::CRON_LOOK_BACK_MINUTES));
    for source in engine.store.sources_of_kind(KIND).await? {
        let text = |name: &str| source.config.get(name).map(|value| value.expose());
        let Some(Ok(schedule)) = text("schedule").map(|schedule| Schedule::parse(schedule, text("timezone"))) else { continue };
        let is_due = |minute: &i64| schedule.is_due(Timestamp(minute * MINUTE_MS));
        let since = first.max(minute_of(source.created_at));
        if let Some(minute) = (since..=now).rev().find(is_due) {
            make(engine, &source, Timestamp(minute * MINUTE_MS)).await?;
        }
    }
    Ok(())
}

async fn make(engine: &Arc<Engine>, source: &Source, minute: Timestamp) -> Result<(), StoreError> {
    let Some(app) = engine.application_by_id(source.app).await? else { return Ok(()) };
    let text = |name: &str| source.config.get(name).map(|value| value.expose().to_owned());
    let id: bellwire_core::MessageId = engine.new_id();
    let origin = Origin {
        source: source.id.to_string(),
        verified_by: "schedule".to_owned(),
        occurred_at: Some(minute.as_millis()),
        ..Origin::default()
    };
    let message = Message {
        id,
        app: source.app,
        event_type: text("eventType").unwrap_or_else(|| KIND.to_owned()),
        event_id: None,
        payload: Some(Bytes::from(text("payload").unwrap_or_default())),
        content_type: text("contentType").unwrap_or_else(|| "application/json".to_owned()),
        channels: Vec::new(),
        tags: Vec::new(),
        created_at: id.created(),
        deliver_at: None,
        payload_expires_at: id.created().plus(engine.config.retention),
        origin: Some(Box::new(origin)),
    };
    let mut key = [0; 16];
    let text = format!("cron {} {}", source.id, minute.as_millis());
    key.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
    let expires_at = engine.now().plus(WINDOW);
    let idempotency = Idempotency { key, request: [0; 16], expires_at, window: WINDOW };
    engine.publish(&app, message, Some(idempotency)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_due(schedule: &str, zone: Option<&str>, at: &str) -> bool {
        Schedule::parse(schedule, zone).unwrap().is_due(Timestamp::parse_rfc3339(at).unwrap())
    }

    /// Broken: a message is made at the wrong minute, or never.
    #[test]
    fn schedules_are_due_as_cron_has_it() {
        // 2026-11-21 is a Saturday.
        assert!(is_due("*/15 * * * *", None, "2026-11-21T10:45:00Z") && !is_due("*/15 * * * *", None, "2026-11-21T10:46:00Z"));
        assert!(
            is_due("0 9-17 * * sat", None, "2026-11-21T09:00:00Z") && !is_due("0 9-17 * * 1-5", None, "2026-11-21T09:00:00Z")
        );
        assert!(is_due("0 0 * * 7", None, "2026-11-22T00:00:00Z") && is_due("0 0 * * 0", None, "2026-11-22T00:00:00Z"));
        assert!(is_due("0 0 1 * sat", None, "2026-11-21T00:00:00Z"), "either day fits where both are restricted");
        assert!(is_due("0 0 21 * mon", None, "2026-11-21T00:00:00Z"));
        assert!(!is_due("0 0 */2 * sun", None, "2026-11-21T00:00:00Z"), "a day field that begins with * restricts too");
        assert!(
            is_due("5/10 * 21 NOV *", None, "2026-11-21T10:25:00Z") && !is_due("5/10 * * dec *", None, "2026-11-21T10:25:00Z")
        );
        assert!(is_due("@daily", None, "2026-11-21T00:00:00Z"));
        assert!(is_due("30 9 * * *", Some("Asia/Kolkata"), "2026-11-21T04:00:00Z"), "the zone's offset counts");
        assert!(is_due("0 9 * * *", Some("Europe/Berlin"), "2026-07-01T07:00:00Z"), "summer time counts");
        assert!(is_due("0 9 * * *", Some("Europe/Berlin"), "2026-12-01T08:00:00Z"));
    }

    /// Broken: a schedule that can never be due is taken, or one that cannot be read ends the server.
    #[test]
    fn what_is_no_schedule_is_refused_with_the_field() {
        for (text, place) in [
            ("* * * *", "fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of month"),
            ("* * * 13 *", "month"),
            ("* * * * 8", "day of week"),
            ("*/0 * * * *", "minute"),
            ("5-1 * * * *", "minute"),
            ("1,,2 * * * *", "minute"),
            ("-1 * * * *", "minute"),
            ("1-99999999999 * * * *", "minute"),
            ("", "fields"),
        ] {
            let error = Schedule::parse(text, None).unwrap_err();
            assert!(error.contains(place), "{text:?}: {error}");
        }
        assert!(Schedule::parse("* * * * *", Some("Mars/Olympus")).unwrap_err().contains("time zone"));
    }
}
