//! What tests of this backend write.

use std::sync::Arc;

use bellwire_core::{AppId, EndpointId, IdKind, Message, MessageId, Timestamp};

use crate::NewMessage;

/// A message with this key, that never expires.
pub fn new_message(key: i64, app: u8, payload: &str, endpoints: Vec<EndpointId>) -> Arc<NewMessage> {
    let message = Message {
        id: MessageId::from_key_and_tail(key, [1; 12]),
        app: AppId::from_bytes([app; 20]),
        event_type: "a".to_owned(),
        event_id: None,
        payload: Some(payload.to_owned().into()),
        content_type: "application/json".to_owned(),
        channels: vec![],
        tags: vec![],
        created_at: Timestamp(0),
        deliver_at: None,
        payload_expires_at: Timestamp(i64::MAX),
        origin: None,
    };
    Arc::new(NewMessage { message, endpoints, idempotency: None, app_version: None })
}
