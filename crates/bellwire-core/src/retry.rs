//! The retry decision: pure, taken before the attempt is written, so that the attempt and its next due time commit together.

use std::time::Duration;

use crate::attempt::{AttemptOutcome, Trigger};
use crate::limits;
use crate::time::Timestamp;

/// When a failed delivery is tried again. The first try is immediate; each entry is the wait before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    pub schedule: Vec<Duration>,
    /// Each wait is spread by up to this share of itself in both directions, so that receivers are not hit in step. Percent.
    pub jitter_percent: u8,
}

impl Default for RetryPolicy {
    /// Svix's default: immediately, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h (eight tries in about 27.6 hours).
    fn default() -> Self {
        let seconds = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000];
        Self { schedule: seconds.into_iter().map(Duration::from_secs).collect(), jitter_percent: 20 }
    }
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryVerdict {
    Delivered,
    RetryAt(Timestamp),
    /// No try left: kept, and replayable.
    Exhausted,
    /// 410: the receiver wants no more; the delivery ends and the endpoint is disabled.
    Gone,
}

impl RetryPolicy {
    /// Judges the attempt that was number `tries` (1 for the first). `random` is any 64-bit number.
    ///
    /// A manual attempt is never followed by automatic ones. `Retry-After` can only lengthen the wait, up to
    /// [`limits::RETRY_AFTER_SECONDS_MAX`].
    pub fn judge(&self, now: Timestamp, tries: u32, trigger: Trigger, outcome: &AttemptOutcome, random: u64) -> RetryVerdict {
        if outcome.is_success() {
            return RetryVerdict::Delivered;
        }
        if outcome.response_status == 410 {
            return RetryVerdict::Gone;
        }
        if trigger == Trigger::Manual {
            return RetryVerdict::Exhausted;
        }
        let Some(wait) = usize::try_from(tries).ok().and_then(|n| self.schedule.get(n.saturating_sub(1))) else {
            return RetryVerdict::Exhausted;
        };
        let mut wait = self.spread(*wait, random);
        if let Some(asked) = outcome.retry_after {
            wait = wait.max(asked.min(Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX)));
        }
        RetryVerdict::RetryAt(now.plus(wait))
    }

    fn spread(&self, wait: Duration, random: u64) -> Duration {
        let span = wait.as_millis() as u64 * u64::from(self.jitter_percent.min(100)) / 100;
        if span == 0 {
            return wait;
        }
        let offset = random % (2 * span + 1);
        Duration::from_millis(wait.as_millis() as u64 - span + offset)
    }
}

/// Reads a `Retry-After` value: whole seconds or an HTTP date (RFC 9110, section 10.2.3). `None` for anything else.
pub fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Timestamp(date.as_millisecond()).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn outcome(status: u16, retry_after: Option<u64>) -> AttemptOutcome {
        AttemptOutcome {
            response_status: status,
            response: Bytes::new(),
            retry_after: retry_after.map(Duration::from_secs),
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn the_default_schedule_ends_after_eight_tries() {
        let policy = RetryPolicy { jitter_percent: 0, ..RetryPolicy::default() };
        let now = Timestamp(0);
        let waits: Vec<_> = (1..=8).map(|n| policy.judge(now, n, Trigger::Scheduled, &outcome(500, None), 7)).collect();
        let at = |s: i64| RetryVerdict::RetryAt(Timestamp(s * 1_000));
        assert_eq!(waits, [at(5), at(300), at(1_800), at(7_200), at(18_000), at(36_000), at(36_000), RetryVerdict::Exhausted]);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let policy = RetryPolicy::default();
        for random in (0..u64::MAX).step_by((u64::MAX / 1_000) as usize) {
            let RetryVerdict::RetryAt(at) = policy.judge(Timestamp(0), 2, Trigger::Scheduled, &outcome(0, None), random) else {
                panic!("a second try must be followed by a third");
            };
            assert!((240_000..=360_000).contains(&at.as_millis()), "{at:?}");
        }
    }

    #[test]
    fn retry_after_lengthens_but_never_shortens_and_is_capped() {
        let policy = RetryPolicy { jitter_percent: 0, ..RetryPolicy::default() };
        let wait = |tries, asked| match policy.judge(Timestamp(0), tries, Trigger::Scheduled, &outcome(429, asked), 0) {
            RetryVerdict::RetryAt(at) => at.as_unix_seconds(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(1, Some(60)), 60);
        assert_eq!(wait(2, Some(60)), 300);
        assert_eq!(wait(1, Some(315_360_000)), 86_400);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_garbage_is_passed_over() {
        let now = Timestamp::parse_rfc3339("1994-11-06T08:49:00Z").unwrap();
        assert_eq!(parse_retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for garbage in ["", "soon", "-5", "1.5", "99999999999999999999x"] {
            assert_eq!(parse_retry_after(garbage, now), None, "{garbage}");
        }
    }

    #[test]
    fn gone_and_manual_tries_are_final() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.judge(Timestamp(0), 1, Trigger::Scheduled, &outcome(410, None), 0), RetryVerdict::Gone);
        assert_eq!(policy.judge(Timestamp(0), 1, Trigger::Manual, &outcome(500, None), 0), RetryVerdict::Exhausted);
        assert_eq!(policy.judge(Timestamp(0), 1, Trigger::Manual, &outcome(204, None), 0), RetryVerdict::Delivered);
    }
}
