//! Endpoints: ways out of an application. Secrets and header values are encrypted at rest.

use async_trait::async_trait;
use bellwire_core::{AppId, Application, Endpoint, EndpointHealth, EndpointId, Page, PageQuery, Timestamp};

use crate::{IdempotencyRecord, Result, Written};

#[async_trait]
pub trait EndpointStore {
    /// [`crate::StoreError::Conflict`] on a `uid` taken in the application.
    async fn create_endpoint(&self, endpoint: Endpoint, idem: Option<IdempotencyRecord>) -> Result<Written<Endpoint>>;
    /// By id or uid.
    async fn find_endpoint(&self, app: AppId, id_or_uid: &str) -> Result<Option<Endpoint>>;
    async fn list_endpoints(&self, app: AppId, page: PageQuery<EndpointId>) -> Result<Page<Endpoint>>;
    /// All endpoints of an application, disabled ones too, deleted ones not; for fan-out. By id.
    async fn endpoints_of(&self, app: AppId) -> Result<Vec<Endpoint>>;
    /// The endpoint and its application, for delivery; `None` once either is deleted.
    async fn endpoint_for_delivery(&self, id: EndpointId) -> Result<Option<(Application, Endpoint)>>;
    /// Replaces everything but id, app and creation time (and may be called with a rotated secret or new headers).
    async fn update_endpoint(&self, endpoint: Endpoint, idem: Option<IdempotencyRecord>) -> Result<Written<Endpoint>>;
    /// Health alone, so that it never overwrites a change made meanwhile. `disable` also disables it, if it is not yet.
    /// Returns whether this call disabled it.
    async fn set_endpoint_health(&self, id: EndpointId, health: EndpointHealth, disable: bool, now: Timestamp) -> Result<bool>;
    /// False if there was none. The row stays as a tombstone without secrets.
    async fn delete_endpoint(&self, app: AppId, id: EndpointId, now: Timestamp) -> Result<bool>;
}
