//! A lane that accepts: batches of messages, one commit each.

use std::sync::Arc;
use std::time::Instant;

use bellwire_core::ShardSet;

use super::accept::{self, Accept, Written};
use super::connection::Conn;
use super::doubt::Doubt;
use super::fault::Fault;
use super::local::LocalGuard;
use super::partition;
use super::writer::{BatchBounds, Remedy, Shared, remedy, same};
use crate::{Accepted, NewMessage, Result, StoreError};

/// How often a batch is tried that other transactions get in the way of.
const TRIES_MAX: usize = 4;

pub struct AcceptLane {
    shared: Arc<Shared>,
    number: i16,
}

impl AcceptLane {
    pub fn new(shared: Arc<Shared>, number: i16) -> Self {
        Self { shared, number }
    }

    /// Until the inbox is closed and empty.
    pub async fn run(self) {
        // Before there is anything to write: who waits for work must be able to do it, since only one lane is woken for it.
        let mut conn = self.connect(None).await;
        while self.shared.accepts.wait(|messages, since| self.shared.company(messages, since)).await {
            if conn.as_ref().is_some_and(Conn::is_closed) {
                // Noticed before anything was sent: nobody has to be told, unless it takes long.
                drop(conn.take());
                self.shared.accepts.pass_on();
                conn = self.connect(Some(&StoreError::Unavailable("the connection was lost".to_owned()))).await;
            }
            // Whoever is ready to hand in something does so before the batch is closed.
            tokio::task::yield_now().await;
            let batch = self.take();
            let Some(open) = conn.as_mut() else {
                refuse(batch, &StoreError::Closed);
                continue;
            };
            if batch.is_empty() {
                // The other lane was quicker.
                continue;
            }
            let messages = batch.len();
            let began = self.shared.began(messages);
            let written = self.write(open, batch).await;
            self.shared.ended(messages, began);
            if let Err(error) = written {
                tracing::warn!(%error, "the database is away");
                if let Some(conn) = conn.take() {
                    conn.discard();
                }
                conn = self.connect(Some(&error)).await;
                if conn.is_some() {
                    tracing::info!("the database is there");
                }
            }
        }
    }

    async fn connect(&self, lost: Option<&StoreError>) -> Option<Conn> {
        self.shared.connect(true, lost, || self.refuse_if_away()).await
    }

    fn take(&self) -> Vec<Accept> {
        let mut bounds = BatchBounds::new();
        let mut batch = self.shared.accepts.take(|accept| {
            let key = accept.new.idempotency.as_ref().map(|idempotency| idempotency.key);
            bounds.fits(key, accept.new.message.payload.as_ref().map_or(0, bytes::Bytes::len), accept.new.endpoints.len())
        });
        self.shared.release(batch.len());
        // Ids in one order, everywhere: two nodes that accept the same messages wait for each other, never in a circle.
        batch.sort_unstable_by_key(|accept| accept.new.message.id);
        batch
    }

    /// While no lane can write, nobody waits in vain.
    fn refuse_if_away(&self) {
        while let Some(away) = self.shared.away() {
            let batch = self.take();
            if batch.is_empty() {
                return;
            }
            refuse(batch, &away);
        }
    }

    /// Writes it, in parts if something in it cannot be written. The error: the connection is of no use any more; all have been
    /// answered.
    async fn write(&self, conn: &mut Conn, batch: Vec<Accept>) -> Result<()> {
        let mut parts = vec![batch];
        let mut tries = 0;
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let guard = self.shared.local.hold();
            let begun = Instant::now();
            let fault = match accept::write(conn, &part, &guard, self.number, self.shared.retention).await {
                Ok(written) => {
                    self.shared.count(part.len(), begun);
                    self.announce(conn, part, &written, &guard, begun).await;
                    continue;
                }
                Err(fault) => fault,
            };
            tries += 1;
            match remedy(&fault) {
                Remedy::Partitions if tries <= TRIES_MAX => {
                    if let Err(fault) = partition::ensure(conn, accept::days(&part)).await {
                        parts.push(part);
                        return Err(abandon(parts, fault));
                    }
                    parts.push(part);
                }
                Remedy::Again if tries <= TRIES_MAX => parts.push(part),
                Remedy::Reconnect => {
                    if fault.is_outcome_unknown() {
                        self.doubt(&part, &guard, begun);
                    }
                    parts.push(part);
                    return Err(abandon(parts, fault));
                }
                Remedy::Halve if part.len() > 1 => {
                    let mut first = part;
                    let second = first.split_off(first.len() / 2);
                    parts.extend([second, first]);
                }
                Remedy::Later => {
                    self.shared.set_full(true);
                    refuse(part, &StoreError::Full);
                }
                Remedy::Halve | Remedy::Again | Remedy::Partitions => {
                    let error = item_error(fault, &part);
                    tracing::error!(%error, messages = part.len(), "messages could not be accepted");
                    refuse(part, &error);
                }
            }
        }
        Ok(())
    }

    fn doubt(&self, part: &[Accept], guard: &LocalGuard, begun: Instant) {
        let messages: Vec<Arc<NewMessage>> = part.iter().map(|accept| accept.new.clone()).collect();
        let doubt = Doubt { messages, epoch: guard.epoch(), generation: guard.generation(), local: guard.shards(), begun };
        match self.shared.doubts.clone().try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(doubt.resolve(self.shared.clone(), permit))),
            // Nothing is lost: whoever next takes over their shards reads them.
            Err(_) => {
                tracing::error!(messages = part.len(), "too many batches in doubt; if committed, these wait for the next start")
            }
        }
    }

    /// Sink first, answers after it: who is answered finds the deliveries under way.
    async fn announce(&self, conn: &Conn, part: Vec<Accept>, written: &Written, guard: &LocalGuard, begun: Instant) {
        let (fresh, lost): (Vec<Accept>, Vec<Accept>) =
            part.into_iter().partition(|accept| written.fresh.contains(&bellwire_core::IdKind::key(&accept.new.message.id)));
        if let Some(latest) = fresh.iter().map(|accept| accept.new.message.created_at).max() {
            self.shared.saw(latest);
        }
        if let Some(sink) = self.shared.sink.get().filter(|_| !fresh.is_empty()) {
            let messages: Vec<Arc<NewMessage>> = fresh.iter().map(|accept| accept.new.clone()).collect();
            let local = if written.is_owner { guard.shards() } else { ShardSet::EMPTY };
            sink.accepted(&messages, &local, begun);
        }
        for accept in fresh {
            answer(accept, Ok(Accepted::Fresh));
        }
        if lost.is_empty() {
            return;
        }
        let news: Vec<&NewMessage> = lost.iter().map(|accept| &*accept.new).collect();
        match accept::explain(conn, &news).await {
            Ok(results) => lost.into_iter().zip(results).for_each(|(accept, result)| answer(accept, result)),
            Err(fault) => refuse(lost, &StoreError::from(fault)),
        }
    }
}

fn answer(accept: Accept, result: Result<Accepted>) {
    let Accept { new, payload, reply } = accept;
    // Before the answer, so that the caller may have the message to itself again.
    drop((new, payload));
    let _ = reply.send(result);
}

fn refuse(batch: Vec<Accept>, error: &StoreError) {
    for accept in batch {
        answer(accept, Err(same(error)));
    }
}

fn abandon(parts: Vec<Vec<Accept>>, fault: Fault) -> StoreError {
    let error = match StoreError::from(fault) {
        StoreError::Busy(what) => StoreError::Unavailable(what.to_owned()),
        other => other,
    };
    for part in parts {
        refuse(part, &error);
    }
    error
}

/// One that cannot be written: if for its own uniqueness, its conflict.
fn item_error(fault: Fault, part: &[Accept]) -> StoreError {
    match (fault.unique_index(), part) {
        (Some(_), [accept]) => StoreError::Conflict { what: "id", value: accept.new.message.id.to_string() },
        _ => fault.into(),
    }
}
