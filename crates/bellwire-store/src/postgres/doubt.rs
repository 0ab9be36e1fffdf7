//! Batches whose commit nobody confirmed: the connection was lost in mid-air. Who waited was told that the database is away; what was
//! committed all the same is found here and delivered, as if just accepted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_core::{IdKind, ShardSet};
use tokio::sync::OwnedSemaphorePermit;

use super::fault::Outcome;
use super::param::p;
use super::row;
use super::writer::Shared;
use crate::NewMessage;

/// Batches in doubt at a time, also of deliveries made due again: more than can be lost between two looks. Messages are kept in memory meanwhile.
pub const DOUBTS_MAX: usize = 64;
/// When to look, counted from the look before: the server may still be at it when the connection is long gone.
pub const LOOKS: [Duration; 4] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(25)];
/// Between looks for the database itself.
pub const AWAY_PAUSE: Duration = Duration::from_millis(200);

/// A batch in doubt, with what was local when it was written.
pub struct Doubt {
    pub messages: Vec<Arc<NewMessage>>,
    pub epoch: i64,
    pub generation: u64,
    pub local: ShardSet,
    pub begun: Instant,
}

impl Doubt {
    /// Until it is known what became of it, or the process ends: what is then unfinished is read by whoever takes the shards.
    pub async fn resolve(self, shared: Arc<Shared>, _permit: OwnedSemaphorePermit) {
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            let committed = loop {
                match self.committed(&shared).await {
                    Ok(committed) => break committed,
                    Err(_) if shared.is_closed() => return,
                    Err(_) => tokio::time::sleep(AWAY_PAUSE).await,
                }
            };
            if !committed.is_empty() {
                self.tell(&shared, &committed);
                return;
            }
        }
    }

    async fn committed(&self, shared: &Shared) -> Outcome<Vec<Arc<NewMessage>>> {
        let conn = shared.db.get().await?;
        let keys: Vec<i64> = self.messages.iter().map(|new| new.message.id.key()).collect();
        let rows = conn.query("SELECT id FROM message WHERE id = ANY($1)", &[p(&keys)]).await?;
        let there = rows.iter().map(|found| row::get(found, 0)).collect::<Outcome<Vec<i64>>>()?;
        Ok(self.messages.iter().filter(|new| there.contains(&new.message.id.key())).cloned().collect())
    }

    /// Of shards that this node has had ever since; whoever took one over in between has read it with everything else.
    fn tell(&self, shared: &Shared, committed: &[Arc<NewMessage>]) {
        let guard = shared.local.hold();
        if guard.epoch() != self.epoch {
            return;
        }
        tracing::info!(messages = committed.len(), "messages in doubt turned out to be committed");
        if let Some(sink) = shared.sink.get() {
            sink.accepted(committed, &guard.kept_since(self.generation).intersection(&self.local), self.begun);
        }
    }
}
