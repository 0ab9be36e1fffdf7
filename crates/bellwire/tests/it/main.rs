//! The built binary from outside: exit codes, settings, the life of a server, demo and bench.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
mod configuration;
mod demo;
mod migrate;
mod postgres;
mod receiver;
mod server;
mod support;
