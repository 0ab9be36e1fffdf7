//! Target about small texts of strangers: times, durations, ids, schedules, queries, iterators, names. Every input goes to all of them.

use std::fmt::Display;
use std::str::FromStr;

use bellwire_api::auth::ScopeSet;
use bellwire_api::fuzzing::{ListOut, Query, Travel, read_iterator};
use bellwire_api::receive::{is_place, parse_network};
use bellwire_api::wire::text::{Channel, DateTime, Description, EventTypeName, Name, SecretText, SessionId, Tag, Uid};
use bellwire_core::egress::EgressPolicy;
use bellwire_core::id::{key_to_timestamp, timestamp_to_key};
use bellwire_core::time::{format_duration, parse_duration};
use bellwire_core::{
    ApiKeyId, AppId, AttemptId, Direction, EndpointId, IdKind, MessageId, OrgId, ReceiptId, SourceId, TaskId, Timestamp, TokenId,
    limits, retry,
};
use bellwire_engine::cron::Schedule;
use bellwire_engine::transport::Proxy;

use crate::feature;
use crate::mutation::Random;

const NOW: Timestamp = Timestamp(1_767_225_600_000);

pub fn texts() -> Vec<Vec<u8>> {
    [
        "2026-01-01T00:00:00Z",
        "2026-06-30T23:59:60.123456789-11:30",
        "Thu, 01 Jan 2026 00:00:00 GMT",
        "120",
        "1h30m",
        "10.0.0.0/8",
        "2001:db8::/32",
        "1767225600.5",
        "5s",
        "106751d",
        "msg_0ujtsYcgvSTl8PAuAdqWYSMnLOv",
        "app_aWgEPTl1tmebfsQzFP4bxwgy80V",
        "org_000000000000000000000000000",
        "log0ujtsYcgvSTl8PAuAdqWYSMnLOv",
        "*/15 9-17 * jan-mar,7 mon-fri",
        "5/10 0 1,15 * 7",
        "@daily",
        "limit=5&order=ascending&iterator=-msg_0ujtsYcgvSTl8PAuAdqWYSMnLOv&event_types=a,b&before=2026-01-01T00:00:00Z",
        "iterator=~-a&limit=251&with_content=true&status=1",
        "~-a",
        "-",
        "/data/id~1x",
        "header:x-id",
        "query:id",
        "http://user:p%40ss@proxy.example:3128",
        "*.corp.example,10.0.0.0/8,localhost",
        "messages:write",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// What is read is what would be written; what is refused is told in few words.
pub fn text(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let ids = [
        id::<OrgId>(&text),
        id::<AppId>(&text),
        id::<EndpointId>(&text),
        id::<MessageId>(&text),
        id::<AttemptId>(&text),
        id::<TaskId>(&text),
        id::<ApiKeyId>(&text),
        id::<SourceId>(&text),
        id::<ReceiptId>(&text),
        id::<TokenId>(&text),
    ];
    let forms = [
        form::<Uid>(&text, limits::UID_CHARS_MAX),
        form::<EventTypeName>(&text, limits::EVENT_TYPE_CHARS_MAX),
        form::<Channel>(&text, limits::CHANNEL_CHARS_MAX),
        form::<Tag>(&text, limits::TAG_CHARS_MAX),
        form::<Name>(&text, limits::NAME_CHARS_MAX),
        form::<Description>(&text, limits::DESCRIPTION_CHARS_MAX),
        form::<SessionId>(&text, limits::SESSION_ID_CHARS_MAX),
        form::<SecretText>(&text, 106),
    ];
    let others = (
        is_place(&text),
        parse_network(&text).inspect(|network| assert_eq!(parse_network(&network.to_string()), Some(*network))).is_some(),
        proxy(&text),
        EgressPolicy::default().allow_entries(text.split(',')).is_ok(),
        ScopeSet::parse(text.split(' ')).is_ok(),
        iterator(&text),
    );
    feature(&(
        times(&text),
        ids.iter().position(|is_id| *is_id),
        forms,
        others,
        schedule(&text),
        query(&text),
        text.len().min(32),
    ))
}

fn times(text: &str) -> impl std::hash::Hash + use<> {
    let time = Timestamp::parse_rfc3339(text);
    if let Some(time) = time {
        assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Some(time), "{text:?} is {time}");
        let wire: Result<DateTime, _> = serde_json::from_value(serde_json::Value::from(text));
        assert_eq!(wire.ok(), Some(DateTime(time)));
        // Bounds of lists: nothing made at that time lies before its key.
        let key = timestamp_to_key(time);
        assert!(key >= 0 && (key == 0 || key_to_timestamp(key) <= time.max(Timestamp(1_400_000_000_000))), "{time}");
    }
    let wait = retry::parse_retry_after(text, NOW);
    let duration = parse_duration(text).inspect_err(|told| is_short(told, text));
    if let Ok(duration) = duration {
        assert_eq!(parse_duration(&format_duration(duration)), Ok(duration), "{text:?}");
        assert!(NOW.plus(duration) >= NOW && NOW.minus(duration) <= NOW);
    }
    (time.is_some(), wait.and_then(|wait| wait.as_secs().checked_ilog2()), duration.ok().map(|duration| duration.is_zero()))
}

/// Texts of operators are quoted whole where they are short by nature.
fn is_short(told: &str, text: &str) {
    assert!(told.len() <= 512 + 8 * text.len(), "{} bytes are told of {}", told.len(), text.len());
}

fn id<I: IdKind + FromStr>(text: &str) -> bool {
    let Ok(id) = text.parse::<I>() else { return false };
    assert_eq!(id.to_string(), text, "an id is written in two ways");
    assert!(I::from_key_and_tail(id.key(), id.tail()) == id && I::from_bytes(*id.as_bytes()) == id);
    true
}

fn form<T: FromStr<Err = String> + Display>(text: &str, chars_max: usize) -> bool {
    match text.parse::<T>() {
        Ok(value) => {
            assert!(value.to_string() == text && text.chars().count() <= chars_max);
            assert!(!text.contains('\0'), "no database keeps a NUL");
            true
        }
        Err(told) => {
            assert!(told.len() <= 1_024, "{} bytes are told", told.len());
            false
        }
    }
}

fn proxy(text: &str) -> bool {
    let Ok(proxy) = Proxy::parse(text) else { return false };
    let shown = format!("{proxy:?}");
    let password = text.split_once('@').and_then(|(before, _)| before.rsplit_once(':')).map(|(_, password)| password);
    assert!(
        password.is_none_or(|password| password.len() < 6 || text.matches(password).count() > 1 || !shown.contains(password))
    );
    true
}

fn iterator(text: &str) -> bool {
    let (travel, cursor) = read_iterator(text);
    assert!(text.ends_with(cursor) && text.len() - cursor.len() <= 1);
    let page = ListOut::new(vec![text], true, ToString::to_string);
    // No name and no id begins with the mark itself.
    if !text.starts_with('~') {
        assert_eq!(page.iterator.as_deref().map(read_iterator), Some((Travel::Forward, text)));
    }
    assert_eq!(page.prev_iterator.as_deref().map(read_iterator), Some((Travel::Backward, text)));
    travel == Travel::Backward
}

fn query(text: &str) -> impl std::hash::Hash + use<> {
    let told = |error: bellwire_api::ApiError| {
        let told = error.to_string();
        assert!(told.len() <= 1_024, "{} bytes are told", told.len());
    };
    let query = Query::parse(text).map_err(told).ok()?;
    let limit = query.limit().map_err(told);
    assert!(limit.as_ref().is_ok_and(|limit| (1..=limits::PAGE_LIMIT_MAX).contains(limit)) || limit.is_err());
    let page = query.page::<MessageId>(Direction::Ascending).map_err(told).ok();
    let names = query.list::<EventTypeName>("event_types").map_err(told).map(|names| names.len().min(8));
    let before = query.timestamp("before").map_err(told).map(|time| time.is_some());
    let flag = query.bool("with_content", false).map_err(told);
    let status = query.one_of("status", &[0, 1, 2, 3]).map_err(told);
    let choice = query.choice("order", &["ascending", "descending"]).map_err(told);
    let page = page.map(|page| (page.limit, page.after.is_some(), page.backwards));
    Some((limit.ok(), page, names.ok(), before.ok(), flag.ok(), status.ok(), choice.ok()))
}

/// Due when a plain reading of its fields says so.
fn schedule(text: &str) -> impl std::hash::Hash + use<> {
    let schedule = match Schedule::parse(text, None) {
        Ok(schedule) => schedule,
        Err(told) => {
            is_short(&told, text);
            return told.split(' ').next().map(|word| word.chars().take(12).collect::<String>());
        }
    };
    // The same text with any zone is due at some instants and not at others, but never falls over.
    for zone in ["Europe/Berlin", "Pacific/Apia", "Asia/Kathmandu"] {
        assert!(Schedule::parse(text, Some(zone)).is_ok(), "{zone}");
    }
    let mut random = Random::new(feature(&text));
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    for _ in 0..4 {
        let minute = NOW.as_millis() / 60_000 + i64::try_from(random.below(5_000_000)).unwrap_or_default();
        let at = Timestamp(minute * 60_000);
        if let [minutes, hours, days, months, weekdays] = fields[..] {
            let [of_minute, of_hour, of_day, of_month, of_weekday] = parts(at);
            let day = holds(days, of_day, 31, &[]);
            let weekday = holds(weekdays, of_weekday, 7, &WEEKDAYS) || of_weekday == 0 && holds(weekdays, 7, 7, &WEEKDAYS);
            let is_any = days.starts_with('*') || weekdays.starts_with('*');
            let is_day = if is_any { day && weekday } else { day || weekday };
            let is_due = is_day
                && holds(minutes, of_minute, 59, &[])
                && holds(hours, of_hour, 23, &[])
                && holds(months, of_month, 12, &MONTHS);
            assert_eq!(schedule.is_due(at), is_due, "{text:?} at {at}");
        }
    }
    None
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Minute, hour, day, month, day of week from the text of an instant.
fn parts(at: Timestamp) -> [u32; 5] {
    let text = at.to_string();
    let number = |range: std::ops::Range<usize>| text[range].parse().expect("digits");
    // 1970-01-01 was a Thursday.
    let weekday = u32::try_from((at.as_millis() / 86_400_000 + 4) % 7).expect("a day of the week");
    [number(14..16), number(11..13), number(8..10), number(5..7), weekday]
}

/// Whether a field of a schedule that was taken holds a value.
fn holds(field: &str, value: u32, max: u32, names: &[&str]) -> bool {
    let first = if max == 31 || max == 12 { 1 } else { 0 };
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name)).and_then(|at| u32::try_from(at).ok());
        named.map(|at| if max == 12 { at + 1 } else { at }).or_else(|| text.parse().ok()).expect("a number")
    };
    field.split(',').any(|part| {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(number(step))));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from), number(to)),
            None if range == "*" => (first, if max == 7 { 6 } else { max }),
            None => (number(range), if step.is_some() { max } else { number(range) }),
        };
        (from..=to).contains(&value) && (value - from).is_multiple_of(step.unwrap_or(1))
    })
}
