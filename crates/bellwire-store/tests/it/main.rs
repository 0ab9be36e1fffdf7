//! The embedded store against the suite of all backends, and what is its own: files, locks, crashes, a full disk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conformance;
mod coverage;
