//! Parts of an endpoint with routes of their own: headers, signing key, counters, recovery, example.

use std::collections::BTreeMap;

use bellwire_store::EndpointCounts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::field::{HeadersIn, header_changes};
use super::text::{DateTime, EventTypeName, SecretText};

#[derive(Deserialize, ToSchema)]
pub struct EndpointHeadersIn {
    pub headers: HeadersIn,
}

/// Headers to set, and (null, or in `deleteHeaders`) to remove; others stay.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHeadersPatchIn {
    #[serde(deserialize_with = "header_changes")]
    pub headers: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub delete_headers: Vec<String>,
}

/// Values of headers that name a credential are not shown; their names are in `sensitive`.
#[derive(Serialize, ToSchema)]
pub struct EndpointHeadersOut {
    pub headers: BTreeMap<String, String>,
    pub sensitive: Vec<String>,
}

/// The symmetric secret (`whsec_…`), or the public key (`whpk_…`) of an asymmetric one.
#[derive(Serialize, ToSchema)]
pub struct EndpointSecretOut {
    #[schema(pattern = "^(whsec_|whpk_)[a-zA-Z0-9+/=]{32,100}$")]
    pub key: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSecretRotateIn {
    /// The new key; made by the server when absent.
    #[serde(default)]
    pub key: Option<SecretText>,
    /// How long the old key goes on signing beside the new one, in seconds.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 604800, default = 86400)]
    pub grace_period_seconds: Option<u64>,
}

/// Deliveries by status.
#[derive(Serialize, ToSchema)]
pub struct EndpointStats {
    pub success: i64,
    pub pending: i64,
    pub sending: i64,
    pub fail: i64,
    pub canceled: i64,
}

impl From<EndpointCounts> for EndpointStats {
    fn from(counts: EndpointCounts) -> Self {
        let EndpointCounts { success, pending, sending, fail, canceled } = counts;
        Self { success, pending, sending, fail, canceled }
    }
}

#[derive(Deserialize, ToSchema)]
pub struct RecoverIn {
    pub since: DateTime,
    /// Now when absent.
    #[serde(default)]
    pub until: Option<DateTime>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventExampleIn {
    pub event_type: EventTypeName,
    /// Which of the schema's examples.
    #[serde(default)]
    pub example_index: u32,
}

/// An answer that says no more than its status.
#[derive(Serialize, ToSchema)]
pub struct EmptyOut {}
