//! Between a commit that makes deliveries due again and the sink that has to hear of it: whatever happens to the caller meanwhile,
//! also if it goes away (a client that closes its connection drops the request with all that it was waiting for).

use bellwire_core::ShardSet;

use super::delivery::Announcer;
use super::fault::{Fault, Outcome};
use super::local::LocalGuard;
use crate::DueDelivery;

/// Deliveries about to be committed. Dropped without a word, it is looked up later whether they were.
pub struct Unannounced {
    announcer: Announcer,
    due: Vec<DueDelivery>,
    local: ShardSet,
    epoch: i64,
    generation: u64,
}

impl Unannounced {
    /// `local` as the transaction held it by the fence of the guard's membership.
    pub fn new(announcer: Announcer, due: Vec<DueDelivery>, local: ShardSet, guard: &LocalGuard) -> Self {
        Self { announcer, due, local, epoch: guard.epoch(), generation: guard.generation() }
    }

    /// With the end of the commit: tells the sink, or finds out later, or has nothing to tell.
    pub fn settle(mut self, committed: Outcome<()>) -> Outcome<Vec<DueDelivery>> {
        match committed {
            Ok(()) => {
                let due = std::mem::take(&mut self.due);
                self.announcer.tell(&due, &self.local);
                Ok(due)
            }
            Err(fault) => Err(self.failed(fault)),
        }
    }

    fn failed(mut self, fault: Fault) -> Fault {
        if !fault.is_outcome_unknown() {
            self.due.clear();
        }
        fault
    }
}

impl Drop for Unannounced {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and reads what is due at its next start.
        if !self.due.is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            self.announcer.doubt(std::mem::take(&mut self.due), self.local, self.epoch, self.generation);
        }
    }
}
