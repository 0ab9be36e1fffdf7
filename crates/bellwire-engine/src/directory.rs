//! Applications with their endpoints, cached: what ingest asks for every message.
//!
//! A control write calls [`Directory::forget`]; an entry read while a write happened is not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bellwire_core::{AppId, Application, Endpoint, OrgId};
use bellwire_store::{Store, StoreError};
use quick_cache::sync::Cache;

use crate::single_flight::SingleFlight;

/// An application and its live endpoints (disabled ones too), as of the last control write.
#[derive(Debug)]
pub struct AppEntry {
    pub application: Application,
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Of the application, read before the endpoints: they are of this version or of a later one.
    pub version: i64,
}

/// Entries kept: the busy applications of one node.
const APPLICATIONS_CACHED: usize = 16_384;

#[derive(Debug)]
pub struct Directory {
    by_name: Cache<(OrgId, Box<str>), AppId>,
    by_id: Cache<AppId, Arc<AppEntry>>,
    reads_by_name: SingleFlight<(u64, OrgId, Box<str>), Option<Arc<AppEntry>>>,
    reads_by_id: SingleFlight<(u64, AppId), Option<Arc<AppEntry>>>,
    generation: AtomicU64,
}

impl Directory {
    pub fn new() -> Self {
        Self {
            by_name: Cache::new(APPLICATIONS_CACHED),
            by_id: Cache::new(APPLICATIONS_CACHED),
            reads_by_name: SingleFlight::new(),
            reads_by_id: SingleFlight::new(),
            generation: AtomicU64::new(0),
        }
    }

    /// By id or uid, in this organisation.
    pub async fn find(&self, store: &dyn Store, org: OrgId, id_or_uid: &str) -> Result<Option<Arc<AppEntry>>, StoreError> {
        let key = (org, Box::from(id_or_uid));
        if let Some(id) = self.by_name.get(&key)
            && let Some(entry) = self.by_id.get(&id)
            // A name may have moved on while it was being cached.
            && (entry.application.uid.as_deref() == Some(id_or_uid) || id_or_uid.parse() == Ok(entry.application.id))
        {
            return Ok(Some(entry));
        }
        let generation = self.generation.load(Ordering::Acquire);
        let read = async {
            let Some(application) = store.find_application(org, id_or_uid).await? else { return Ok(None) };
            let id = application.id;
            let entry = self.load(store, application, generation).await?;
            if entry.is_some() {
                self.by_name.insert(key.clone(), id);
            }
            Ok(entry)
        };
        self.reads_by_name.read((generation, org, key.1.clone()), read).await
    }

    /// By id alone, whoever it belongs to.
    pub async fn get(&self, store: &dyn Store, id: AppId) -> Result<Option<Arc<AppEntry>>, StoreError> {
        if let Some(entry) = self.by_id.get(&id) {
            return Ok(Some(entry));
        }
        let generation = self.generation.load(Ordering::Acquire);
        let read = async {
            match store.get_application(id).await? {
                Some(application) => self.load(store, application, generation).await,
                None => Ok(None),
            }
        };
        self.reads_by_id.read((generation, id), read).await
    }

    /// `None`: it was deleted meanwhile.
    async fn load(
        &self,
        store: &dyn Store,
        application: Application,
        generation: u64,
    ) -> Result<Option<Arc<AppEntry>>, StoreError> {
        let id = application.id;
        // Before the endpoints. That of a write since the application was read is announced by it, and the entry forgotten then.
        let Some(version) = store.application_version(id).await? else { return Ok(None) };
        let endpoints = store.endpoints_of(id).await?.into_iter().map(Arc::new).collect();
        let entry = Arc::new(AppEntry { application, endpoints, version });
        self.by_id.insert(id, entry.clone());
        if self.generation.load(Ordering::Acquire) != generation {
            // Read before a write that has happened since: good for this once, not to keep.
            self.by_id.remove(&id);
        }
        Ok(Some(entry))
    }

    /// Anything may have changed.
    pub fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.by_id.clear();
        self.by_name.clear();
    }

    /// The application or one of its endpoints has changed. Uids may have moved, so names are forgotten too.
    pub fn forget(&self, id: AppId) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let Some((_, entry)) = self.by_id.remove(&id) {
            let application = &entry.application;
            self.by_name.remove(&(application.org, Box::from(id.to_string())));
            if let Some(uid) = &application.uid {
                self.by_name.remove(&(application.org, Box::from(uid.as_str())));
            }
        }
    }
}
