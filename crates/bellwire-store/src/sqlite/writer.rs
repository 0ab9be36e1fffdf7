//! The threads that write, in turns: one takes what waits and commits it as a group, then makes it durable and tells who waits
//! (`syncer.rs`) while the next one writes. Only one has the files at a time.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bellwire_core::{IdKind, limits};
use parking_lot::Mutex;

use super::fault::Outcome;
use super::files::{Files, Health};
use super::inbox::{Accept, Group, Inbox};
use super::syncer::{Committed, Syncer};
use super::{accept, record};
use crate::{Accepted, AttemptRecord, CommitSink, DeliveryNext, Result, StoreError};

/// While one syncs, the other writes. With more, groups become smaller, and each costs some pages.
pub const WRITERS: usize = 2;
/// An idle writer looks around this often.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes the probe for space writes: more than a commit of a small group needs.
const PROBE_BYTES: usize = 128 * 1024;

pub struct Writer {
    desk: Mutex<Desk>,
    inbox: Arc<Inbox>,
    syncer: Arc<Syncer>,
}

/// What the thread has that writes.
struct Desk {
    files: Files,
    inbox: Arc<Inbox>,
    syncer: Arc<Syncer>,
    /// Completed attempts that wait for space.
    kept: Vec<AttemptRecord>,
    /// Committed, and not yet synced.
    committed: Vec<Committed>,
    /// Which of the threads has it.
    thread: usize,
    is_over: bool,
}

/// Whoever waits is answered however the writers end.
struct RefuseTheRest(Arc<Inbox>);

impl Drop for RefuseTheRest {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// A thread that panics takes the others along.
struct Together<'a>(&'a Syncer);

impl Drop for Together<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up();
        }
    }
}

impl Writer {
    pub fn new(files: Files, inbox: Arc<Inbox>, sink: Arc<OnceLock<Arc<dyn CommitSink>>>) -> Self {
        let (stats, on_fatal) = (files.stats.clone(), files.options.on_fatal.clone());
        let syncer = Arc::new(Syncer::new(inbox.clone(), sink, stats, on_fatal));
        let desk = Desk {
            files,
            inbox: inbox.clone(),
            syncer: syncer.clone(),
            kept: Vec::new(),
            committed: Vec::new(),
            thread: 0,
            is_over: false,
        };
        Self { desk: Mutex::new(desk), inbox, syncer }
    }

    /// Until the inbox is closed and empty, or a commit fails.
    pub fn run(self) {
        let _refuse_the_rest = RefuseTheRest(self.inbox.clone());
        std::thread::scope(|scope| {
            for thread in 1..WRITERS {
                let writer = &self;
                let work = move || writer.work(thread);
                if let Err(error) = std::thread::Builder::new().name("store-write".to_owned()).spawn_scoped(scope, work) {
                    tracing::warn!(%error, "no thread to write while another syncs: commits take turns with their syncs");
                }
            }
            self.work(0);
        });
        let Desk { mut files, .. } = self.desk.into_inner();
        if self.syncer.is_dead() {
            files.health = Health::Dead;
        }
        if files.health != Health::Dead {
            files.close();
        }
    }

    fn work(&self, thread: usize) {
        let _together = Together(&self.syncer);
        loop {
            let mut desk = self.desk.lock();
            if desk.is_over {
                return;
            }
            desk.thread = thread;
            desk.serve();
            let committed = std::mem::take(&mut desk.committed);
            let turn = (!committed.is_empty()).then(|| self.syncer.take_turn());
            drop(desk);
            if let Some(turn) = turn {
                self.syncer.finish(turn, committed);
            }
        }
    }
}

impl Desk {
    /// Writes the next group.
    fn serve(&mut self) {
        let group = self.inbox.next(PATIENCE);
        let is_last = group.is_last;
        self.write(group);
        if self.files.health == Health::Full {
            self.wait_for_space();
        }
        self.is_over = is_last || self.files.health == Health::Dead;
    }

    /// Syncs and tells of what was committed so far, at once.
    fn finish(&mut self) {
        let committed = std::mem::take(&mut self.committed);
        if !committed.is_empty() {
            self.syncer.finish(self.syncer.take_turn(), committed);
        }
    }

    /// A sync of what was committed before failed.
    fn notice_death(&mut self) {
        if self.syncer.is_dead() {
            self.files.health = Health::Dead;
        }
    }

    fn write(&mut self, group: Group) {
        self.notice_death();
        let Group { mut accepts, attempts, jobs, taken_at, .. } = group;
        if !accepts.is_empty() || !attempts.is_empty() {
            // In the order of their keys they append to the trees.
            accepts.sort_by_key(|accept| accept.new.message.id.key());
            if let Some(last) = accepts.last() {
                self.files.roll_over_if_due(last.new.message.id.key());
            }
            for (at, accepts, attempts) in self.by_segment(accepts, attempts) {
                self.write_part(at, accepts, attempts, taken_at);
            }
        }
        if !jobs.is_empty() {
            // What they change or look at was told of before, as it was written before.
            self.finish();
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

    fn write_part(&mut self, at: usize, accepts: Vec<Accept>, mut attempts: Vec<AttemptRecord>, taken_at: Instant) {
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
                let log = self.files.segments[at].file.logs[self.thread].clone();
                self.inbox.committed(accepts.len());
                self.committed.push(Committed { accepts, results, attempts, log, taken_at });
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
        self.finish();
        self.inbox.set_full(true);
        let pause = Duration::from_millis(limits::FULL_PROBE_MS);
        let mut probe_at = Instant::now() + pause;
        while self.files.health == Health::Full {
            let group = self.inbox.next(probe_at.saturating_duration_since(Instant::now()));
            let is_last = group.is_last;
            self.write(group);
            self.finish();
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
                self.finish();
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
            self.write_part(at, accepts, attempts, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
