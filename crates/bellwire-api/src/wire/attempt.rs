//! Attempts, and messages and endpoints as deliveries show them, on the wire.

use bellwire_core::{Attempt, AttemptStatus, Message};
use bellwire_store::{AttemptedEndpoint, AttemptedMessage};
use serde::Serialize;
use utoipa::ToSchema;

use super::message::{MessageOut, some_if_any};
use super::payload::PayloadOut;
use super::text::DateTime;

/// Whether `canceled` is shown as such, or as `success` (for older clients).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    Expanded,
    Compatible,
}

impl Statuses {
    fn show(self, status: AttemptStatus) -> (u8, &'static str) {
        let status = match (self, status) {
            (Self::Compatible, AttemptStatus::Canceled) => AttemptStatus::Success,
            _ => status,
        };
        (status as u8, status.as_str())
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageAttemptOut {
    pub url: String,
    /// The kept part of the response body, or what went wrong when no answer came.
    pub response: String,
    /// 0 when no answer came.
    pub response_status_code: u16,
    pub response_duration_ms: u64,
    /// 0 success, 1 pending, 2 fail, 3 sending, 4 canceled.
    #[schema(maximum = 4)]
    pub status: u8,
    pub status_text: &'static str,
    /// 0 scheduled, 1 manual.
    #[schema(maximum = 1)]
    pub trigger_type: u8,
    pub msg_id: String,
    pub endpoint_id: String,
    #[schema(min_length = 33, max_length = 33, pattern = "^atmpt_[A-Za-z0-9]{27}$")]
    pub id: String,
    pub timestamp: DateTime,
    /// With `with_msg`.
    #[schema(value_type = Option<MessageOut>, required = true)]
    pub msg: Option<MessageOut<'static>>,
}

impl MessageAttemptOut {
    pub fn new(attempt: Attempt, message: Option<Message>, statuses: Statuses) -> Self {
        let (status, status_text) = statuses.show(attempt.status);
        Self {
            url: attempt.url.to_string(),
            response: String::from_utf8_lossy(&attempt.response).into_owned(),
            response_status_code: attempt.response_status,
            response_duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            status,
            status_text,
            trigger_type: attempt.trigger as u8,
            msg_id: attempt.message.to_string(),
            endpoint_id: attempt.endpoint.to_string(),
            id: attempt.id.to_string(),
            timestamp: DateTime(attempt.timestamp),
            msg: message.map(|message| MessageOut::new(message, false)),
        }
    }
}

/// A message and how its delivery to one endpoint stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointMessageOut {
    #[schema(maximum = 4)]
    pub status: u8,
    pub status_text: &'static str,
    #[schema(required = true)]
    pub next_attempt: Option<DateTime>,
    #[schema(required = true)]
    pub event_id: Option<String>,
    pub event_type: String,
    #[schema(value_type = Object)]
    pub payload: PayloadOut<'static>,
    #[schema(required = true)]
    pub channels: Option<Vec<String>>,
    pub id: String,
    pub timestamp: DateTime,
    #[schema(required = true)]
    pub tags: Option<Vec<String>>,
    #[schema(required = true)]
    pub deliver_at: Option<DateTime>,
}

impl EndpointMessageOut {
    pub fn new(attempted: AttemptedMessage, with_content: bool, statuses: Statuses) -> Self {
        let (status, status_text) = statuses.show(attempted.status);
        let message = attempted.message;
        Self {
            status,
            status_text,
            next_attempt: attempted.next_attempt.map(DateTime),
            event_id: message.event_id,
            event_type: message.event_type,
            payload: PayloadOut::of(message.payload, with_content),
            channels: some_if_any(message.channels),
            id: message.id.to_string(),
            timestamp: DateTime(message.created_at),
            tags: some_if_any(message.tags),
            deliver_at: message.deliver_at.map(DateTime),
        }
    }
}

/// An endpoint and how the delivery of one message to it stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageEndpointOut {
    pub id: String,
    #[schema(maximum = 4)]
    pub status: u8,
    pub status_text: &'static str,
    #[schema(required = true)]
    pub next_attempt: Option<DateTime>,
    pub url: String,
    pub description: String,
    #[schema(required = true)]
    pub throttle_rate: Option<u16>,
    #[schema(required = true)]
    pub rate_limit: Option<u16>,
    #[schema(required = true)]
    pub uid: Option<String>,
    pub disabled: bool,
    #[schema(required = true)]
    pub event_types: Option<Vec<String>>,
    #[schema(required = true)]
    pub filter_types: Option<Vec<String>>,
    #[schema(required = true)]
    pub channels: Option<Vec<String>>,
    pub created_at: DateTime,
    pub updated_at: DateTime,
    pub version: i32,
}

impl From<AttemptedEndpoint> for MessageEndpointOut {
    fn from(attempted: AttemptedEndpoint) -> Self {
        let (status, status_text) = Statuses::Expanded.show(attempted.status);
        let endpoint = attempted.endpoint;
        Self {
            id: endpoint.id.to_string(),
            status,
            status_text,
            next_attempt: attempted.next_attempt.map(DateTime),
            url: endpoint.url,
            description: endpoint.description,
            throttle_rate: endpoint.throttle_rate,
            rate_limit: endpoint.throttle_rate,
            uid: endpoint.uid,
            disabled: endpoint.disabled,
            event_types: endpoint.event_types.clone(),
            filter_types: endpoint.event_types,
            channels: endpoint.channels,
            created_at: DateTime(endpoint.created_at),
            updated_at: DateTime(endpoint.updated_at),
            version: 1,
        }
    }
}
