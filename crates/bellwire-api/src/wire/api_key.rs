//! API keys on the wire. Beyond the Svix API.

use bellwire_store::ApiKeyRecord;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::text::{ApiKeyName, DateTime};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyIn {
    pub name: ApiKeyName,
    /// Such as `message:write`, `endpoint:*`; at most what the asking credential may do itself. Absent: the same as it.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 19)]
    pub scopes: Option<Vec<String>>,
    /// Never, when absent.
    #[serde(default)]
    pub expires_at: Option<DateTime>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyOut {
    #[schema(min_length = 31, max_length = 31, pattern = "^key_[A-Za-z0-9]{27}$")]
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    pub created_at: DateTime,
    #[schema(required = true)]
    pub expires_at: Option<DateTime>,
    #[schema(required = true)]
    pub revoked_at: Option<DateTime>,
    /// To the minute.
    #[schema(required = true)]
    pub last_used_at: Option<DateTime>,
}

/// A new key. `key` is shown this once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyCreatedOut {
    pub key: String,
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    pub created_at: DateTime,
    #[schema(required = true)]
    pub expires_at: Option<DateTime>,
}

impl From<ApiKeyRecord> for ApiKeyOut {
    fn from(key: ApiKeyRecord) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            scopes: key.scopes,
            created_at: DateTime(key.created_at),
            expires_at: key.expires_at.map(DateTime),
            revoked_at: key.revoked_at.map(DateTime),
            last_used_at: key.last_used_at.map(DateTime),
        }
    }
}
