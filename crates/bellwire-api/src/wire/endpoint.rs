//! Endpoints on the wire.

use std::num::NonZeroU16;

use bellwire_core::{Endpoint, Metadata};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::field::{HeadersIn, MetadataIn, Patch, present};
use super::list::{Channels, EventTypes};
use super::text::{DateTime, Description, EndpointUrl, SecretText, Uid};

/// A new endpoint.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointIn {
    pub url: EndpointUrl,
    #[serde(default = "no_description")]
    pub description: Description,
    /// Messages per second.
    #[serde(default, alias = "rateLimit")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    pub throttle_rate: Option<NonZeroU16>,
    #[serde(default)]
    #[schema(value_type = Option<Uid>)]
    pub uid: Patch<Uid>,
    #[serde(default)]
    pub disabled: bool,
    /// Event types it wants; null or absent: all. `filterTypes` is taken too.
    #[serde(default, alias = "filterTypes")]
    pub event_types: Option<EventTypes>,
    /// Channels it listens to; null or absent: all.
    #[serde(default)]
    pub channels: Option<Channels>,
    /// The signing key; made by the server when absent.
    #[serde(default)]
    pub secret: Option<SecretText>,
    #[serde(default)]
    pub metadata: MetadataIn,
    /// Extra headers sent with every delivery.
    #[serde(default)]
    pub headers: Option<HeadersIn>,
}

impl std::fmt::Debug for EndpointIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointIn").field("url", &self.url).finish_non_exhaustive()
    }
}

fn no_description() -> Description {
    Description(String::new())
}

/// The whole of a changed endpoint; its signing key and headers have routes of their own.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointUpsertIn {
    pub url: EndpointUrl,
    #[serde(default = "no_description")]
    pub description: Description,
    #[serde(default, alias = "rateLimit")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    pub throttle_rate: Option<NonZeroU16>,
    #[serde(default)]
    #[schema(value_type = Option<Uid>)]
    pub uid: Patch<Uid>,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default, alias = "filterTypes")]
    pub event_types: Option<EventTypes>,
    #[serde(default)]
    pub channels: Option<Channels>,
    #[serde(default)]
    pub metadata: MetadataIn,
}

impl EndpointUpsertIn {
    /// The same as a new endpoint.
    pub fn into_new(self) -> EndpointIn {
        EndpointIn {
            url: self.url,
            description: self.description,
            throttle_rate: self.throttle_rate,
            uid: self.uid,
            disabled: self.disabled,
            event_types: self.event_types,
            channels: self.channels,
            secret: None,
            metadata: self.metadata,
            headers: None,
        }
    }
}

/// What of an endpoint changes; absent stays as it is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPatch {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = EndpointUrl, required = false)]
    pub url: Option<EndpointUrl>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Description, required = false)]
    pub description: Option<Description>,
    /// 0 or null: no limit.
    #[serde(default, alias = "rateLimit")]
    #[schema(value_type = Option<u16>, maximum = 65535)]
    pub throttle_rate: Patch<u16>,
    #[serde(default)]
    #[schema(value_type = Option<Uid>)]
    pub uid: Patch<Uid>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    pub disabled: Option<bool>,
    /// null: all.
    #[serde(default, alias = "filterTypes")]
    #[schema(value_type = Option<EventTypes>)]
    pub event_types: Patch<EventTypes>,
    /// null: all.
    #[serde(default)]
    #[schema(value_type = Option<Channels>)]
    pub channels: Patch<Channels>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = MetadataIn, required = false)]
    pub metadata: Option<MetadataIn>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOut {
    #[schema(min_length = 30, max_length = 30, pattern = "^ep_[A-Za-z0-9]{27}$")]
    pub id: String,
    #[schema(value_type = MetadataIn)]
    pub metadata: Metadata,
    pub url: String,
    pub description: String,
    #[schema(required = true)]
    pub throttle_rate: Option<u16>,
    /// `throttleRate` under the name of older clients.
    #[schema(required = true)]
    pub rate_limit: Option<u16>,
    #[schema(required = true)]
    pub uid: Option<String>,
    pub disabled: bool,
    #[schema(required = true)]
    pub event_types: Option<Vec<String>>,
    /// `eventTypes` under the name of older clients.
    #[schema(required = true)]
    pub filter_types: Option<Vec<String>>,
    #[schema(required = true)]
    pub channels: Option<Vec<String>>,
    pub created_at: DateTime,
    pub updated_at: DateTime,
    /// Of older clients; always 1.
    pub version: i32,
}

impl From<&Endpoint> for EndpointOut {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.to_string(),
            metadata: endpoint.metadata.clone(),
            url: endpoint.url.clone(),
            description: endpoint.description.clone(),
            throttle_rate: endpoint.throttle_rate,
            rate_limit: endpoint.throttle_rate,
            uid: endpoint.uid.clone(),
            disabled: endpoint.disabled,
            event_types: endpoint.event_types.clone(),
            filter_types: endpoint.event_types.clone(),
            channels: endpoint.channels.clone(),
            created_at: DateTime(endpoint.created_at),
            updated_at: DateTime(endpoint.updated_at),
            version: 1,
        }
    }
}
