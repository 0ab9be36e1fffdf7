//! The API as its callers see it: an in-process router over a real store and a real engine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod contract;
mod credential;
mod cursor;
mod harness;
mod idempotency;
mod nodes;
mod patch;
mod portal;
mod receive;
mod server;
mod source;
mod tenancy;
mod tour;
