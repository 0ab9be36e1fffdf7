//! Requests made with and judged by official libraries of 73 providers: we must agree with them on every normative one.

use bellwire_verify::Presets;
use bellwire_verify::vectors::{Case, Expect, run};

/// How many cases the file holds, so that none is lost in silence when it is regenerated.
const CASES: usize = 614;

pub(crate) fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../data/vectors.json")).unwrap()
}

/// Broken: a genuine webhook of some provider is refused, or a forged one is taken.
#[test]
fn every_recorded_request_is_judged_as_the_official_libraries_do() {
    let cases = cases();
    assert_eq!(cases.len(), CASES);
    let (mut wrong, mut differing) = (Vec::new(), Vec::new());
    for case in &cases {
        let outcome = run(case);
        if !outcome.is_right() {
            let line = format!("{}: {:?} ({}), expected {:?}: {}", case.id, outcome.got, outcome.detail, case.expect, case.why);
            if case.is_normative { wrong.push(line) } else { differing.push(line) }
        }
    }
    assert!(wrong.is_empty(), "{} of {} are judged wrongly:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // Where real receivers differ, this is where we stand: shown, and counted so that a change of mind is seen.
    assert_eq!(differing.len(), DIFFERING, "{}", differing.join("\n"));
}

/// Cases that are not normative and that we judge otherwise than the file.
const DIFFERING: usize = 0;

/// Broken: a case passes because its provider has no preset, or a provider's cases are all of one kind.
#[test]
fn every_provider_of_the_cases_has_a_preset_and_both_kinds_of_cases() {
    let cases = cases();
    let providers: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.provider.as_str()).collect();
    assert_eq!(providers.len(), 73);
    for provider in providers {
        assert!(Presets::builtin().get(provider).is_some(), "{provider}");
        for expect in [Expect::Valid, Expect::Invalid] {
            assert!(cases.iter().any(|case| case.provider == provider && case.expect == expect), "{provider} {expect:?}");
        }
    }
}

/// Broken: a genuine webhook of a provider whose scheme takes more than data is refused, or a forged one is taken. These requests
/// were signed or judged by the libraries that each case names (Contentful, TrueLayer, Sanity, Hygraph, Plivo, Box, MessageBird, QStash, Cloudinary; Keccak-256 and
/// canonical JSON by well-known packages).
#[test]
fn requests_of_further_libraries_are_judged_as_they_do() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../data/library_signed.json")).unwrap();
    assert_eq!(cases.len(), LIBRARY_CASES);
    let outcomes = cases.iter().map(|case| (case, run(case))).filter(|(_, outcome)| !outcome.is_right());
    let wrong: Vec<_> = outcomes.map(|(case, outcome)| format!("{}: {:?} ({})", case.id, outcome.got, outcome.detail)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How many cases that file holds.
const LIBRARY_CASES: usize = 108;
