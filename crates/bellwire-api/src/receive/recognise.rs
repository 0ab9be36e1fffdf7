//! What a genuine request is about: event type, what makes it a duplicate, its place in an order, where it came from.

use std::cell::OnceCell;

use aws_lc_rs::digest::{Context, SHA256};
use bellwire_core::{DuplicateKey, IdKind, Message, MessageId, Origin, SourceId, Timestamp, limits};
use bellwire_verify::{Event, Request};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use quick_cache::sync::Cache;
use serde_json::Value;

use super::judge::Proof;
use super::{Visit, view};

/// A message to publish, and what it is known by.
pub struct Recognised {
    pub message: Message,
    /// Hash of source and event; `None`: every request is an event of its own.
    pub duplicate_key: Option<[u8; 16]>,
    pub order: Option<Order>,
}

/// The place of an event among those with its ordering key.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    key: [u8; 16],
    at: i64,
}

/// The newest event of each ordering key that this node has seen.
pub struct Latest(Cache<[u8; 16], i64>);

impl Latest {
    pub fn new() -> Self {
        Self(Cache::new(limits::ORDERING_KEYS_CACHED))
    }

    fn is_late(&self, order: Order) -> bool {
        self.0.get(&order.key).is_some_and(|newest| order.at < newest)
    }

    pub fn note(&self, order: Order) {
        if !self.is_late(order) {
            self.0.insert(order.key, order.at);
        }
    }
}

/// Whether a text names a place: a JSON Pointer, `header:NAME` or `query:NAME`.
pub fn is_place(text: &str) -> bool {
    match text.split_once(':') {
        Some(("header", name)) => http::HeaderName::from_bytes(name.as_bytes()).is_ok(),
        Some(("query", name)) => !name.is_empty(),
        _ => text.starts_with('/') && text.len() <= limits::NAME_CHARS_MAX,
    }
}

/// What places are read from; the body is parsed when the first of them needs it.
struct Reader<'a> {
    headers: &'a HeaderMap,
    query: &'a str,
    body: &'a [u8],
    view: OnceCell<Option<Value>>,
}

impl Reader<'_> {
    /// A text, number or boolean; nothing else stands for itself.
    fn read(&self, place: &str) -> Option<String> {
        let text = match place.split_once(':') {
            Some(("header", name)) => self.headers.get(name)?.to_str().ok()?.to_owned(),
            Some(("query", name)) => {
                url::form_urlencoded::parse(self.query.as_bytes()).find(|(known, _)| known == name)?.1.into_owned()
            }
            _ => {
                let view = self.view.get_or_init(|| view::of(self.headers, self.body)).as_ref()?;
                match view.pointer(place)? {
                    Value::String(text) => text.clone(),
                    value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
                    _ => return None,
                }
            }
        };
        (!text.is_empty()).then_some(text)
    }
}

/// A hash in which no two different lists of parts are alike.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&context.finish().as_ref()[..16]);
    out
}

/// Reads everything there is to know about a request that was verified.
pub fn recognise(visit: &Visit<'_>, headers: &[(&str, &[u8])], body: Bytes, proof: &Proof) -> Recognised {
    let (api, ready) = (visit.api, visit.ready);
    let (source, settings) = (&ready.source, &ready.source.settings);
    let query = visit.parts.uri.query().unwrap_or_default();
    let reader = Reader { headers: &visit.parts.headers, query, body: &body, view: OnceCell::new() };
    let event = match &ready.preset {
        Some(preset) => {
            let method = visit.parts.method.as_str();
            preset.event(&Request { method, url: &visit.url, headers, body: &body, peer: Some(visit.client) })
        }
        None => Event::default(),
    };
    let event_type = settings.event_type.as_deref().and_then(|place| reader.read(place)).or(event.kind.clone());
    let ordering_key = settings.ordering_key.as_deref().and_then(|place| reader.read(place));
    let ordering_key = ordering_key.map(|key| key.chars().take(limits::UID_CHARS_MAX).collect::<String>());
    let read_time = |place: &str| reader.read(place).and_then(|text| parse_time(&text));
    let occurred_at = match &settings.occurred_at {
        Some(place) => read_time(place),
        None => known_times(&source.kind).iter().find_map(|place| read_time(place)),
    };
    let occurred_at = occurred_at.or(proof.signed_at_ms);
    let sequence = settings.sequence.as_deref().and_then(|place| reader.read(place));
    let id: MessageId = api.engine().new_id();
    let created_at = id.created();
    let order = match (&ordering_key, occurred_at) {
        (Some(key), Some(at)) => Some(Order { key: hash(&[source.id.as_bytes(), key.as_bytes()]), at }),
        _ => None,
    };
    let age_ms = occurred_at.map(|at| created_at.as_millis().saturating_sub(at));
    let stale_ms = settings.stale_after_seconds.map(|seconds| i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX));
    let origin = Origin {
        source: ready.id.clone(),
        method: visit.parts.method.as_str().to_owned(),
        path: ready.mask.text(rest_of(visit)),
        headers: ready.mask.headers(&visit.parts.headers),
        remote_address: visit.client.to_string(),
        verified_by: proof.by.clone(),
        ordering_key,
        occurred_at,
        sequence: sequence.map(|text| text.chars().take(limits::UID_CHARS_MAX).collect()),
        is_late: order.is_some_and(|order| api.receive().latest.is_late(order)),
        is_stale: matches!((age_ms, stale_ms), (Some(age), Some(most)) if age > most),
    };
    let duplicate_key = duplicate_key(source.id, &settings.duplicates, &reader, &event);
    let (payload, content_type) = payload_of(visit, &body);
    let message = Message {
        id,
        app: source.app,
        event_type: event_type.as_deref().and_then(event_name).unwrap_or_else(|| source.kind.clone()),
        event_id: None,
        payload: Some(payload),
        content_type,
        channels: Vec::new(),
        tags: Vec::new(),
        created_at,
        deliver_at: None,
        payload_expires_at: created_at.plus(api.engine().config().retention),
        origin: Some(Box::new(origin)),
    };
    Recognised { message, duplicate_key, order }
}

/// The path after the token, with the query.
fn rest_of<'v>(visit: &'v Visit<'_>) -> &'v str {
    let whole = visit.parts.uri.path_and_query().map_or("", |text| text.as_str());
    let rest = whole.strip_prefix(super::PREFIX).unwrap_or_default();
    rest.find(['/', '?']).map_or("", |at| &rest[at..])
}

/// A provider's word as an event type: letters, digits, `-_.`; what divides it elsewhere is a full stop here (`orders/create`).
pub fn event_name(text: &str) -> Option<String> {
    let name: String = text
        .trim()
        .chars()
        .take(limits::EVENT_TYPE_CHARS_MAX)
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') => c,
            '/' | ':' => '.',
            _ => '_',
        })
        .collect();
    (!name.is_empty()).then_some(name)
}

/// Where providers say when an event happened, which stays the same when they send it again.
fn known_times(kind: &str) -> &'static [&'static str] {
    match super::preset_id(kind) {
        "stripe" => &["/created"],
        "slack" => &["/event_time"],
        "shopify" => &["header:x-shopify-triggered-at"],
        "paypal" => &["/create_time"],
        "square" | "calendly" | "linear" => &["/created_at", "/createdAt"],
        "hubspot-v1" | "hubspot-v2" | "hubspot-v3" => &["/0/occurredAt"],
        "cloudevents-http" => &["header:ce-time", "/time"],
        "svix" | "clerk" | "resend" | "standard-webhooks" | "standard-webhooks-v1a" | "openai" | "polar" => {
            &["/timestamp", "/created_at"]
        }
        "paddle" => &["/occurred_at"],
        "sendgrid" => &["/0/timestamp"],
        "mailgun" => &["/event-data/timestamp", "/signature/timestamp"],
        "zoom" => &["/event_ts"],
        "intercom" => &["/created_at"],
        "pagerduty" => &["/event/occurred_at"],
        "xero" => &["/events/0/eventDateUtc"],
        "aws-sns" => &["/Timestamp"],
        _ => &[],
    }
}

/// RFC 3339, or a number of seconds, milliseconds or microseconds since 1970; in milliseconds.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Some(at) = Timestamp::parse_rfc3339(text) {
        return Some(at.as_millis());
    }
    let number: f64 = text.trim().parse().ok()?;
    let ms = match number {
        n if !n.is_finite() || n < 0.0 => return None,
        // Seconds until the year 5138, milliseconds since 1973.
        n if n < 1e11 => n * 1e3,
        n if n < 1e14 => n,
        n if n < 1e17 => n / 1e3,
        _ => return None,
    };
    Some(ms.round() as i64)
}

fn duplicate_key(source: SourceId, rule: &bellwire_core::DuplicateRule, reader: &Reader<'_>, event: &Event) -> Option<[u8; 16]> {
    let source = source.as_bytes();
    let by_body = || {
        let content_type = reader.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let kind = event.kind.as_deref().unwrap_or_default();
        hash(&[source, b"body", kind.as_bytes(), content_type, reader.query.as_bytes(), reader.body])
    };
    match rule.by {
        DuplicateKey::Off => None,
        DuplicateKey::Body => Some(by_body()),
        DuplicateKey::Provider => Some(match event.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => hash(&[source, b"id", id.as_bytes()]),
            None => by_body(),
        }),
        DuplicateKey::Parts => {
            let values: Vec<Option<String>> = rule.parts.iter().map(|place| reader.read(place)).collect();
            if values.iter().all(Option::is_none) {
                return Some(by_body());
            }
            let mut parts: Vec<&[u8]> = vec![source, b"parts"];
            for value in &values {
                // Missing is not empty.
                parts.extend(value.as_ref().map_or([&b"-"[..], b""], |text| [b"+", text.as_bytes()]));
            }
            Some(hash(&parts))
        }
    }
}

/// The bytes as they came; a request without any is known by its query.
fn payload_of(visit: &Visit<'_>, body: &Bytes) -> (Bytes, String) {
    const JSON: &str = "application/json";
    let query = visit.parts.uri.query().unwrap_or_default();
    if body.is_empty() && !query.is_empty() {
        let fields = view::form(query.as_bytes()).unwrap_or(Value::Null);
        return (Bytes::from(fields.to_string()), JSON.to_owned());
    }
    let given = visit.parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let given = given.filter(|text| !text.is_empty() && text.len() <= limits::CONTENT_TYPE_BYTES_MAX);
    let content_type = match given {
        Some(text) => text,
        None if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => JSON,
        None => "application/octet-stream",
    };
    (body.clone(), content_type.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: an event type that no endpoint could ever filter for is stored.
    #[test]
    fn event_types_are_names_whatever_the_provider_says() {
        assert_eq!(event_name("orders/create").as_deref(), Some("orders.create"));
        assert_eq!(event_name(" Push Hook ").as_deref(), Some("Push_Hook"));
        assert_eq!(event_name("com.x:y").as_deref(), Some("com.x.y"));
        assert_eq!(event_name(&"é".repeat(300)).map(|name| name.len()), Some(limits::EVENT_TYPE_CHARS_MAX));
        assert_eq!(event_name("  "), None);
    }

    /// Broken: an event's age is off by a factor of a thousand.
    #[test]
    fn times_are_read_in_every_unit_providers_use() {
        let ms = Some(1_767_225_600_000);
        for text in ["1767225600", "1767225600.0", "1767225600000", "1767225600000000", "2026-01-01T00:00:00Z"] {
            assert_eq!(parse_time(text), ms, "{text}");
        }
        for text in ["", "soon", "NaN", "-1", "inf", "1e300"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    /// Broken: an older event after a newer one is not seen to be late, or a repeat of the newest one is.
    #[test]
    fn late_is_what_is_older_than_what_came_before() {
        let latest = Latest::new();
        let at = |at| Order { key: [1; 16], at };
        assert!(!latest.is_late(at(5)));
        latest.note(at(5));
        assert!(latest.is_late(at(4)) && !latest.is_late(at(5)) && !latest.is_late(at(6)));
        latest.note(at(4));
        assert!(latest.is_late(at(4)), "a late event moved the mark back");
        assert!(!latest.is_late(Order { key: [2; 16], at: 1 }));
    }
}
