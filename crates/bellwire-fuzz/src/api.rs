//! Target about the API: JSON bodies of every route.

use bellwire_api::fuzzing::{check_content_encoding, check_content_type, parse_body};
use bellwire_api::wire::api_key::ApiKeyIn;
use bellwire_api::wire::application::{ApplicationIn, ApplicationPatch};
use bellwire_api::wire::auth::AppPortalAccessIn;
use bellwire_api::wire::endpoint::{EndpointIn, EndpointPatch, EndpointUpsertIn};
use bellwire_api::wire::endpoint_part::{
    EndpointHeadersIn, EndpointHeadersPatchIn, EndpointSecretRotateIn, EventExampleIn, RecoverIn,
};
use bellwire_api::wire::event_type::{EventTypeIn, EventTypePatch, EventTypeUpsertIn};
use bellwire_api::wire::message::MessageIn;
use bellwire_api::wire::source::{IngestSourceIn, IngestSourcePatch};
use bellwire_api::{ApiError, wire};
use bellwire_core::{SourceSettings, limits};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::feature;

/// Told to callers of one fault, at most: places and texts quote what was sent.
const FAULT_BYTES_MAX: usize = 4 * 1024;

pub fn bodies() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        r#"{"eventType":"invoice.paid","payload":{"a":[1,2.50,"\u00e9"]},"eventId":"e-1","channels":["a","b"],"tags":["t"],"deliverAt":"2026-01-01T00:00:00Z","payloadRetentionPeriod":5}"#,
        r#"{"eventType":"a","payload":{},"transformationsParams":{"rawPayload":"x","headers":{"content-type":"text/plain"}},"application":{"name":"n","uid":"u"}}"#,
        r#"{"name":"App","uid":"app-1","rateLimit":5,"metadata":{"k":"v"},"throttleRate":1}"#,
        r#"{"url":"https://example.com/","description":"d","eventTypes":["a.b"],"channels":["c"],"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw","headers":{"x-a":"b"},"disabled":false,"uid":null}"#,
        r#"{"headers":{"X-A":"1","x-a":"2","X-B":null},"deleteHeaders":["x-c"]}"#,
        r#"{"name":"invoice.paid","description":"d","schemas":{"1":{"type":"object"}},"archived":true,"featureFlags":["f"],"groupName":"g"}"#,
        r#"{"name":"src","type":"github","uid":"s","config":{"secret":["a","b"],"n":5},"metadata":{},"settings":{"requireJson":true},"appId":"app_0ujtsYcgvSTl8PAuAdqWYSMnLOv"}"#,
        r#"{"readOnly":true,"capabilities":["ViewBase"],"expiry":3600,"sessionId":"s","featureFlags":["x"]}"#,
        r#"{"since":"2026-01-01T00:00:00Z","until":"2026-01-02T00:00:00+01:00"}"#,
        r#"{"eventType":"a","exampleIndex":1}"#,
        r#"{"key":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw","gracePeriodSeconds":60}"#,
        r#"{"name":"key","scopes":["*"],"expiresAt":null}"#,
        "[1]",
        "",
        r#"{"url":5,"url":6}"#,
        "application/json; charset=utf-8",
        "gzip, identity",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    // As many headers as a body holds: work must not grow with the square of them.
    let many: Vec<String> = (0..limits::REQUEST_BODY_BYTES_MAX / 16).map(|number| format!("\"x{number:07}\":\"\"")).collect();
    seeds.push(format!("{{\"url\":\"https://example.com/\",\"headers\":{{{}}}}}", many.join(",")).into_bytes());
    seeds.push(format!("{{\"name\":\"{}\"}}", "\\u0041".repeat(2_000)).into_bytes());
    let long = "x".repeat(6_000);
    seeds.push(format!("{{\"eventType\":\"a\",\"payload\":{{}},\"payloadRetentionPeriod\":\"{long}\"}}").into_bytes());
    seeds.push(format!("{{\"capabilities\":[\"{long}\"],\"metadata\":{{\"{long}\":1}},\"name\":\"n\"}}").into_bytes());
    seeds.push([r#"{"eventType":"a","payload":"#.as_bytes(), &b"[".repeat(30_000), &b"]".repeat(30_000), b"}"].concat());
    seeds
}

/// What is taken is JSON of its form and within its bounds; what is not is told in few words, with its place.
pub fn body(data: &[u8]) -> u64 {
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
    let outcomes = [
        read::<MessageIn<'_>>(data, is_json, |message| check_message(data, message)),
        read::<ApplicationIn>(data, is_json, |_| ()),
        read::<ApplicationPatch>(data, is_json, |_| ()),
        read::<EndpointIn>(data, is_json, |endpoint| {
            check_lists(endpoint.channels.as_ref(), endpoint.event_types.as_ref());
            let headers = endpoint.headers.as_ref().map_or(&[][..], |headers| &headers.0);
            assert!(headers.len() <= limits::ENDPOINT_HEADERS_MAX);
            check_names(&headers.iter().map(|(name, _)| name).collect::<Vec<_>>());
        }),
        read::<EndpointUpsertIn>(data, is_json, |endpoint| {
            check_lists(endpoint.channels.as_ref(), endpoint.event_types.as_ref());
        }),
        read::<EndpointPatch>(data, is_json, |_| ()),
        read::<EndpointHeadersIn>(data, is_json, |_| ()),
        read::<EndpointHeadersPatchIn>(data, is_json, |patch| {
            let names: Vec<&String> = patch.headers.keys().collect();
            check_names(&names);
        }),
        read::<EndpointSecretRotateIn>(data, is_json, |_| ()),
        read::<EventExampleIn>(data, is_json, |_| ()),
        read::<RecoverIn>(data, is_json, |_| ()),
        read::<EventTypeIn>(data, is_json, |_| ()),
        read::<EventTypeUpsertIn>(data, is_json, |_| ()),
        read::<EventTypePatch>(data, is_json, |_| ()),
        read::<IngestSourceIn>(data, is_json, |_| ()),
        read::<IngestSourcePatch>(data, is_json, |_| ()),
        read::<SourceSettings>(data, is_json, |_| ()),
        read::<AppPortalAccessIn>(data, is_json, |_| ()),
        read::<ApiKeyIn>(data, is_json, |_| ()),
    ];
    let mut headers = HeaderMap::new();
    let head = HeaderValue::from_bytes(data).map(|value| {
        headers.insert("content-type", value.clone());
        headers.insert("content-encoding", value);
        let told = [check_content_type(&headers), check_content_encoding(&headers)].map(|checked| checked.map_err(|e| tell(&e)));
        told.map(|checked| checked.is_ok())
    });
    feature(&(outcomes, head.ok()))
}

/// A number for what came of it.
fn read<'d, T: Deserialize<'d>>(data: &'d [u8], is_json: bool, check: impl FnOnce(&T)) -> u64 {
    match parse_body::<T>(data) {
        Ok(value) => {
            assert!(is_json, "what is no JSON is taken");
            check(&value);
            1
        }
        Err(error) => feature(&tell(&error)),
    }
}

/// The beginning of what is told; no more than a screen of it, whatever was sent.
fn tell(error: &ApiError) -> String {
    let ApiError::Invalid(faults) = error else { return error.to_string().chars().take(24).collect() };
    let told = serde_json::to_string(faults).expect("faults are JSON");
    assert!(told.len() <= FAULT_BYTES_MAX, "{} bytes are told of a fault", told.len());
    let first = faults.first().expect("an invalid body has a fault");
    assert!(first.loc.first().is_some_and(|place| place == "body") && !first.msg.is_empty(), "{told}");
    let words: String = first.msg.chars().filter(char::is_ascii_alphabetic).take(24).collect();
    format!("{} {words} {}", first.loc.len().min(6), first.kind)
}

fn check_message(data: &[u8], message: &MessageIn<'_>) {
    // Passed through byte for byte: it is a piece of the input itself.
    let payload = message.payload.get().as_bytes();
    assert!(data.as_ptr_range().contains(&payload.as_ptr()), "a payload is not the caller's own bytes");
    let tags = message.tags.as_ref().map_or(0, |tags| tags.0.len());
    assert!(tags <= limits::MESSAGE_TAGS_MAX && message.event_type.0.len() <= limits::EVENT_TYPE_CHARS_MAX);
    check_lists(message.channels.as_ref(), None);
}

fn check_names(names: &[&String]) {
    let is_twice = |at: usize| names[..at].iter().any(|name| name.eq_ignore_ascii_case(names[at]));
    assert!(!(0..names.len()).any(is_twice), "a header is there twice: {names:?}");
}

fn check_lists(channels: Option<&wire::list::Channels>, event_types: Option<&wire::list::EventTypes>) {
    let (channels, event_types) = (channels.map(|list| list.0.len()), event_types.map(|list| list.0.len()));
    assert!(channels.is_none_or(|count| (1..=limits::ENDPOINT_CHANNELS_MAX).contains(&count)));
    assert!(event_types.is_none_or(|count| (1..=limits::ENDPOINT_EVENT_TYPES_MAX).contains(&count)));
}
