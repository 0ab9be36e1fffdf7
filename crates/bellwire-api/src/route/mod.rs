//! The handlers, one file a noun. They translate: wire types in, engine or store called, wire types out.

pub mod api_key;
pub mod application;
pub mod attempt;
pub mod auth;
pub mod endpoint;
pub mod endpoint_action;
pub mod endpoint_header;
pub mod endpoint_secret;
pub mod event_type;
pub mod health;
pub mod message;
pub mod not_served;
pub mod operational;
pub mod server;
pub mod source;
pub mod source_endpoint;
pub mod source_setting;
pub mod task;

use bellwire_core::{Page, limits};
use http::StatusCode;
use serde::Serialize;

use crate::answer::{self, Answer};
use crate::iterator::ListOut;

/// Body of everything but publishing.
const BODY_MAX: usize = limits::REQUEST_BODY_BYTES_MAX;

/// A page of rows, shown as wire types.
fn page<R, T: Serialize>(page: Page<R>, show: impl Fn(R) -> T, cursor: impl Fn(&T) -> String) -> Answer {
    let rows = page.rows.into_iter().map(show).collect();
    answer::json(StatusCode::OK, &ListOut::new(rows, page.done, cursor))
}
