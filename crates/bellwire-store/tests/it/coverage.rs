//! Whether the suite says of every method of every trait that it puts it to the test.

use std::collections::BTreeSet;

use bellwire_store::conformance::CASES;

const TRAITS: &[(&str, &str)] = &[
    ("application", include_str!("../../src/application.rs")),
    ("attempt", include_str!("../../src/attempt.rs")),
    ("credential", include_str!("../../src/credential.rs")),
    ("delivery", include_str!("../../src/delivery.rs")),
    ("endpoint", include_str!("../../src/endpoint.rs")),
    ("event_type", include_str!("../../src/event_type.rs")),
    ("maintenance", include_str!("../../src/maintenance.rs")),
    ("message", include_str!("../../src/message.rs")),
    ("shard", include_str!("../../src/shard.rs")),
    ("source", include_str!("../../src/source.rs")),
    ("task", include_str!("../../src/task.rs")),
];

/// Names of the functions inside `pub trait …Store { … }`.
fn methods(source: &str) -> Vec<&str> {
    let body = source.split_once("Store {").map_or("", |(_, body)| body);
    let body = body.split_once("\n}").map_or(body, |(body, _)| body);
    body.lines().filter_map(|line| line.trim().trim_start_matches("async ").strip_prefix("fn ")?.split('(').next()).collect()
}

#[test]
fn no_method_of_the_store_is_untested() {
    let modules: BTreeSet<_> = include_str!("../../src/lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("pub use ")?.split("::").next().filter(|_| line.contains("Store")))
        .filter(|name| *name != "error")
        .collect();
    assert_eq!(modules, TRAITS.iter().map(|(name, _)| *name).collect(), "every file with a store trait is looked at");
    let all: BTreeSet<&str> = TRAITS.iter().flat_map(|(_, source)| methods(source)).collect();
    assert!(all.len() > 50, "the traits have been read: {all:?}");
    let covered: BTreeSet<&str> = CASES.iter().flat_map(|case| case.covers.iter().copied()).collect();
    assert_eq!(all.difference(&covered).collect::<Vec<_>>(), Vec::<&&str>::new(), "methods without a case");
    assert_eq!(covered.difference(&all).collect::<Vec<_>>(), Vec::<&&str>::new(), "cases of methods that do not exist");
}
