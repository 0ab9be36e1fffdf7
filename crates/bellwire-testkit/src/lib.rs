//! For tests only: a whole Bellwire in one value, and a receiver that answers as told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A harness fails by panicking.

mod receiver;

pub use receiver::{Received, Receiver, Reply};
