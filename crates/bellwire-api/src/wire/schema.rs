//! JSON Schemas of an event type: an object from version to schema, kept as it was written.

use std::collections::BTreeMap;

use bellwire_core::limits;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Checked: versions are short names, schemas are objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemasIn(pub String);

impl<'de> Deserialize<'de> for SchemasIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let versions = BTreeMap::<String, Box<RawValue>>::deserialize(deserializer)?;
        check(&versions).map_err(serde::de::Error::custom)?;
        serde_json::to_string(&versions).map(Self).map_err(serde::de::Error::custom)
    }
}

fn check(versions: &BTreeMap<String, Box<RawValue>>) -> Result<(), String> {
    if versions.len() > limits::SCHEMA_VERSIONS_MAX {
        return Err(format!("{} schema versions; at most {} are allowed", versions.len(), limits::SCHEMA_VERSIONS_MAX));
    }
    for (version, schema) in versions {
        let shown: String = version.chars().take(limits::SCHEMA_VERSION_CHARS_MAX).collect();
        let named = !version.is_empty()
            && version.len() <= limits::SCHEMA_VERSION_CHARS_MAX
            && version.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        if !named {
            return Err(format!("{shown:?} is not a schema version such as \"1\""));
        }
        if !schema.get().starts_with('{') {
            return Err(format!("the schema of version {shown:?} is not an object; schemas are {{\"1\": {{…JSON Schema…}}}}"));
        }
        // Also a check of its depth: what nests deeper than the parser allows cannot be shown again.
        serde_json::from_str::<serde_json::Value>(schema.get())
            .map_err(|error| format!("the schema of version {shown:?}: {error}"))?;
    }
    Ok(())
}

impl PartialSchema for SchemasIn {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new().schema_type(Type::Object).build();
        let version = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(limits::SCHEMA_VERSION_CHARS_MAX))
            .pattern(Some(r"^[a-zA-Z0-9\-_.]+$"))
            .build();
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property_names(Some(version))
            .additional_properties(Some(RefOr::T(Schema::Object(schema))))
            .description(Some("JSON Schemas by version."))
            .into()
    }
}

impl ToSchema for SchemasIn {}
