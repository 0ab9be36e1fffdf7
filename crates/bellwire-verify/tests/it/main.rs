//! Requests signed by, and judged by, the official Standard Webhooks and Svix libraries: we must agree with them on every one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificate;
mod faults;
mod fixtures;
mod format;
mod handshake;
mod http;
mod pages;
mod provider;
mod round_trip;
mod svix_sources;
mod vectors;

use bellwire_verify::{Error, Key, SignedHeaders, TOLERANCE_SECONDS, verify};
use serde_json::Value;

/// How many cases the file holds, so that none is lost in silence when it is regenerated.
const CASES: usize = 55;

fn judge(case: &Value) -> Result<(), Error> {
    let headers = case["headers"].as_object().unwrap();
    let find = |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str());
    let key = Key::parse(case["secret"].as_str().unwrap())?;
    let body = case["body"].as_str().unwrap().as_bytes();
    verify(&SignedHeaders::read(find), body, &[key.verifier()], case["now"].as_u64().unwrap(), TOLERANCE_SECONDS)
}

/// Broken: a genuine webhook of a sender that uses the official libraries is refused, or a forged one is taken.
#[test]
fn every_published_vector_is_judged_as_the_official_libraries_do() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../data/standard_webhooks.json")).unwrap();
    assert_eq!(cases.len(), CASES);
    let mut wrong = Vec::new();
    for case in &cases {
        let verdict = judge(case);
        if verdict.is_ok() != (case["expect"] == "valid") {
            wrong.push(format!("{}: {verdict:?}, expected {}: {}", case["id"], case["expect"], case["why"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.iter().any(|case| case["expect"] == "valid"));
}
