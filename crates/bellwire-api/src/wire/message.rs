//! Messages on the wire.

use bellwire_core::{Message, Origin, limits};
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
    /// `rawPayload` is sent as it stands, in place of `payload`, with the content type in `headers`; the rest is taken for
    /// compatibility and not used.
    #[serde(default)]
    pub transformations_params: Option<TransformationsParams>,
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

/// What `message_in_raw` of the official clients makes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransformationsParams {
    #[serde(default)]
    pub raw_payload: Option<String>,
    #[serde(default)]
    pub headers: Option<RawHeaders>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct RawHeaders {
    #[serde(default, rename = "content-type", alias = "Content-Type")]
    #[schema(max_length = 256)]
    pub content_type: Option<String>,
}

impl TransformationsParams {
    /// The raw payload with its content type, if there is one; an error for a content type that cannot be a header.
    pub fn into_raw(self) -> Option<Result<(String, String), ()>> {
        let payload = self.raw_payload?;
        let content_type = self.headers.and_then(|headers| headers.content_type).unwrap_or_else(|| "application/json".to_owned());
        let is_sendable = (1..=limits::CONTENT_TYPE_BYTES_MAX).contains(&content_type.len())
            && content_type.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        Some(if is_sendable { Ok((payload, content_type)) } else { Err(()) })
    }
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
    /// Of messages that a source made: which, how it was verified, where it stands in an order. Absent of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub origin: Option<Box<Origin>>,
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
            origin: message.origin,
        }
    }
}
