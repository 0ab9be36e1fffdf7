//! The API as its callers see it: an in-process router over a real store and a real engine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contract;
