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
    /// Replaces everything but id, app, creation time and health (and may be called with a rotated secret or new headers).
    /// Enabling what was disabled begins its health anew. Returns the endpoint as it is stored now.
    /// `disabled` is written as given: who has read the endpoint before calls [`Self::change_endpoint`] instead.
    async fn update_endpoint(&self, endpoint: Endpoint, idem: Option<IdempotencyRecord>) -> Result<Written<Endpoint>>;
    /// As [`Self::update_endpoint`], for an endpoint that was read with `was_disabled`: `disabled` is written only if it is to
    /// change, so that what [`Self::set_endpoint_health`] has disabled since the read stays disabled.
    async fn change_endpoint(
        &self,
        was_disabled: bool,
        endpoint: Endpoint,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<Endpoint>>;
    /// Health alone, so that it never overwrites a change made meanwhile. `disable` also disables it, if it is not yet.
    /// Returns whether this call disabled it. Failing since before it was last enabled is old news, and ignored whole.
    async fn set_endpoint_health(&self, id: EndpointId, health: EndpointHealth, disable: bool, now: Timestamp) -> Result<bool>;
    /// False if there was none. The row stays as a tombstone without secrets.
    async fn delete_endpoint(&self, app: AppId, id: EndpointId, now: Timestamp) -> Result<bool>;
}
