//! Messages: accepted in groups, immutable afterwards but for the deletion of their payload.

use async_trait::async_trait;
use bellwire_core::{AppId, EndpointId, Message, MessageId, Page, PageQuery, Timestamp};

use crate::{Idempotency, Result};

/// A message about to be accepted, with the endpoints it fans out to.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub message: Message,
    pub endpoints: Vec<EndpointId>,
    pub idempotency: Option<Idempotency>,
    /// The application's version ([`crate::ShardStore::application_version`]) that `endpoints` were chosen by; `None`: they hold whatever
    /// has changed.
    pub app_version: Option<i64>,
}

/// What accepting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Durable now: message, key and deliveries in one synced transaction.
    Fresh,
    /// The idempotency key has made this message before; nothing was written.
    Replayed(MessageId),
    /// The application has changed since its endpoints were chosen: nothing was written, choose again.
    Outdated,
}

/// Which messages a list shows. Bounds are exclusive.
#[derive(Clone, Debug, Default)]
pub struct MessageFilter {
    pub channel: Option<String>,
    pub tag: Option<String>,
    /// Empty: all.
    pub event_types: Vec<String>,
    pub before: Option<Timestamp>,
    pub after: Option<Timestamp>,
}

#[async_trait]
pub trait MessageStore {
    /// Group commit. Returns after the sync. [`crate::StoreError::Conflict`] (`eventId`) leaves nothing behind.
    /// After the commit and before this returns, the [`crate::CommitSink`] has been told.
    async fn accept(&self, message: std::sync::Arc<NewMessage>) -> Result<Accepted>;
    /// Within an application, by id or eventId. The payload comes decompressed and with its checksum verified.
    async fn find_message(&self, app: AppId, id_or_event_id: &str) -> Result<Option<Message>>;
    /// By id alone, for delivery.
    async fn load_message(&self, id: MessageId) -> Result<Option<Message>>;
    /// Newest first or oldest first by id. With `content` off, payloads are `None`.
    async fn list_messages(
        &self,
        app: AppId,
        filter: MessageFilter,
        page: PageQuery<MessageId>,
        with_content: bool,
    ) -> Result<Page<Message>>;
    /// Deletes the payload, not the message. False if there was no such message.
    async fn expunge_message_content(&self, app: AppId, id: MessageId) -> Result<bool>;
}
