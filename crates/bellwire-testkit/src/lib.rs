//! For tests only: a whole Bellwire in one value, and a receiver that answers as told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A harness fails by panicking.

mod app;
mod receiver;

pub use app::{Backend, TestApp, database, test_config};
pub use receiver::{Received, Receiver, Reply};
