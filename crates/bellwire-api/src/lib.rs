//! The only HTTP server code: routes, credentials, error catalogue, wire types, OpenAPI, the server itself.
//!
//! A request takes this way: `server.rs` reads it within limits → `router.rs` finds its [`router::Route`] → `call.rs` checks the
//! credential against the route's scope and hands a [`call::Call`] to a handler in `route/` → the handler reads `wire/` types
//! (`body.rs`, `query.rs`), asks the engine or the store, and answers; whatever fails becomes an entry of `error.rs`. What comes to
//! the public URLs of sources takes another way: `receive/`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod answer;
pub mod auth;
mod body;
pub mod call;
pub mod error;
mod event;
mod example;
#[doc(hidden)]
pub mod fuzzing;
mod idempotency;
mod iterator;
mod lock;
pub mod openapi;
mod query;
pub mod receive;
mod route;
pub mod router;
pub mod server;
mod state;
mod tries;
pub mod wire;

pub use auth::{NewApiKey, Scope, ScopeSet, mint_app_jwt, mint_org_jwt, new_api_key};
pub use error::{ApiError, Code};
pub use openapi::openapi_json;
pub use receive::ReceiveConfig;
pub use router::{Api, ROUTES};
pub use server::{ServeReport, serve};
pub use state::{ApiConfig, ApiState};
