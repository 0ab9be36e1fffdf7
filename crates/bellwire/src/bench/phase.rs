//! One phase: a load, watched until everything it brought has arrived and is recorded, with what it cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::gentle::OpenLoop;
use super::latency::{Quantiles, ratio};
use super::load::{ClosedLoop, Loaded, MakeRequest, Progress, Publish};
use super::receive::{Reader, Receiver};
use super::source::HalfRate;
use super::target::Target;
use super::{process, report};
use crate::terminal::thousands;

/// Everything must have arrived and be recorded this long after the last acknowledgement.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(180);
/// Statistics of others' servers may be late, or count otherwise; then only arrivals count.
const OTHERS_RECORD_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_POLL: Duration = Duration::from_millis(10);
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// What a phase runs against.
pub struct Bench<'a> {
    /// One, or several nodes of one system: the load is spread over all.
    pub targets: &'a [Target],
    pub receiver: &'a Receiver,
    /// Whether the bench started the servers itself: then it knows what they can tell.
    pub is_ours: bool,
    /// Of the database's first process, if it is on this machine.
    pub database_pid: Option<u32>,
    pub threads: usize,
    /// Tells this phase's paths from all others.
    pub tag: String,
}

/// The shape of a load.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// So many requests under way at any time.
    Closed { in_flight: usize, fan_out: usize },
    /// So many messages a second.
    Open { per_second: u32 },
}

/// What a phase came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub messages: u64,
    pub refused: u64,
    pub first_error: Option<String>,
    pub deliveries: u64,
    /// Deliveries that came more than once.
    pub repeated: u64,
    /// From the first request until everything has arrived and (if the server tells) is recorded.
    pub wall_s: f64,
    /// The part of it after the last acknowledgement.
    pub drain_s: f64,
    /// Most deliveries seen outstanding.
    pub backlog_max: u64,
    /// Whether the server told that all of it is recorded (not every server has the statistics).
    pub is_recorded: bool,
    pub messages_per_s: f64,
    pub deliveries_per_s: f64,
    pub acknowledge: Quantiles,
    pub end_to_end: Quantiles,
    /// 0 when unknown.
    pub server_cpu_s: f64,
    /// Of the database server; 0 when there is none, or elsewhere.
    pub database_cpu_s: f64,
    pub loader_cpu_s: f64,
    pub receiver_cpu_s: f64,
    pub resident_bytes_max: u64,
    /// Accepted before anything was measured.
    #[serde(default)]
    pub warm_up_messages: u64,
    /// Only of the phase that receives: what follows the closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_rate: Option<HalfRate>,
}

impl Measured {
    /// Messages that the store holds afterwards.
    pub fn messages_stored(&self) -> u64 {
        self.warm_up_messages + self.messages + self.half_rate.as_ref().map_or(0, |half| half.messages)
    }

    /// Server processor time for one message, in milliseconds.
    pub fn server_cpu_ms_per_message(&self) -> f64 {
        ratio(self.server_cpu_s * 1_000.0, self.messages as f64)
    }

    /// Database processor time for one message, in milliseconds.
    pub fn database_cpu_ms_per_message(&self) -> f64 {
        ratio(self.database_cpu_s * 1_000.0, self.messages as f64)
    }

    /// Server and database processor time for one delivery, in microseconds.
    pub fn cpu_us_per_delivery(&self) -> f64 {
        ratio((self.server_cpu_s + self.database_cpu_s) * 1e6, self.deliveries as f64)
    }

    /// Server processor time as a multiple of loader and receiver together.
    pub fn server_cpu_ratio(&self) -> f64 {
        ratio(self.server_cpu_s, self.loader_cpu_s + self.receiver_cpu_s)
    }
}

/// Processor seconds so far.
pub struct Cpu {
    pub server: f64,
    pub database: f64,
    pub loader: f64,
    pub receiver: f64,
}

impl Bench<'_> {
    /// Sets up an application, loads it, waits until everything is done.
    ///
    /// # Errors
    /// The server failed, or not everything arrived in time.
    pub async fn run(&self, name: &str, shape: Shape, duration: Duration) -> anyhow::Result<Measured> {
        let fan_out = match shape {
            Shape::Closed { fan_out, .. } => fan_out,
            Shape::Open { .. } => 1,
        };
        let prefix = format!("/p/{}-{name}/", self.tag);
        let urls: Vec<String> = (0..fan_out).map(|n| self.receiver.url(&format!("{prefix}{n}"))).collect();
        let (app, endpoints) = self.first()?.set_up(name, &urls).await?;

        let progress = Arc::new(Progress::default());
        let watch = Watch::start(name, &prefix, fan_out as u64, self, &progress);
        let before = self.cpu();
        let started = Instant::now();
        let loaded = self.load(shape, duration, &app, &progress).await?;
        let loaded_at = started.elapsed();
        self.drain_arrivals(&prefix, loaded.acknowledged * fan_out as u64).await?;
        let (mut wall, mut after) = (started.elapsed(), self.cpu());
        let is_recorded = self.drain_records(&app, &endpoints, loaded.acknowledged).await?;
        if is_recorded {
            (wall, after) = (started.elapsed(), self.cpu());
        }

        let arrivals = self.receiver.stats(&prefix).await?;
        let messages = loaded.acknowledged;
        Ok(Measured {
            messages,
            refused: loaded.refused,
            first_error: progress.first_error.lock().clone(),
            deliveries: arrivals.unique,
            repeated: arrivals.arrived - arrivals.unique,
            wall_s: wall.as_secs_f64(),
            drain_s: (wall - loaded_at).as_secs_f64(),
            backlog_max: watch.seen.backlog_max.load(Ordering::Relaxed),
            is_recorded,
            messages_per_s: messages as f64 / wall.as_secs_f64(),
            deliveries_per_s: arrivals.unique as f64 / wall.as_secs_f64(),
            acknowledge: Quantiles::of(&loaded.latencies),
            end_to_end: arrivals.latency,
            server_cpu_s: after.server - before.server,
            database_cpu_s: after.database - before.database,
            loader_cpu_s: after.loader - before.loader,
            receiver_cpu_s: after.receiver - before.receiver,
            resident_bytes_max: watch.seen.resident_bytes_max.load(Ordering::Relaxed),
            warm_up_messages: 0,
            half_rate: None,
        })
    }

    /// The one that is set up, and asked what is recorded: it knows of what the others do.
    fn first(&self) -> anyhow::Result<&Target> {
        self.targets.first().context("nobody to measure")
    }

    async fn load(&self, shape: Shape, duration: Duration, app: &str, progress: &Arc<Progress>) -> anyhow::Result<Loaded> {
        match shape {
            Shape::Closed { in_flight, .. } => {
                let load = ClosedLoop { in_flight, duration, threads: self.threads };
                let way = |number: usize| {
                    let target = &self.targets[number % self.targets.len()];
                    (target.address, Box::new(Publish::new(target, app)) as Box<dyn MakeRequest>)
                };
                load.run(progress, way).await
            }
            Shape::Open { per_second } => OpenLoop { per_second, duration }.run(self.targets, &[app.to_owned()], progress).await,
        }
    }

    /// Waits until `expected` different deliveries have arrived.
    async fn drain_arrivals(&self, prefix: &str, expected: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        loop {
            let arrived = self.receiver.count(prefix).await?.unique;
            if arrived >= expected {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("of {expected} acknowledged deliveries only {arrived} arrived within {DRAIN_TIMEOUT:?}");
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Waits until the server tells that all of it is recorded. False: it does not tell.
    async fn drain_records(&self, app: &str, endpoints: &[String], messages: u64) -> anyhow::Result<bool> {
        let deadline = Instant::now() + if self.is_ours { DRAIN_TIMEOUT } else { OTHERS_RECORD_TIMEOUT };
        for endpoint in endpoints {
            loop {
                let (delivered, unfinished) = match self.first()?.recorded(app, endpoint).await {
                    Ok(counts) => counts,
                    // A server without these statistics. Ours has them.
                    Err(_) if !self.is_ours => return Ok(false),
                    Err(error) => return Err(error),
                };
                if delivered >= messages && unfinished == 0 {
                    break;
                }
                if Instant::now() > deadline {
                    let rest = format!("{delivered} of {messages} recorded, {unfinished} unfinished");
                    if !self.is_ours {
                        return Ok(false);
                    }
                    bail!("not everything was recorded within {DRAIN_TIMEOUT:?}: {rest}");
                }
                tokio::time::sleep(DRAIN_POLL).await;
            }
        }
        Ok(true)
    }

    pub fn cpu(&self) -> Cpu {
        Cpu {
            server: self.targets.iter().filter_map(|target| target.pid).map(process::cpu_seconds).sum(),
            database: self.database_pid.map_or(0.0, process::family_cpu_seconds),
            loader: process::cpu_seconds(std::process::id()),
            receiver: process::cpu_seconds(self.receiver.pid()),
        }
    }
}

/// The largest values seen while a phase ran.
#[derive(Default)]
pub struct Seen {
    pub backlog_max: AtomicU64,
    pub resident_bytes_max: AtomicU64,
}

/// Shows progress, and remembers backlog and memory, until it is dropped.
pub struct Watch {
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub fn start(name: &str, prefix: &str, fan_out: u64, bench: &Bench<'_>, progress: &Arc<Progress>) -> Self {
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(watch(
            (name.to_owned(), prefix.to_owned(), fan_out),
            bench.targets.iter().filter_map(|target| target.pid).collect(),
            bench.receiver.reader(),
            Arc::clone(progress),
            Arc::clone(&seen),
        ));
        Self { seen, task }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
        report::progress_end();
    }
}

async fn watch(
    (name, prefix, fan_out): (String, String, u64),
    pids: Vec<u32>,
    receiver: Reader,
    progress: Arc<Progress>,
    seen: Arc<Seen>,
) {
    let started = Instant::now();
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        let Ok(arrived) = receiver.count(&prefix).await else { continue };
        let backlog = (acknowledged * fan_out).saturating_sub(arrived.unique);
        seen.backlog_max.fetch_max(backlog, Ordering::Relaxed);
        let resident = pids.iter().copied().map(process::resident_bytes).sum();
        seen.resident_bytes_max.fetch_max(resident, Ordering::Relaxed);
        let seconds = started.elapsed().as_secs_f64();
        report::progress(&format!(
            "{name}: {seconds:.1} s, {} messages acknowledged ({}/s), {} deliveries arrived, {backlog} under way",
            thousands(acknowledged),
            thousands((acknowledged as f64 / seconds) as u64),
            thousands(arrived.unique),
        ));
    }
}
