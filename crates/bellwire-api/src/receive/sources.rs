//! Sources by the token of their URL, remembered for two seconds: what a change on another node may take to be seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bellwire_core::limits;
use bellwire_engine::single_flight::SingleFlight;
use bellwire_store::StoreError;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::Ready;
use crate::ApiState;

#[derive(Clone)]
struct Entry {
    ready: Arc<Ready>,
    until: Instant,
}

/// Keyed by a hash, so that neither memory nor time tells a token.
pub struct Sources {
    cache: Cache<[u8; 32], Entry>,
    reads: SingleFlight<(u64, [u8; 32]), Option<Arc<Ready>>>,
    /// Counts changes: what was read while one happened is not remembered.
    generation: AtomicU64,
}

fn key_of(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

impl Sources {
    pub fn new() -> Self {
        Self { cache: Cache::new(limits::SOURCES_CACHED), reads: SingleFlight::new(), generation: AtomicU64::new(0) }
    }

    pub async fn find(&self, api: &ApiState, token: &str) -> Result<Option<Arc<Ready>>, StoreError> {
        let (key, now) = (key_of(token), Instant::now());
        let before = self.cache.get(&key);
        if let Some(entry) = &before
            && entry.until > now
        {
            return Ok(Some(entry.ready.clone()));
        }
        let generation = self.generation.load(Ordering::Acquire);
        let read = async {
            let Some(source) = api.store().find_source_by_token(token).await? else {
                self.cache.remove(&key);
                return Ok(None);
            };
            let ready = match before {
                // Schemas are compiled once, not every two seconds.
                Some(entry) if entry.ready.source == source => entry.ready,
                _ => Arc::new(Ready::new(api.receive(), source)),
            };
            let until = now + Duration::from_millis(limits::SOURCE_FRESH_MS);
            if self.generation.load(Ordering::Acquire) == generation {
                self.cache.insert(key, Entry { ready: ready.clone(), until });
            }
            Ok(Some(ready))
        };
        self.reads.read((generation, key), read).await
    }

    pub fn forget(&self, token: &str) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.remove(&key_of(token));
    }
}
