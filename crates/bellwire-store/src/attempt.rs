//! Reading what happened: attempts by endpoint and by message, statuses of deliveries, counters.

use async_trait::async_trait;
use bellwire_core::{
    AppId, Attempt, AttemptId, AttemptStatus, Endpoint, EndpointId, Message, MessageId, Page, PageQuery, Timestamp,
};

use crate::{MessageFilter, Result};

/// Filters of attempt lists; all optional, all must hold. `message` holds channel, tag, event types and the time bounds
/// (which are on the attempt's own time here).
#[derive(Clone, Debug, Default)]
pub struct AttemptFilter {
    pub status: Option<AttemptStatus>,
    /// 0 (no answer), 100, 200, 300, 400 or 500.
    pub status_code_class: Option<u16>,
    pub endpoint: Option<EndpointId>,
    pub message: MessageFilter,
}

/// A message as one endpoint sees it.
#[derive(Clone, Debug)]
pub struct AttemptedMessage {
    pub message: Message,
    pub status: AttemptStatus,
    pub next_attempt: Option<Timestamp>,
}

/// An endpoint as one message sees it.
#[derive(Clone, Debug)]
pub struct AttemptedEndpoint {
    pub endpoint: Endpoint,
    pub status: AttemptStatus,
    pub next_attempt: Option<Timestamp>,
}

/// Deliveries of an endpoint by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    pub success: i64,
    pub pending: i64,
    pub sending: i64,
    pub fail: i64,
    pub canceled: i64,
}

#[async_trait]
pub trait AttemptStore {
    /// By attempt id. With `with_message`, the message without payload comes along. With `with_content` off, responses are empty.
    async fn list_attempts_of_endpoint(
        &self,
        app: AppId,
        endpoint: EndpointId,
        filter: AttemptFilter,
        page: PageQuery<AttemptId>,
        with_content: bool,
        with_message: bool,
    ) -> Result<Page<(Attempt, Option<Message>)>>;
    async fn list_attempts_of_message(
        &self,
        app: AppId,
        message: MessageId,
        filter: AttemptFilter,
        page: PageQuery<AttemptId>,
        with_content: bool,
    ) -> Result<Page<Attempt>>;
    async fn get_attempt(&self, app: AppId, message: MessageId, attempt: AttemptId) -> Result<Option<Attempt>>;
    /// Deletes the response body. False if there was no such attempt.
    async fn expunge_attempt_content(&self, app: AppId, message: MessageId, attempt: AttemptId) -> Result<bool>;
    /// Messages this endpoint was tried with or is queued for, by message id, with the latest status.
    async fn list_attempted_messages(
        &self,
        app: AppId,
        endpoint: EndpointId,
        status: Option<AttemptStatus>,
        filter: MessageFilter,
        page: PageQuery<MessageId>,
        with_content: bool,
    ) -> Result<Page<AttemptedMessage>>;
    /// Endpoints tried with or queued for this message, by endpoint id. Endpoints deleted since are left out.
    async fn list_attempted_endpoints(
        &self,
        app: AppId,
        message: MessageId,
        page: PageQuery<EndpointId>,
    ) -> Result<Page<AttemptedEndpoint>>;
    /// Finished ones that finished in the window (rolled-up counters), and those unfinished now whose message was made in it.
    /// To the minute: the minutes of both bounds belong to the window.
    async fn count_deliveries(
        &self,
        endpoint: EndpointId,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<EndpointCounts>;
}
