//! A door for `bellwire-fuzz`: the parsers of requests that are nobody else's business outside this crate.

pub use crate::auth::parse_api_key;
pub use crate::body::{check_content_encoding, check_content_type, parse as parse_body};
pub use crate::iterator::{ListOut, Travel, read as read_iterator};
pub use crate::query::Query;
pub use crate::receive::{basic_credentials, finding_of};
pub use crate::route::source_setting::check_settings;
