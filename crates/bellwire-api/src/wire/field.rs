//! Fields with more than two states, and maps with bounds.

use std::collections::BTreeMap;

use bellwire_core::header::{self, HeaderError};
use bellwire_core::{HeaderSet, Metadata, Secret, limits};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A field of a PATCH: absent is not null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    #[default]
    Absent,
    Null,
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

impl<T> Patch<T> {
    /// Applies it: absent leaves `slot`, null empties it.
    pub fn apply<U>(self, slot: &mut Option<U>, convert: impl FnOnce(T) -> U) {
        match self {
            Self::Absent => {}
            Self::Null => *slot = None,
            Self::Value(value) => *slot = Some(convert(value)),
        }
    }
}

/// For a field of a PATCH that may be absent but not null.
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Free-form texts by name, bounded in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataIn(pub Metadata);

impl<'de> Deserialize<'de> for MetadataIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Metadata::deserialize(deserializer)?;
        let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > limits::METADATA_BYTES_MAX {
            let text = format!("metadata has {bytes} bytes; at most {} are allowed", limits::METADATA_BYTES_MAX);
            return Err(serde::de::Error::custom(text));
        }
        Ok(Self(map))
    }
}

fn map_of_texts() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(RefOr::T(Schema::Object(ObjectBuilder::new().schema_type(Type::String).build()))))
        .into()
}

impl PartialSchema for MetadataIn {
    fn schema() -> RefOr<Schema> {
        map_of_texts()
    }
}

impl ToSchema for MetadataIn {}

/// Extra headers of an endpoint, checked as `bellwire_core::header` says. Later ones replace earlier ones of the same name.
#[derive(Clone, Default)]
pub struct HeadersIn(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for HeadersIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(deserializer)?;
        let kept = distinct(map, limits::ENDPOINT_HEADERS_MAX).map_err(serde::de::Error::custom)?;
        header::check_all(kept.iter().map(|(n, v)| (n.as_str(), v.as_str()))).map_err(serde::de::Error::custom)?;
        Ok(Self(kept))
    }
}

/// Two spellings of a name are one header: the later one. Counted before they are compared with each other.
fn distinct<T>(map: BTreeMap<String, T>, max: usize) -> Result<Vec<(String, T)>, HeaderError> {
    let count = map.len();
    if count > max {
        return Err(HeaderError::TooMany { count, max });
    }
    let mut kept: Vec<(String, T)> = Vec::with_capacity(count);
    for (name, value) in map {
        kept.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        kept.push((name, value));
    }
    Ok(kept)
}

/// Headers to set, or to remove (null); one of each name. There may be as many to remove as to set.
pub fn header_changes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    let map = BTreeMap::deserialize(deserializer)?;
    let kept = distinct(map, 2 * limits::ENDPOINT_HEADERS_MAX).map_err(serde::de::Error::custom)?;
    Ok(kept.into_iter().collect())
}

impl HeadersIn {
    pub fn into_set(self) -> HeaderSet {
        HeaderSet(self.0.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
    }
}

impl PartialSchema for HeadersIn {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(limits::HEADER_NAME_BYTES_MAX))
            .pattern(Some("^[a-zA-Z0-9!#$%&'*+.^_`|~-]+$"))
            .build();
        let value = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[\t -~]*$")).build();
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property_names(Some(name))
            .additional_properties(Some(RefOr::T(Schema::Object(value))))
            .max_properties(Some(limits::ENDPOINT_HEADERS_MAX))
            .into()
    }
}

impl ToSchema for HeadersIn {}
