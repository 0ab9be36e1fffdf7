//! When a request was signed: four ways of writing it, read strictly, compared in milliseconds.

use serde::Deserialize;

use crate::{Reason, Refusal};

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    Seconds,
    Milliseconds,
    /// `2026-01-01T00:00:00.123Z`, or with an offset.
    Rfc3339,
    /// `Thu, 01 Jan 2026 00:00:00 GMT`.
    HttpDate,
}

impl Unit {
    /// Milliseconds since 1970.
    pub(crate) fn parse(self, text: &str) -> Option<i64> {
        match self {
            Self::Seconds => digits(text)?.checked_mul(1000),
            Self::Milliseconds => digits(text),
            Self::Rfc3339 => rfc3339(text),
            Self::HttpDate => http_date(text),
        }
    }

    pub(crate) fn format(self, now_s: u64) -> String {
        match self {
            Self::Seconds => now_s.to_string(),
            Self::Milliseconds => format!("{now_s}000"),
            Self::Rfc3339 => {
                let (year, month, day) = civil(now_s / 86_400);
                let (hour, minute, second) = (now_s / 3600 % 24, now_s / 60 % 60, now_s % 60);
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
            }
            Self::HttpDate => {
                let days = now_s / 86_400;
                let (year, month, day) = civil(days);
                let (hour, minute, second) = (now_s / 3600 % 24, now_s / 60 % 60, now_s % 60);
                // 1 January 1970 was a Thursday.
                let weekday = WEEKDAYS[usize::try_from((days + 3) % 7).unwrap_or_default()];
                let month = MONTHS[usize::try_from(month - 1).unwrap_or_default()];
                format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
            }
        }
    }
}

/// Refuses what is further from the clock than the tolerance, on either side.
pub(crate) fn check_age(timestamp_ms: i64, now_s: u64, tolerance_s: u64, future_s: u64) -> Result<(), Refusal> {
    let (timestamp, now) = (i128::from(timestamp_ms), i128::from(now_s) * 1000);
    if now - timestamp > i128::from(tolerance_s) * 1000 {
        return Err(Refusal::new(Reason::TimestampTooOld));
    }
    if timestamp - now > i128::from(future_s) * 1000 {
        return Err(Refusal::new(Reason::TimestampTooNew));
    }
    Ok(())
}

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Digits only: no sign, no space, nothing behind.
fn digits(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn fixed(text: &str, from: usize, count: usize) -> Option<i64> {
    digits(text.get(from..from + count)?)
}

fn rfc3339(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let bytes = text.as_bytes();
    let is_shaped = bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && b"Tt ".contains(&bytes[10]);
    if !is_shaped || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let date_ms = at(fixed(text, 0, 4)?, fixed(text, 5, 2)?, fixed(text, 8, 2)?)?;
    let time_ms = clock(fixed(text, 11, 2)?, fixed(text, 14, 2)?, fixed(text, 17, 2)?)?;
    let mut rest = &text[19..];
    let mut fraction_ms = 0;
    if let Some(behind) = rest.strip_prefix('.') {
        let count = behind.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 || count > 9 {
            return None;
        }
        fraction_ms = digits(&format!("{:0<3}", &behind[..count])[..3])?;
        rest = &behind[count..];
    }
    let offset_ms = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = clock(fixed(rest, 1, 2)?, fixed(rest, 4, 2)?, 0)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    Some(date_ms + time_ms + fraction_ms - offset_ms)
}

fn http_date(text: &str) -> Option<i64> {
    if !text.is_ascii() || text.len() != 29 || !text.ends_with(" GMT") || &text[3..5] != ", " {
        return None;
    }
    let month = MONTHS.iter().position(|month| *month == &text[8..11])?;
    let date_ms = at(fixed(text, 12, 4)?, i64::try_from(month).ok()? + 1, fixed(text, 5, 2)?)?;
    let time_ms = clock(fixed(text, 17, 2)?, fixed(text, 20, 2)?, fixed(text, 23, 2)?)?;
    Some(date_ms + time_ms)
}

fn clock(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour < 24 && minute < 60 && second <= 60).then_some((hour * 3600 + minute * 60 + second) * 1000)
}

/// Seconds since 1970 of a date and a time of day in UTC.
pub(crate) fn unix_s(date: [i64; 3], time: [i64; 3]) -> Option<i64> {
    Some((at(date[0], date[1], date[2])? + clock(time[0], time[1], time[2])?) / 1000)
}

/// Midnight of a day of the Gregorian calendar, in milliseconds since 1970.
fn at(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * 86_400_000)
}

/// Year, month and day of a count of days since 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: a genuine request is called stale because its date was read wrongly.
    #[test]
    fn dates_are_read_and_written_alike() {
        for now_s in [0, 951_782_399, 951_782_400, 1_709_164_800, 1_767_225_600, 4_107_542_399] {
            let expected = i64::try_from(now_s * 1000).unwrap();
            for unit in [Unit::Seconds, Unit::Milliseconds, Unit::Rfc3339, Unit::HttpDate] {
                assert_eq!(unit.parse(&unit.format(now_s)), Some(expected), "{unit:?} {}", unit.format(now_s));
            }
        }
        assert_eq!(Unit::HttpDate.format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(Unit::Rfc3339.parse("2026-01-01T00:00:00.123456789Z"), Some(1_767_225_600_123));
        assert_eq!(Unit::Rfc3339.parse("2026-01-01T01:30:00.5+01:30"), Some(1_767_225_600_500));
    }

    /// Broken: a lenient reader takes a date that the sender never signed, or panics.
    #[test]
    fn odd_dates_are_refused() {
        for odd in ["", "2026", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00", "2026-01-01T00:00:00.Z"] {
            assert_eq!(Unit::Rfc3339.parse(odd), None, "{odd}");
        }
        for odd in ["2026-13-01T00:00:00Z", "2026-01-01T00:00:00+1:00", "é026-01-01T00:00:00Z", "2026-01-01T00:00:00Zx"] {
            assert_eq!(Unit::Rfc3339.parse(odd), None, "{odd}");
        }
        for odd in ["1 ", "-1", "+1", "1.0", "0x1", "99999999999999999999", "١"] {
            assert_eq!(Unit::Seconds.parse(odd), None, "{odd}");
        }
        for odd in ["Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT"] {
            assert_eq!(Unit::HttpDate.parse(odd), None, "{odd}");
        }
    }

    /// Broken: the border of the tolerance is off by one, in one of the directions.
    #[test]
    fn ages_are_bounded_on_both_sides_to_the_millisecond() {
        let now_s = 1_767_225_600;
        let now_ms = 1_767_225_600_000;
        assert_eq!(check_age(now_ms - 300_000, now_s, 300, 300), Ok(()));
        assert_eq!(check_age(now_ms + 300_000, now_s, 300, 300), Ok(()));
        let too_old = check_age(now_ms - 300_001, now_s, 300, 300).unwrap_err();
        let too_new = check_age(now_ms + 300_001, now_s, 300, 300).unwrap_err();
        assert_eq!((too_old.code(), too_new.code()), ("timestamp_too_old", "timestamp_too_new"));
        assert!(check_age(i64::MAX, u64::MAX, 0, 0).is_err() && check_age(i64::MIN, 0, u64::MAX, 0).is_ok());
    }
}
