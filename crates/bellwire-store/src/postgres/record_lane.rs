//! A lane that records completed attempts: they wait a few milliseconds for company, and are kept until they are written.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_core::{IdKind, SHARDS, limits};

use super::connection::Conn;
use super::inbox::Company;
use super::partition;
use super::record::{self, Write, Written};
use super::writer::{ACCEPT_LANES, BatchBounds, Remedy, Shared, remedy};
use crate::{AttemptRecord, DeliveryNext, StoreError};

/// How often a batch is tried at once that other transactions get in the way of.
const TRIES_MAX: usize = 4;
/// Attempts wait this many times as long as the last write took: where every commit is dear, there are fewer and larger ones.
const DELAY_OF_WRITE: u32 = 2;
const DELAY_MIN: Duration = Duration::from_millis(limits::COMPLETION_DELAY_MS_MAX);
const DELAY_MAX: Duration = Duration::from_millis(32);
/// … and this many times longer at most where several nodes share the work: each of them gathers a part of it, and the database pays for
/// every batch of all of them.
const SHARES_MAX: usize = 2;
/// Before a batch is tried again that failed for what is in it, or for want of space.
const LATER: Duration = Duration::from_millis(limits::FULL_PROBE_MS);

pub struct RecordLane {
    shared: Arc<Shared>,
    number: usize,
    /// Of the fence.
    lane: i16,
}

/// Why a batch, or some of it, is not written.
enum Unwritten {
    Reconnect(Vec<AttemptRecord>, StoreError),
    Later(Vec<AttemptRecord>, StoreError),
}

/// How long attempts wait after a write that took so long, on a node with so many of the shards.
fn delay_after(write: Duration, shards: usize) -> Duration {
    // Rounded: of two nodes, one may have a few shards more.
    let nodes = (SHARDS + shards / 2).checked_div(shards).unwrap_or(1);
    let shares = u32::try_from(nodes.clamp(1, SHARES_MAX)).unwrap_or(1);
    (write * DELAY_OF_WRITE * shares).clamp(DELAY_MIN, DELAY_MAX * shares)
}

impl RecordLane {
    pub fn new(shared: Arc<Shared>, number: i16) -> Self {
        Self { shared, number: usize::try_from(number).unwrap_or(0), lane: ACCEPT_LANES + number }
    }

    /// Until the inbox is closed and empty, or closed while the database is away.
    pub async fn run(self) {
        let inbox = &self.shared.records[self.number];
        let mut delay = DELAY_MIN;
        let mut conn = self.shared.connect(false, None, || ()).await;
        while inbox.wait(|_, since| Company { until: since + delay, enough: limits::GROUP_ITEMS_MAX }).await {
            if conn.as_ref().is_none_or(Conn::is_closed) {
                drop(conn.take());
                conn = self.shared.connect(false, None, || ()).await;
            }
            let Some(open) = conn.as_mut() else { return self.give_up() };
            let mut bounds = BatchBounds::new();
            let batch = inbox.take(|record| {
                let bytes = record.attempt.as_ref().map_or(0, |attempt| attempt.response.len());
                bounds.fits(Some((record.message.key(), record.endpoint.key())), bytes, 0)
            });
            let began = Instant::now();
            match self.write(open, batch).await {
                Ok(()) => delay = delay_after(began.elapsed(), self.shared.local.hold().shards().len()),
                Err(Unwritten::Reconnect(rest, error)) => {
                    tracing::warn!(%error, attempts = rest.len(), "attempts are kept until the database is there");
                    if let Some(conn) = conn.take() {
                        conn.discard();
                    }
                    inbox.put_back(rest);
                }
                Err(Unwritten::Later(rest, error)) => {
                    if inbox.is_closed() {
                        inbox.put_back(rest);
                        return self.give_up();
                    }
                    tracing::error!(%error, attempts = rest.len(), "attempts could not be recorded; they are kept");
                    for record in rest {
                        inbox.push(record);
                    }
                    tokio::time::sleep(LATER).await;
                }
            }
        }
    }

    fn give_up(&self) {
        let attempts = self.shared.records[self.number].len();
        if attempts > 0 {
            tracing::error!(attempts, "closing without the database: attempts that could not be recorded will be repeated");
        }
    }

    /// Writes it, in parts if something in it cannot be written.
    async fn write(&self, conn: &mut Conn, batch: Vec<AttemptRecord>) -> Result<(), Unwritten> {
        let guard = self.shared.local.hold();
        let (batch, over): (Vec<_>, Vec<_>) = batch.into_iter().partition(|record| record.epoch == guard.epoch());
        self.fenced(&over);
        let mut parts = vec![batch];
        let (mut later, mut why, mut tries) = (Vec::new(), None, 0);
        let mut turn = Write::First;
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let latest = part.iter().filter_map(|record| record.attempt.as_ref()).map(|attempt| attempt.timestamp).max();
            self.shared.saw(latest.unwrap_or_default());
            let begun = Instant::now();
            let fault = match record::write(conn, &part, turn, guard.epoch(), self.lane, self.shared.latest()).await {
                Ok(Written::Done { moot }) => {
                    self.shared.count(part.len(), begun);
                    self.recorded(part, &moot);
                    continue;
                }
                Ok(Written::Fenced) => {
                    self.fenced(&part);
                    continue;
                }
                Err(fault) if fault.is_there_already() && turn == Write::First => {
                    turn = Write::Again;
                    parts.push(part);
                    continue;
                }
                Err(fault) => fault,
            };
            tries += 1;
            let days = record::days(&part, self.shared.latest());
            let lost = match remedy(&fault) {
                Remedy::Partitions if tries <= TRIES_MAX => {
                    parts.push(part);
                    partition::ensure(conn, days).await.err()
                }
                Remedy::Again if tries <= TRIES_MAX => {
                    parts.push(part);
                    None
                }
                Remedy::Halve if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                    None
                }
                Remedy::Reconnect => {
                    parts.push(part);
                    Some(fault)
                }
                Remedy::Later | Remedy::Halve | Remedy::Again | Remedy::Partitions => {
                    later.extend(part);
                    let error = StoreError::from(fault);
                    self.shared.set_full(matches!(error, StoreError::Full));
                    why = Some(error);
                    None
                }
            };
            if let Some(fault) = lost {
                let mut rest: Vec<AttemptRecord> = parts.into_iter().rev().flatten().collect();
                rest.append(&mut later);
                return Err(Unwritten::Reconnect(rest, fault.into()));
            }
        }
        match why {
            Some(error) => Err(Unwritten::Later(later, error)),
            None => Ok(()),
        }
    }

    fn recorded(&self, mut part: Vec<AttemptRecord>, moot: &HashSet<usize>) {
        for place in moot {
            if let Some(record) = part.get_mut(*place) {
                record.next = DeliveryNext::Delivered;
            }
        }
        if let Some(sink) = self.shared.sink.get() {
            sink.recorded(&part);
        }
    }

    fn fenced(&self, records: &[AttemptRecord]) {
        if records.is_empty() {
            return;
        }
        tracing::warn!(attempts = records.len(), "attempts of a membership that is over change nothing");
        if let Some(sink) = self.shared.sink.get() {
            sink.fenced(records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_wait_twice_as_long_where_others_have_half_of_the_work() {
        let ms = Duration::from_millis;
        for shards in [SHARDS, 2 * SHARDS / 3 + 1, 0] {
            assert_eq!(delay_after(ms(10), shards), ms(20), "{shards}");
            assert_eq!(delay_after(ms(100), shards), DELAY_MAX, "{shards}");
        }
        for shards in [SHARDS / 2 + 1, SHARDS / 2, SHARDS / 2 - 1, 3, 1] {
            assert_eq!(delay_after(ms(10), shards), ms(40), "{shards}");
            assert_eq!(delay_after(ms(100), shards), DELAY_MAX * 2, "{shards}");
        }
        assert_eq!(delay_after(Duration::ZERO, 1), DELAY_MIN, "where writes are quick nobody waits for others");
    }
}
