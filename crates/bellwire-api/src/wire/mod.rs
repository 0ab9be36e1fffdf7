//! What goes over the wire: one file a noun, the field names of the Svix API. Reading checks; writing leaves no field out.

pub mod api_key;
pub mod application;
pub mod attempt;
pub mod auth;
pub mod endpoint;
pub mod endpoint_part;
pub mod event_type;
pub mod field;
pub mod list;
pub mod message;
pub mod payload;
pub mod schema;
pub mod source;
pub mod task;
pub mod text;
