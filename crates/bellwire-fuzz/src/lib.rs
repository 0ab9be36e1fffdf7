//! Fuzz targets for every parser that reads bytes of strangers: what must hold for any input at all.
//!
//! A target takes bytes and panics when something is wrong; it returns a number that tells apart what happened, so that a driver
//! without coverage can keep the inputs that led somewhere new. Two drivers share them: `cargo run -p bellwire-fuzz` on a stable
//! toolchain (a seeded mutation loop, part of `scripts/test`), and cargo-fuzz with libFuzzer in `fuzz/` on nightly.
#![allow(clippy::expect_used)] // A target fails by panicking.

mod answer;
mod api;
mod credential;
pub mod input;
mod link;
pub mod mutation;
mod outgoing;
mod provider;
mod received;
mod target;
mod text;

pub use target::TARGETS;

/// Something to throw bytes at.
pub struct Target {
    pub name: &'static str,
    /// Panics if something is wrong. What it returns tells what happened.
    pub run: fn(&[u8]) -> u64,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// The target of that name.
///
/// # Panics
/// There is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of that name")
}

/// A number for what happened.
pub fn feature(what: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher as _;

    let mut hasher = std::hash::DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
