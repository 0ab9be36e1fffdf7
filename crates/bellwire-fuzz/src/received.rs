//! Targets about what comes to sources: bodies as something with fields, addresses of proxies, settings with their schema.

use bellwire_api::fuzzing::{check_settings, finding_of, parse_body};
use bellwire_api::receive::compile_schema;
use bellwire_core::SourceSettings;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::feature;
use crate::input::Input;

/// Told of settings that cannot be taken.
const TOLD_BYTES_MAX: usize = 12 * 1024;
/// Kept in a source's log of one body.
const FINDING_BYTES_MAX: usize = 4 * 1024;

/// A body's view is never much larger than the body: its JSON holds every byte a bounded number of times.
pub fn view(data: &[u8]) -> u64 {
    let input = Input::read(data);
    let headers: HeaderMap = input.with_request(|request| {
        let parsed = request
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.parse::<http::HeaderName>().ok()?, HeaderValue::from_bytes(value).ok()?)));
        parsed.collect()
    });
    let seen = bellwire_api::receive::view::of(&headers, input.body);
    let kind = seen.as_ref().map(|value| {
        let bytes = value.to_string().len();
        assert!(bytes <= 64 * input.body.len() + 1_024, "{} bytes become {bytes}", input.body.len());
        (value.is_object(), value.as_object().map_or(0, |members| members.len().min(64)), shape(value, 0))
    });
    feature(&(kind, headers.get("content-type").map(|value| value.as_bytes().iter().take(20).copied().collect::<Vec<_>>())))
}

fn shape(value: &Value, depth: usize) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| shape(item, depth + 1)).max().unwrap_or(depth),
        Value::Object(members) => members.values().map(|item| shape(item, depth + 1)).max().unwrap_or(depth),
        _ => depth,
    }
}

pub fn addresses() -> Vec<Vec<u8>> {
    [
        "192.0.2.1",
        "192.0.2.1, 10.0.0.1",
        "[2001:db8::1]:443, 10.0.0.2",
        "10.0.0.1, 10.0.0.2\n::ffff:10.0.0.3",
        "203.0.113.9:80,unknown",
        "",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Nobody chooses the address that he is taken for: what a stranger writes to the left of what the proxy adds changes nothing.
pub fn address(data: &[u8]) -> u64 {
    let trusted: Vec<ipnet::IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
    let seen = |lines: &[&[u8]]| {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        for line in lines {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                parts.headers.append("x-forwarded-for", value);
            }
        }
        parts.extensions.insert(bellwire_api::receive::PeerAddress([10, 0, 0, 1].into()));
        bellwire_api::receive::client_address(&parts, &trusted)
    };
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let alone = seen(&lines);
    let mut with_proxy = lines.clone();
    with_proxy.push(b"203.0.113.77");
    assert_eq!(seen(&with_proxy).to_string(), "203.0.113.77", "a stranger chose the address that he is taken for");
    feature(&(alone.is_ipv4(), trusted[0].contains(&alone), lines.len().min(8), alone.to_string().len()))
}

pub fn all_settings() -> Vec<Vec<u8>> {
    [
        "{}",
        r#"{"requireJson":true,"bodyBytesMax":1000,"allowedNetworks":["192.0.2.0/24","::1"],"rateLimit":5,"basicUser":"u","tokenHeader":"x-t"}"#,
        r#"{"answer":{"status":202,"headers":{"x-a":"b"},"body":"ok"},"duplicates":{"by":"parts","parts":["/id","header:x-id"],"windowSeconds":60}}"#,
        r#"{"orderingKey":"/a/b","eventType":"query:t","occurredAt":"header:date","sequence":"/n","staleAfterSeconds":60,"handshake":"clio"}"#,
        "{\"schema\":{\"type\":\"object\",\"required\":[\"id\"],\"properties\":{\"id\":{\"type\":\"integer\",\"minimum\":1}}}}\n\n{\"id\":5}",
        "{\"schema\":{\"$ref\":\"#\"}}\n\n{}",
        "{\"schema\":{\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}},\"$ref\":\"#/$defs/a\"}}\n\n{}",
        "{\"schema\":{\"allOf\":[{\"$ref\":\"#\"}]}}\n\n{}",
        "{\"schema\":{\"not\":{\"$ref\":\"#\"}}}\n\n{\"a\":1}",
        "{\"schema\":{\"anyOf\":[{\"type\":\"string\"},{\"$ref\":\"#\"}]}}\n\n{\"a\":1}",
        "{\"schema\":{\"$dynamicAnchor\":\"a\",\"anyOf\":[{\"$dynamicRef\":\"#a\"},{\"type\":\"array\"}]}}\n\n[]",
        "{\"schema\":{\"$ref\":\"https://example.com/schema.json\"}}\n\n{}",
        "{\"schema\":{\"$ref\":\"file:///etc/hostname\"}}\n\n{}",
        "{\"schema\":{\"properties\":{\"next\":{\"$ref\":\"#\"}},\"additionalProperties\":false}}\n\n{\"next\":{\"next\":{\"x\":1}}}",
        "{\"schema\":{\"patternProperties\":{\"^(a+)+$\":{\"pattern\":\"^(b|b)*c$\"}},\"format\":\"email\"}}\n\n{\"aaaa\":\"bbbbbbbbbbb\"}",
        "{\"schema\":{\"uniqueItems\":true,\"items\":{\"enum\":[1,2.0,\"a\",null]},\"contains\":{\"const\":1},\"multipleOf\":0.1}}\n\n[1,1.0]",
        "{\"schema\":{\"multipleOf\":1e-300,\"maximum\":1e308,\"minLength\":5}}\n\n123456789012345678901234567890",
        "{\"schema\":{\"if\":{\"type\":\"object\"},\"then\":{\"minProperties\":2},\"else\":false,\"unevaluatedProperties\":false}}\n\n{\"a\":1}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into_iter()
    .chain([long_settings("tokenHeader"), long_settings("handshake"), long_settings("basicUser"), long_settings("sequence")])
    .collect()
}

/// Nobody is told back what he wrote when it is long.
fn long_settings(name: &str) -> Vec<u8> {
    format!("{{\"{name}\":\"{}\"}}", "\\u0007".repeat(8_000)).into_bytes()
}

/// Settings that are taken read back as they were; a schema judges every body, always alike, and is told in bounded words.
pub fn settings(data: &[u8]) -> u64 {
    let at = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (text, body) = (&data[..at], data.get(at + 2..).unwrap_or_default());
    let Ok(settings) = parse_body::<SourceSettings>(text) else { return feature(&"no settings") };
    let checked = check_settings(&settings, &["body"]).map_err(|error| {
        let told = error.to_string();
        assert!(told.len() <= TOLD_BYTES_MAX, "{} bytes are told of {}", told.len(), text.len());
        told.chars().filter(char::is_ascii_alphabetic).skip(40).take(24).collect::<String>()
    });
    if checked.is_ok() {
        let written = serde_json::to_vec(&settings).expect("settings are JSON");
        assert_eq!(
            serde_json::from_slice::<SourceSettings>(&written).ok().as_ref(),
            Some(&settings),
            "settings change by being kept"
        );
    }
    let finding = settings.schema.as_ref().map(|schema| {
        let compiled = compile_schema(schema);
        assert!(compiled.is_ok() || checked.is_err(), "a schema that cannot be used is taken");
        let finding = finding_of(&compiled, &HeaderMap::new(), body);
        if compiled.is_ok() {
            assert_eq!(finding, finding_of(&compile_schema(schema), &HeaderMap::new(), body), "two verdicts about one body");
            let bytes = finding.as_ref().map_or(0, String::len);
            assert!(bytes <= FINDING_BYTES_MAX, "{bytes} bytes are told of a body");
        }
        finding.map(|finding| finding.chars().rev().filter(char::is_ascii_alphabetic).take(24).collect::<String>())
    });
    feature(&(checked.err(), finding))
}
