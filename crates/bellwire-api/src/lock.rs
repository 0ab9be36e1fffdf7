//! Striped locks: control writes of this node that read before they write take turns, so that they seldom have to be made again. That
//! none is lost, on whatever nodes they are made, is the store's doing (`tries.rs`).

use std::hash::Hash;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bellwire_core::limits;
use tokio::sync::{Mutex, MutexGuard};

use crate::error::{ApiError, Code};

pub struct Locks {
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub fn new() -> Self {
        Self { stripes: (0..limits::CONTROL_LOCKS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Waits for its turn, at most [`limits::CONTROL_LOCK_MS_MAX`].
    ///
    /// # Errors
    /// [`Code::Busy`] when others hold it for longer.
    pub async fn lock(&self, key: impl Hash) -> Result<MutexGuard<'_, ()>, ApiError> {
        let index = self.hasher.hash_one(key) as usize % self.stripes.len();
        tokio::time::timeout(Duration::from_millis(limits::CONTROL_LOCK_MS_MAX), self.stripes[index].lock())
            .await
            .map_err(|_| ApiError::new(Code::Busy, "other changes to the same object take too long; try again"))
    }
}
