//! Endpoints: ways out of an application. Secrets and header values are encrypted at rest.

use async_trait::async_trait;
use bellwire_core::{AppId, Application, Endpoint, EndpointHealth, EndpointId, Page, PageQuery, Timestamp};

use crate::{IdempotencyRecord, Result, Written};

/// Whether an endpoint is still as it was read, but for its health, which is the engine's, and `updated_at`.
pub(crate) fn is_still(read: &Endpoint, stored: &Endpoint) -> bool {
    *stored == Endpoint { health: stored.health, updated_at: stored.updated_at, ..read.clone() }
}

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
    /// Replaces everything but id, app, creation time and health, if it is still as it was `read` (health apart). Enabling what was
    /// disabled begins its health anew. Returns the endpoint as it is stored now. [`crate::StoreError::Outdated`] if somebody has
    /// changed it since the read, or [`Self::set_endpoint_health`] has disabled it: nothing is written. Conflict on a taken `uid`.
    async fn change_endpoint(
        &self,
        read: &Endpoint,
        endpoint: Endpoint,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<Endpoint>>;
    /// Health alone, so that it never overwrites a change made meanwhile. `disable` also disables it, if it is not yet.
    /// Returns whether this call disabled it. Failing since before it was last enabled is old news, and ignored whole.
    async fn set_endpoint_health(&self, id: EndpointId, health: EndpointHealth, disable: bool, now: Timestamp) -> Result<bool>;
    /// False if there was none. The row stays as a tombstone without secrets.
    async fn delete_endpoint(&self, app: AppId, id: EndpointId, now: Timestamp) -> Result<bool>;
}
