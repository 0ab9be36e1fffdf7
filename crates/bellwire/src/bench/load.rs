//! The closed loop: so many connections, each with one request under way at any time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;

use super::latency::{self, Latencies};
use super::payload::{Stamped, now_nanos};
use super::target::Target;
use super::wire::Wire;

/// How long an exchange may outlast the phase: the longest request timeout anyone configures for an API call.
const OVERTIME: Duration = Duration::from_secs(60);
/// Failures in a row on one connection before the phase gives up.
const FAILURES_MAX: u32 = 50;
/// After a refusal (429, 503): long enough to let the server breathe, short enough not to shape the figure.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// What a connection sends, and where to.
type Connection = (SocketAddr, Box<dyn MakeRequest>);

/// Prepares requests, one maker for each connection.
pub trait MakeRequest: Send + 'static {
    /// The bytes of the request with this sequence number.
    fn make(&mut self, sequence: u64) -> &[u8];
}

/// Publishes messages.
pub struct Publish(Stamped);

impl Publish {
    pub fn new(target: &Target, app: &str) -> Self {
        let body = ("{\"eventType\":\"invoice.paid\",\"payload\":", "}");
        let bytes = body.0.len() + super::payload::PAYLOAD_BYTES + body.1.len();
        let head = target.head("POST", &format!("/api/v1/app/{app}/msg"), bytes);
        Self(Stamped::wrapped(&format!("{head}{}", body.0), body.1))
    }
}

impl MakeRequest for Publish {
    fn make(&mut self, sequence: u64) -> &[u8] {
        self.0.stamp(now_nanos(), sequence)
    }
}

/// What can be watched while a load runs.
#[derive(Default)]
pub struct Progress {
    pub sent: AtomicU64,
    pub acknowledged: AtomicU64,
    pub refused: AtomicU64,
    pub first_error: Mutex<Option<String>>,
}

impl Progress {
    fn fail(&self, what: impl FnOnce() -> String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.first_error.lock().get_or_insert_with(what);
    }
}

/// How a load went.
pub struct Loaded {
    pub acknowledged: u64,
    pub refused: u64,
    pub elapsed: Duration,
    /// From sending to the complete answer.
    pub latencies: Latencies,
}

/// One load.
pub struct ClosedLoop {
    pub in_flight: usize,
    pub duration: Duration,
    pub threads: usize,
}

impl ClosedLoop {
    /// Runs the load on threads of its own and waits for it without blocking the runtime. `make` is asked for each connection,
    /// by its number.
    ///
    /// # Errors
    /// A connection kept failing, or nothing was acknowledged.
    pub async fn run(&self, progress: &Arc<Progress>, make: impl Fn(usize) -> Connection) -> anyhow::Result<Loaded> {
        let started = Instant::now();
        let deadline = started + self.duration;
        let mut threads = Vec::new();
        let shards = self.threads.clamp(1, self.in_flight.max(1));
        for shard in 0..shards {
            let connections: Vec<_> = (shard..self.in_flight).step_by(shards).map(&make).collect();
            let progress = Arc::clone(progress);
            threads.push(tokio::task::spawn_blocking(move || run_shard(deadline, connections, &progress)));
        }
        let mut all = latency::latencies()?;
        for thread in threads {
            all.add(&thread.await??)?;
        }
        let loaded = Loaded {
            acknowledged: progress.acknowledged.load(Ordering::Relaxed),
            refused: progress.refused.load(Ordering::Relaxed),
            elapsed: started.elapsed(),
            latencies: all,
        };
        if loaded.acknowledged == 0 {
            bail!("nothing was acknowledged: {}", progress.first_error.lock().as_deref().unwrap_or("no answer"));
        }
        Ok(loaded)
    }
}

fn run_shard(deadline: Instant, connections: Vec<Connection>, progress: &Arc<Progress>) -> anyhow::Result<Latencies> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connections: Vec<_> = connections
            .into_iter()
            .map(|(address, maker)| tokio::spawn(run_connection(address, deadline, maker, Arc::clone(progress))))
            .collect();
        let mut all = latency::latencies()?;
        let limit = tokio::time::Instant::from_std(deadline + OVERTIME);
        for connection in connections {
            let latencies = tokio::time::timeout_at(limit, connection)
                .await
                .with_context(|| format!("a request had no answer {OVERTIME:?} after the end of the phase"))??;
            all.add(&latencies?)?;
        }
        Ok(all)
    })
}

async fn run_connection(
    address: SocketAddr,
    deadline: Instant,
    mut maker: Box<dyn MakeRequest>,
    progress: Arc<Progress>,
) -> anyhow::Result<Latencies> {
    let mut latencies = latency::latencies()?;
    let mut wire = None;
    let mut failures = 0;
    while Instant::now() < deadline {
        if wire.is_none() {
            wire = Wire::connect(address).await.map_err(|error| progress.fail(|| format!("connect: {error}"))).ok();
        }
        let Some(open) = &mut wire else {
            failures += 1;
            if failures > FAILURES_MAX {
                bail!("{address} cannot be reached");
            }
            tokio::time::sleep(REFUSED_PAUSE).await;
            continue;
        };
        let sequence = progress.sent.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        match open.exchange(maker.make(sequence)).await {
            Ok(answered) if (200..300).contains(&answered.status) => {
                failures = 0;
                latency::record(&mut latencies, u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answered) => {
                let body = open.body(&answered);
                progress.fail(|| format!("{} {}", answered.status, String::from_utf8_lossy(&body[..body.len().min(300)])));
                if !matches!(answered.status, 429 | 503) {
                    failures += 1;
                }
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(error) => {
                progress.fail(|| error.to_string());
                failures += 1;
                wire = None;
            }
        }
        if failures > FAILURES_MAX {
            bail!("{FAILURES_MAX} requests in a row failed: {}", progress.first_error.lock().as_deref().unwrap_or_default());
        }
    }
    Ok(latencies)
}
