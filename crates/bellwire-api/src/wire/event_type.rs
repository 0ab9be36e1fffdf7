//! Event types on the wire.

use bellwire_core::EventType;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::field::{Patch, present};
use super::list::FeatureFlags;
use super::schema::SchemasIn;
use super::text::{DateTime, Description, EventTypeName, GroupName};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeIn {
    pub name: EventTypeName,
    pub description: Description,
    #[serde(default)]
    pub archived: bool,
    #[serde(default)]
    pub deprecated: bool,
    /// JSON Schemas by version.
    #[serde(default)]
    pub schemas: Option<SchemasIn>,
    #[serde(default)]
    pub group_name: Option<GroupName>,
    #[serde(default)]
    pub feature_flags: Option<FeatureFlags>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeUpsertIn {
    pub description: Description,
    #[serde(default)]
    pub archived: bool,
    #[serde(default)]
    pub deprecated: bool,
    #[serde(default)]
    pub schemas: Option<SchemasIn>,
    #[serde(default)]
    pub group_name: Option<GroupName>,
    #[serde(default)]
    pub feature_flags: Option<FeatureFlags>,
}

/// What of an event type changes; absent stays as it is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypePatch {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Description, required = false)]
    pub description: Option<Description>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    pub archived: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    pub deprecated: Option<bool>,
    #[serde(default)]
    #[schema(value_type = Option<SchemasIn>)]
    pub schemas: Patch<SchemasIn>,
    #[serde(default)]
    #[schema(value_type = Option<FeatureFlags>)]
    pub feature_flags: Patch<FeatureFlags>,
    #[serde(default)]
    #[schema(value_type = Option<GroupName>)]
    pub group_name: Patch<GroupName>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeOut {
    pub name: String,
    pub description: String,
    pub archived: bool,
    pub deprecated: bool,
    #[schema(value_type = Option<SchemasIn>, required = true)]
    pub schemas: Option<Box<RawValue>>,
    pub created_at: DateTime,
    pub updated_at: DateTime,
    #[schema(required = true)]
    pub group_name: Option<String>,
    #[schema(required = true)]
    pub feature_flags: Option<Vec<String>>,
    /// The first of `featureFlags`, for older clients.
    #[schema(required = true)]
    pub feature_flag: Option<String>,
}

impl EventTypeOut {
    /// `with_schemas` off leaves the schemas out (null).
    pub fn new(event_type: EventType, with_schemas: bool) -> Self {
        let schemas = event_type.schemas.filter(|_| with_schemas);
        Self {
            name: event_type.name,
            description: event_type.description,
            archived: event_type.archived,
            deprecated: event_type.deprecated,
            schemas: schemas.and_then(|text| RawValue::from_string(text).ok()),
            created_at: DateTime(event_type.created_at),
            updated_at: DateTime(event_type.updated_at),
            group_name: event_type.group_name,
            feature_flag: event_type.feature_flags.as_ref().and_then(|flags| flags.first().cloned()),
            feature_flags: event_type.feature_flags,
        }
    }
}
