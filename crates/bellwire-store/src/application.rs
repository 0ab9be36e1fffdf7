//! Applications: isolated streams of one organisation.

use async_trait::async_trait;
use bellwire_core::{AppId, Application, OrgId, Page, PageQuery, Timestamp};

use crate::{IdempotencyRecord, Result, Written};

/// The list's exclusions, all off by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApplicationFilter {
    pub exclude_without_endpoints: bool,
    /// Leave out applications whose endpoints are all disabled (and that have at least one).
    pub exclude_with_disabled_endpoints: bool,
}

/// Whether an application is still as it was read. `updated_at` alone is no change: who writes replaces it anyway.
///
/// Changes compare what is stored with what was read, and not a number that each write raises: what is decided from a state is right
/// for as long as that state stands, and no writer can forget to raise anything.
pub(crate) fn is_still(read: &Application, stored: &Application) -> bool {
    *stored == Application { updated_at: stored.updated_at, ..read.clone() }
}

#[async_trait]
pub trait ApplicationStore {
    /// [`crate::StoreError::Conflict`] on a taken `uid`.
    async fn create_application(&self, app: Application, idem: Option<IdempotencyRecord>) -> Result<Written<Application>>;
    /// By id or uid, customer applications only.
    async fn find_application(&self, org: OrgId, id_or_uid: &str) -> Result<Option<Application>>;
    async fn get_application(&self, id: AppId) -> Result<Option<Application>>;
    /// The hidden application for operational events, created at the first call.
    async fn operational_application(&self, org: OrgId, new_id: AppId, now: Timestamp) -> Result<Application>;
    /// Customer applications of `org`, by id.
    async fn list_applications(&self, org: OrgId, filter: ApplicationFilter, page: PageQuery<AppId>)
    -> Result<Page<Application>>;
    /// Replaces name, uid, throttle, metadata, `updated_at`, if it is still as it was `read`; of other nodes' changes since then
    /// none is overwritten. [`crate::StoreError::Outdated`] if it is not: nothing is written. Conflict on a taken `uid`.
    async fn change_application(&self, read: &Application, app: Application) -> Result<Application>;
    /// Deletes it with its endpoints (kept as tombstones, so that old attempts can still be rendered). Its pending deliveries
    /// are cancelled by the engine when they come due. False if there was none.
    async fn delete_application(&self, org: OrgId, id: AppId, now: Timestamp) -> Result<bool>;
}
