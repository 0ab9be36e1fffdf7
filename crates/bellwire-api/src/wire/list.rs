//! Lists with bounds: read as sets, in the order given, without repetitions.

use bellwire_core::limits;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::text::{Channel, EventTypeName, FeatureFlag, Tag};

/// Whether a list may be empty.
const EMPTY_OK: usize = 0;
const NOT_EMPTY: usize = 1;

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident = $item:ident, $min:expr, $max:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub Vec<$item>);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let items = Vec::<$item>::deserialize(deserializer)?;
                if items.len() < $min || items.len() > $max {
                    let hint = if items.is_empty() { "; leave it out, or null, for none named" } else { "" };
                    let text = format!("the list has {} entries; {} to {} are allowed{hint}", items.len(), $min, $max);
                    return Err(serde::de::Error::custom(text));
                }
                let mut kept: Vec<$item> = Vec::with_capacity(items.len());
                for item in items {
                    if !kept.contains(&item) {
                        kept.push(item);
                    }
                }
                Ok(Self(kept))
            }
        }

        impl $name {
            pub fn into_texts(self) -> Vec<String> {
                self.0.into_iter().map(|item| item.0).collect()
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ArrayBuilder::new().items($item::schema()).min_items(Some($min)).max_items(Some($max)).into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

lists! {
    /// Event types an endpoint wants; none given: all.
    EventTypes = EventTypeName, NOT_EMPTY, limits::ENDPOINT_EVENT_TYPES_MAX;
    /// Channels of a message, or those an endpoint listens to; none given: all.
    Channels = Channel, NOT_EMPTY, limits::ENDPOINT_CHANNELS_MAX;
    Tags = Tag, EMPTY_OK, limits::MESSAGE_TAGS_MAX;
    FeatureFlags = FeatureFlag, NOT_EMPTY, limits::FEATURE_FLAGS_MAX;
}
