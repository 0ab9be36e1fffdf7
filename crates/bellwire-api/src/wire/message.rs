//! Messages on the wire.

use bellwire_core::Message;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::application::ApplicationIn;
use super::list::{Channels, Tags};
use super::payload::PayloadOut;
use super::text::{DateTime, EventId, EventTypeName};

/// A message to publish.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageIn<'a> {
    /// The caller's own id: unique in the application.
    #[serde(default)]
    pub event_id: Option<EventId>,
    pub event_type: EventTypeName,
    /// The body of the webhook: a JSON object, passed through byte for byte.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    pub payload: &'a RawValue,
    #[serde(default)]
    pub channels: Option<Channels>,
    /// Creates the application if the one in the path is unknown.
    #[serde(default)]
    pub application: Option<ApplicationIn>,
    #[serde(default)]
    pub tags: Option<Tags>,
    /// Taken for compatibility; there are no transformations to hand it to.
    #[serde(default, borrow)]
    #[schema(value_type = Option<Object>)]
    pub transformations_params: Option<&'a RawValue>,
    /// Not before this: one minute to 24 hours from now.
    #[serde(default)]
    pub deliver_at: Option<DateTime>,
    /// Days to keep the payload; not together with `payloadRetentionHours`.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 90, default = 90)]
    pub payload_retention_period: Option<i64>,
    /// Hours to keep the payload.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 2160)]
    pub payload_retention_hours: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageOut<'a> {
    #[schema(required = true)]
    pub event_id: Option<String>,
    pub event_type: String,
    /// `{}` when not asked for, `{"expired": true}` when deleted or expired.
    #[schema(value_type = Object)]
    pub payload: PayloadOut<'a>,
    #[schema(required = true)]
    pub channels: Option<Vec<String>>,
    #[schema(min_length = 31, max_length = 31, pattern = "^msg_[A-Za-z0-9]{27}$")]
    pub id: String,
    pub timestamp: DateTime,
    #[schema(required = true)]
    pub tags: Option<Vec<String>>,
    #[schema(required = true)]
    pub deliver_at: Option<DateTime>,
}

pub(super) fn some_if_any(list: Vec<String>) -> Option<Vec<String>> {
    if list.is_empty() { None } else { Some(list) }
}

impl<'a> MessageOut<'a> {
    pub fn new(mut message: Message, with_content: bool) -> Self {
        let payload = PayloadOut::of(message.payload.take(), with_content);
        Self::with_payload(message, payload)
    }

    pub fn with_payload(message: Message, payload: PayloadOut<'a>) -> Self {
        Self {
            event_id: message.event_id,
            event_type: message.event_type,
            payload,
            channels: some_if_any(message.channels),
            id: message.id.to_string(),
            timestamp: DateTime(message.created_at),
            tags: some_if_any(message.tags),
            deliver_at: message.deliver_at.map(DateTime),
        }
    }
}
