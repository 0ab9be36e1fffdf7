//! Changes that are read, decided and written while others change the same object: what somebody else has changed since it was read, the
//! store refuses to overwrite ([`StoreError::Outdated`]), and then all of it is done again.
//!
//! Within a node changes to one object take turns (`lock.rs`): only other nodes come in between, each with one change at a time.

use std::time::Duration;

use bellwire_core::limits;
use bellwire_store::StoreError;

use crate::call::Call;
use crate::error::{ApiError, Code};

/// How often a change was made again; at most [`limits::CHANGE_TRIES_MAX`].
pub struct Tries<'a> {
    call: &'a Call,
    left: u32,
}

impl<'a> Tries<'a> {
    pub fn new(call: &'a Call) -> Self {
        Self { call, left: limits::CHANGE_TRIES_MAX - 1 }
    }

    /// After a write that failed: returns if it is worth reading and deciding again, after a moment of random length, so that not the
    /// same one is too late each time.
    ///
    /// # Errors
    /// [`Code::Busy`] when there was no getting through; those of the store that trying again does not help against.
    pub async fn again(&mut self, error: StoreError) -> Result<(), ApiError> {
        let StoreError::Outdated(what) = error else { return Err(error.into()) };
        self.next(what).await
    }

    /// As [`Self::again`], also if what was to be made under a uid has been made by somebody else meanwhile: then it is there
    /// to be found.
    pub async fn again_if_made(&mut self, error: StoreError, what: &'static str) -> Result<(), ApiError> {
        match error {
            StoreError::Conflict { .. } => self.next(what).await,
            error => self.again(error).await,
        }
    }

    async fn next(&mut self, what: &'static str) -> Result<(), ApiError> {
        if self.left == 0 {
            let text = format!("others are changing this {what} all the time; nothing was stored; retry");
            return Err(ApiError::new(Code::Busy, text));
        }
        self.left -= 1;
        let [random] = self.call.engine().random_bytes::<1>();
        tokio::time::sleep(Duration::from_millis(u64::from(random) % limits::CHANGE_PAUSE_MS)).await;
        Ok(())
    }
}
