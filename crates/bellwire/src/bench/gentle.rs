//! The open loop: messages are sent at a fixed rate, whatever the server does, and every latency counts from the moment
//! a message was *meant* to be sent (no coordinated omission).
//!
//! Plain threads and blocking sockets: at this rate they are idle, and the kernel wakes them to the microsecond, which a
//! runtime with millisecond timers does not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use parking_lot::{Condvar, Mutex};

use super::latency::{self, Latencies};
use super::load::{Loaded, Progress};
use super::payload::{Stamped, now_nanos};
use super::target::Target;
use super::wire::parse_answer;

/// Connections: messages may be under way that long (times the interval) before one is sent late.
const CONNECTIONS: usize = 16;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A sleeping thread wakes this much late (timer slack); the rest of the way is waited actively.
const WAKE_SLACK: Duration = Duration::from_micros(120);
/// Waiting actively at higher rates would take the processors from the server; then that much more latency is seen.
const ACTIVE_PER_SECOND_MAX: u32 = 1_000;
/// Between the moment that all threads are ready and the first message.
const LEAD: Duration = Duration::from_millis(50);
const ANSWER_BYTES: usize = 16 * 1024;

/// Prepares requests that are due at fixed times.
pub trait MakeDue: Send + 'static {
    /// The bytes of the request with this sequence number, meant to be sent at `due_nanos` since 1970.
    fn make_due(&mut self, due_nanos: u64, sequence: u64) -> &[u8];
}

/// One message to each application in turn.
#[derive(Clone)]
struct InTurn(Vec<Stamped>);

impl MakeDue for InTurn {
    fn make_due(&mut self, due_nanos: u64, sequence: u64) -> &[u8] {
        let count = self.0.len() as u64;
        self.0[(sequence % count) as usize].stamp(due_nanos, sequence)
    }
}

/// An open loop.
pub struct OpenLoop {
    pub per_second: u32,
    pub duration: Duration,
}

impl OpenLoop {
    /// Publishes to `apps` in turn, through each of `targets` as much.
    ///
    /// # Errors
    /// The server refused, or did not answer.
    pub async fn run(&self, targets: &[Target], apps: &[String], progress: &Arc<Progress>) -> anyhow::Result<Loaded> {
        let body = ("{\"eventType\":\"invoice.paid\",\"payload\":", "}");
        let bytes = body.0.len() + super::payload::PAYLOAD_BYTES + body.1.len();
        let make = |target: &Target, app: &String| {
            let head = target.head("POST", &format!("/api/v1/app/{app}/msg"), bytes);
            Stamped::wrapped(&format!("{head}{}", body.0), body.1)
        };
        let ways: Vec<(SocketAddr, InTurn)> =
            targets.iter().map(|target| (target.address, InTurn(apps.iter().map(|app| make(target, app)).collect()))).collect();
        if ways.is_empty() || apps.is_empty() {
            bail!("nobody to publish to");
        }
        let connections = ways.iter().cycle().take(CONNECTIONS).cloned();
        self.send(connections.map(|(address, make)| (address, Box::new(make) as Box<dyn MakeDue>)).collect(), progress).await
    }

    /// Sends what is made for each connection, one request from one after the other.
    ///
    /// # Errors
    /// The server refused, or did not answer.
    pub async fn send(&self, ways: Vec<(SocketAddr, Box<dyn MakeDue>)>, progress: &Arc<Progress>) -> anyhow::Result<Loaded> {
        let connections = ways.len();
        let total = (self.duration.as_secs_f64() * f64::from(self.per_second)).round() as u64;
        // All connections stand before the first message is due: opening them is no part of what is measured.
        let opening =
            move || ways.into_iter().map(|(address, make)| Ok((open(address)?, make))).collect::<anyhow::Result<Vec<_>>>();
        let ways = tokio::task::spawn_blocking(opening).await??;
        let start = Arc::new(Start { missing: Mutex::new(connections), ready: Condvar::new(), clocks: OnceLock::new() });
        let threads: Vec<_> = (0u64..)
            .zip(ways)
            .map(|(thread, (stream, requests))| {
                let sender = Sender {
                    latencies: latency::full_size()?,
                    stream,
                    requests,
                    interval: Duration::from_secs(1) / self.per_second.max(1),
                    slack: if self.per_second <= ACTIVE_PER_SECOND_MAX { WAKE_SLACK } else { Duration::ZERO },
                    start: Arc::clone(&start),
                    progress: Arc::clone(progress),
                };
                Ok(tokio::task::spawn_blocking(move || sender.run((thread..total).step_by(connections))))
            })
            .collect::<anyhow::Result<_>>()?;
        let mut all = latency::latencies()?;
        for thread in threads {
            all.add(&thread.await??)?;
        }
        Ok(Loaded {
            acknowledged: progress.acknowledged.load(Ordering::Relaxed),
            refused: progress.refused.load(Ordering::Relaxed),
            elapsed: start.clocks().0.elapsed(),
            latencies: all,
        })
    }
}

/// When the first message is due: a moment after the last thread has become ready. A thread that allocates for the first time has
/// pages of its own cleared, two megabytes for each size: a hundred threads that do so at once leave the server no processor for a
/// second. So they allocate nothing once the first message is due, and are all there by then.
struct Start {
    /// Threads that are not ready yet.
    missing: Mutex<usize>,
    ready: Condvar,
    clocks: OnceLock<(Instant, u64)>,
}

impl Start {
    /// Waits until all are.
    fn ready(&self) -> anyhow::Result<(Instant, u64)> {
        let mut missing = self.missing.lock();
        *missing -= 1;
        if *missing == 0 {
            self.ready.notify_all();
        } else if self.ready.wait_while_for(&mut missing, |missing| *missing > 0, ANSWER_TIMEOUT).timed_out() {
            bail!("{missing} of the connections' threads did not start within {ANSWER_TIMEOUT:?}");
        }
        Ok(self.clocks())
    }

    fn clocks(&self) -> (Instant, u64) {
        let lead_nanos = u64::try_from(LEAD.as_nanos()).unwrap_or(u64::MAX);
        *self.clocks.get_or_init(|| (Instant::now() + LEAD, now_nanos() + lead_nanos))
    }
}

/// One connection's share.
struct Sender {
    /// Made by the thread that starts the others, and never larger: see [`Start`].
    latencies: Latencies,
    stream: TcpStream,
    requests: Box<dyn MakeDue>,
    interval: Duration,
    /// Waited actively before a request is due.
    slack: Duration,
    start: Arc<Start>,
    progress: Arc<Progress>,
}

impl Sender {
    fn run(mut self, sequences: impl Iterator<Item = u64>) -> anyhow::Result<Latencies> {
        let mut latencies = self.latencies;
        let (started, started_nanos) = self.start.ready()?;
        for sequence in sequences {
            let offset = self.interval * u32::try_from(sequence).unwrap_or(u32::MAX);
            let due = started + offset;
            wait_until(due, self.slack);
            let due_nanos = started_nanos + u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX);
            let request = self.requests.make_due(due_nanos, sequence);
            self.progress.sent.fetch_add(1, Ordering::Relaxed);
            let status = exchange(&mut self.stream, request)?;
            latency::record(&mut latencies, u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
            if (200..300).contains(&status) {
                self.progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                bail!("the server answered {status} at {:.0} requests/s", 1.0 / self.interval.as_secs_f64());
            }
        }
        Ok(latencies)
    }
}

fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("the server cannot be reached")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

fn wait_until(due: Instant, slack: Duration) {
    let wait = due.saturating_duration_since(Instant::now());
    if wait > slack {
        std::thread::sleep(wait - slack);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

fn exchange(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<u16> {
    stream.write_all(request)?;
    let mut buffer = [0; ANSWER_BYTES];
    let mut end = 0;
    loop {
        let count = stream.read(&mut buffer[end..])?;
        if count == 0 {
            bail!("the server closed the connection");
        }
        end += count;
        if let Some(answered) = parse_answer(&buffer[..end])? {
            return Ok(answered.status);
        }
    }
}
