//! Event types of an organisation.

use async_trait::async_trait;
use bellwire_core::{EventType, OrgId, Page, PageQuery};

use crate::{IdempotencyRecord, Result, Written};

/// Whether an event type is still as it was read; `updated_at` alone is no change.
pub(crate) fn is_still(read: &EventType, stored: &EventType) -> bool {
    *stored == EventType { updated_at: stored.updated_at, ..read.clone() }
}

#[async_trait]
pub trait EventTypeStore {
    /// Creates it, or brings an archived one back with the new content. Conflict if it exists and is not archived.
    async fn create_event_type(&self, event_type: EventType, idem: Option<IdempotencyRecord>) -> Result<Written<EventType>>;
    /// Archived ones too.
    async fn get_event_type(&self, org: OrgId, name: &str) -> Result<Option<EventType>>;
    /// By name.
    async fn list_event_types(&self, org: OrgId, include_archived: bool, page: PageQuery<String>) -> Result<Page<EventType>>;
    /// Inserts or replaces it whole, whatever there was (keeps `created_at` of an existing one). Returns whether it was new.
    async fn put_event_type(&self, event_type: EventType) -> Result<(EventType, bool)>;
    /// Replaces everything but its name and `created_at`, if it is still as it was `read`. [`crate::StoreError::Outdated`] if somebody
    /// has changed it since: nothing is written. `NotFound` if it is gone.
    async fn change_event_type(&self, read: &EventType, event_type: EventType) -> Result<EventType>;
    /// Removes it for good. False if there was none.
    async fn expunge_event_type(&self, org: OrgId, name: &str) -> Result<bool>;
}
