//! The one thread that writes: takes what waits and commits it as a group; `syncer.rs` makes it durable and tells who waits.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bellwire_core::{IdKind, limits};

use super::fault::Outcome;
use super::files::{Files, Health};
use super::inbox::{Accept, Group, Inbox};
use super::syncer::{Around, Committed, Syncer};
use super::{accept, record};
use crate::{Accepted, AttemptRecord, CommitSink, DeliveryNext, Result, StoreError};

/// An idle writer looks around this often.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes the probe for space writes: more than a commit of a small group needs.
const PROBE_BYTES: usize = 128 * 1024;

pub struct Writer {
    files: Files,
    inbox: Arc<Inbox>,
    /// Ends with its handle; then the thread has told of everything.
    syncer: Option<(Syncer, JoinHandle<()>)>,
    /// Completed attempts that wait for space.
    kept: Vec<AttemptRecord>,
}

/// Whoever waits is answered however the writer ends.
struct RefuseTheRest(Arc<Inbox>);

impl Drop for RefuseTheRest {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    pub fn start(files: Files, inbox: Arc<Inbox>, sink: Arc<OnceLock<Arc<dyn CommitSink>>>) -> std::io::Result<Self> {
        let (stats, on_fatal) = (files.stats.clone(), files.options.on_fatal.clone());
        let syncer = Syncer::start(Around { inbox: inbox.clone(), sink, stats, on_fatal })?;
        Ok(Self { files, inbox, syncer: Some(syncer), kept: Vec::new() })
    }

    /// Until the inbox is closed and empty, or a commit fails.
    pub fn run(mut self) {
        let _refuse_the_rest = RefuseTheRest(self.inbox.clone());
        loop {
            let group = self.inbox.next(PATIENCE);
            let is_last = group.is_last;
            self.write(group);
            if self.files.health == Health::Full {
                self.wait_for_space();
            }
            if self.files.health == Health::Dead {
                self.end_syncs();
                return;
            }
            if is_last {
                break;
            }
        }
        self.end_syncs();
        self.files.close();
    }

    fn end_syncs(&mut self) {
        if let Some((syncer, thread)) = self.syncer.take() {
            drop(syncer);
            let _ = thread.join();
        }
    }

    /// A sync of what was committed before failed.
    fn notice_death(&mut self) {
        if self.syncer.as_ref().is_none_or(|(syncer, _)| syncer.is_dead()) {
            self.files.health = Health::Dead;
        }
    }

    fn write(&mut self, group: Group) {
        self.notice_death();
        let Group { mut accepts, attempts, jobs, .. } = group;
        if !accepts.is_empty() || !attempts.is_empty() {
            // In the order of their keys they append to the trees.
            accepts.sort_by_key(|accept| accept.new.message.id.key());
            if let Some(last) = accepts.last() {
                self.files.roll_over_if_due(last.new.message.id.key());
            }
            for (at, accepts, attempts) in self.by_segment(accepts, attempts) {
                self.write_part(at, accepts, attempts);
            }
        }
        if !jobs.is_empty() {
            // What they change or look at was told of before, as it was written before.
            self.inbox.wait_until_told();
            self.notice_death();
        }
        for job in jobs {
            match self.files.health {
                Health::Sound => (job.run)(Ok(&mut self.files)),
                Health::Full if job.frees_space => (job.run)(Ok(&mut self.files)),
                Health::Full => (job.run)(Err(StoreError::Full)),
                Health::Dead => (job.run)(Err(StoreError::Closed)),
            }
        }
    }

    /// Usually one part: the newest segment's.
    fn by_segment(&self, accepts: Vec<Accept>, attempts: Vec<AttemptRecord>) -> Vec<(usize, Vec<Accept>, Vec<AttemptRecord>)> {
        let last = self.files.segments.len() - 1;
        let start = self.files.segments[last].segment.start;
        let is_newest = |key: i64| last == 0 || key >= start;
        if accepts.iter().all(|a| is_newest(a.new.message.id.key())) && attempts.iter().all(|r| is_newest(r.message.key())) {
            return vec![(last, accepts, attempts)];
        }
        let mut parts: Vec<_> = (0..=last).map(|at| (at, Vec::new(), Vec::new())).collect();
        for accept in accepts {
            parts[self.files.place_of(accept.new.message.id.key())].1.push(accept);
        }
        for record in attempts {
            parts[self.files.place_of(record.message.key())].2.push(record);
        }
        parts.retain(|(_, accepts, attempts)| !accepts.is_empty() || !attempts.is_empty());
        parts
    }

    fn write_part(&mut self, at: usize, accepts: Vec<Accept>, mut attempts: Vec<AttemptRecord>) {
        if self.files.health != Health::Sound {
            self.refuse(accepts, attempts);
            return;
        }
        match self.commit_part(at, &accepts, &attempts) {
            Ok((results, moot)) => {
                for record in &mut attempts {
                    if moot.contains(&(record.message.key(), record.endpoint.key())) {
                        record.next = DeliveryNext::Delivered;
                    }
                }
                let committed = Committed { accepts, results, attempts, log: self.files.segments[at].file.log.clone() };
                if let Some((syncer, _)) = &self.syncer {
                    syncer.sync(&self.inbox, committed);
                }
            }
            Err(fault) => {
                self.files.roll_back(&fault);
                if !fault.is_full() && self.files.health != Health::Dead {
                    self.files.die(&fault);
                }
                self.refuse(accepts, attempts);
            }
        }
    }

    fn commit_part(
        &mut self,
        at: usize,
        accepts: &[Accept],
        attempts: &[AttemptRecord],
    ) -> Outcome<(Vec<Result<Accepted>>, record::Moot)> {
        let mut records: Vec<&AttemptRecord> = attempts.iter().collect();
        records.sort_by_key(|record| record.attempt.as_ref().map(|attempt| attempt.id.key()));
        let latest = records.iter().rev().find_map(|r| r.attempt.as_ref()).map(|attempt| attempt.timestamp);
        self.files.latest = self.files.latest.max(latest.unwrap_or_default());
        let results = accept::write(&self.files, at, accepts)?;
        let record::Written { rests, moot } = record::write(&self.files, at, &records)?;
        self.files.commit_unsynced(at, accepts.len() + attempts.len())?;
        for (message, rest) in rests {
            self.files.outstanding.set(message, rest);
        }
        for (accept, result) in accepts.iter().zip(&results) {
            let new = &accept.new;
            if !matches!(result, Ok(Accepted::Fresh)) {
                continue;
            }
            let key = new.message.id.key();
            let segment = &mut self.files.segments[at];
            segment.oldest = Some(segment.oldest.map_or(key, |oldest| oldest.min(key)));
            segment.newest = Some(segment.newest.map_or(key, |newest| newest.max(key)));
            self.files.latest = self.files.latest.max(new.message.created_at);
            if new.endpoints.len() > 1 && new.message.deliver_at.is_none() {
                self.files.outstanding.set(key, new.endpoints.iter().map(IdKind::key).collect());
            }
        }
        Ok((results, moot))
    }

    fn refuse(&mut self, accepts: Vec<Accept>, attempts: Vec<AttemptRecord>) {
        let is_dead = self.files.health == Health::Dead;
        for accept in accepts {
            let _ = accept.reply.send(Err(if is_dead { StoreError::Closed } else { StoreError::Full }));
        }
        if !is_dead {
            self.kept.extend(attempts);
        }
    }

    /// The disk is full: refuses writes, keeps completed attempts, and tries until there is space.
    fn wait_for_space(&mut self) {
        tracing::error!("the disk is full: writes are refused until there is space");
        self.inbox.set_full(true);
        let pause = Duration::from_millis(limits::FULL_PROBE_MS);
        let mut probe_at = Instant::now() + pause;
        while self.files.health == Health::Full {
            let group = self.inbox.next(probe_at.saturating_duration_since(Instant::now()));
            let is_last = group.is_last;
            self.write(group);
            if is_last {
                tracing::error!(
                    attempts = self.kept.len(),
                    "closing with a full disk: attempts that could not be recorded will be repeated"
                );
                self.kept.clear();
                self.files.health = Health::Sound;
                return;
            }
            if Instant::now() >= probe_at {
                self.probe();
                probe_at = Instant::now() + pause;
            }
        }
        if self.files.health == Health::Sound {
            self.inbox.set_full(false);
            tracing::info!("there is space again: writing goes on");
        }
    }

    /// Writes what was kept, or something of its size.
    fn probe(&mut self) {
        self.files.health = Health::Sound;
        let probed = self.files.transact(|files| {
            let file = files.segments.last().map_or(&files.control, |segment| &segment.file);
            file.tx()?.execute("INSERT INTO probe (filler) VALUES (zeroblob(?1))", [PROBE_BYTES as i64])?;
            Ok(())
        });
        let cleared = self.files.transact(|files| {
            if let Some(segment) = files.segments.last() {
                segment.file.tx()?.execute("DELETE FROM probe", [])?;
            }
            Ok(())
        });
        if self.files.health == Health::Dead {
            return;
        }
        if probed.is_err() || cleared.is_err() {
            self.files.health = Health::Full;
            return;
        }
        let kept = std::mem::take(&mut self.kept);
        for (at, accepts, attempts) in self.by_segment(Vec::new(), kept) {
            self.write_part(at, accepts, attempts);
        }
    }
}

#[cfg(test)]
mod tests;
