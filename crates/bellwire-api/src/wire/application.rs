//! Applications on the wire.

use std::num::NonZeroU16;

use bellwire_core::{Application, Metadata};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::field::{MetadataIn, Patch, present};
use super::text::{DateTime, Name, Uid};

/// A new application, or the whole of a changed one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationIn {
    pub name: Name,
    /// Messages per second to this application's endpoints together.
    #[serde(default, alias = "rateLimit")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    pub throttle_rate: Option<NonZeroU16>,
    /// The caller's own id, usable wherever the id is.
    #[serde(default)]
    #[schema(value_type = Option<Uid>)]
    pub uid: Patch<Uid>,
    #[serde(default)]
    pub metadata: MetadataIn,
}

/// What of an application changes; absent stays as it is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationPatch {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Name, required = false)]
    pub name: Option<Name>,
    /// 0 or null: no limit.
    #[serde(default, alias = "rateLimit")]
    #[schema(value_type = Option<u16>, maximum = 65535)]
    pub throttle_rate: Patch<u16>,
    #[serde(default)]
    #[schema(value_type = Option<Uid>)]
    pub uid: Patch<Uid>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = MetadataIn, required = false)]
    pub metadata: Option<MetadataIn>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationOut {
    #[schema(required = true)]
    pub uid: Option<String>,
    pub name: String,
    #[schema(required = true)]
    pub throttle_rate: Option<u16>,
    /// `throttleRate` under the name of older clients.
    #[schema(required = true)]
    pub rate_limit: Option<u16>,
    #[schema(min_length = 31, max_length = 31, pattern = "^app_[A-Za-z0-9]{27}$")]
    pub id: String,
    pub created_at: DateTime,
    pub updated_at: DateTime,
    #[schema(value_type = MetadataIn)]
    pub metadata: Metadata,
}

impl From<Application> for ApplicationOut {
    fn from(app: Application) -> Self {
        Self {
            uid: app.uid,
            name: app.name,
            throttle_rate: app.throttle_rate,
            rate_limit: app.throttle_rate,
            id: app.id.to_string(),
            created_at: DateTime(app.created_at),
            updated_at: DateTime(app.updated_at),
            metadata: app.metadata,
        }
    }
}
