//! The open loop: messages are sent at a fixed rate, whatever the server does, and every latency counts from the moment
//! a message was *meant* to be sent (no coordinated omission).
//!
//! One thread sends what is due, which the kernel wakes to the microsecond, as a runtime with millisecond timers does not; another one
//! reads the answers as they come. A thread for each connection took three times the processor time, which the server was in want of.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
/// A socket has no room for a request: looked at again after this.
const NO_ROOM: Duration = Duration::from_micros(50);
/// Between the moment that all connections stand and the first message.
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

    /// Sends what is made for each connection, by whichever has been free for longest.
    ///
    /// # Errors
    /// The server refused, or did not answer.
    pub async fn send(&self, ways: Vec<(SocketAddr, Box<dyn MakeDue>)>, progress: &Arc<Progress>) -> anyhow::Result<Loaded> {
        let total = (self.duration.as_secs_f64() * f64::from(self.per_second)).round() as u64;
        // All connections stand before the first message is due: opening them is no part of what is measured.
        let opening =
            move || ways.into_iter().map(|(address, make)| Ok((open(address)?, make))).collect::<anyhow::Result<Vec<_>>>();
        let ways = tokio::task::spawn_blocking(opening).await??;
        let streams = ways.iter().map(|(stream, _)| stream.try_clone()).collect::<std::io::Result<Vec<_>>>()?;
        let lines = Arc::new(Lines {
            state: Mutex::new(State { free: (0..ways.len()).collect(), due: vec![Instant::now(); ways.len()], error: None }),
            changed: Condvar::new(),
            count: ways.len(),
        });
        let started = Instant::now() + LEAD;
        let reader = {
            let (lines, progress) = (lines.clone(), progress.clone());
            tokio::task::spawn_blocking(move || read_answers(streams, &lines, &progress))
        };
        let sender = Sender {
            interval: Duration::from_secs(1) / self.per_second.max(1),
            slack: if self.per_second <= ACTIVE_PER_SECOND_MAX { WAKE_SLACK } else { Duration::ZERO },
            ways,
            lines,
            progress: progress.clone(),
        };
        let sent = tokio::task::spawn_blocking(move || sender.run(started, total)).await?;
        let latencies = reader.await??;
        let elapsed = sent?;
        Ok(Loaded {
            acknowledged: progress.acknowledged.load(Ordering::Relaxed),
            refused: progress.refused.load(Ordering::Relaxed),
            elapsed,
            latencies,
        })
    }
}

/// The connections, by their numbers.
struct Lines {
    state: Mutex<State>,
    /// One has become free, or nothing can be measured any more.
    changed: Condvar,
    count: usize,
}

struct State {
    /// Free for longest first.
    free: VecDeque<usize>,
    /// When the request that is under way on each was meant to be sent.
    due: Vec<Instant>,
    error: Option<anyhow::Error>,
}

impl Lines {
    /// Waits for a free one.
    fn take(&self, due: Instant) -> anyhow::Result<usize> {
        let mut state = self.state.lock();
        loop {
            if let Some(error) = state.error.take() {
                return Err(error);
            }
            if let Some(line) = state.free.pop_front() {
                state.due[line] = due;
                return Ok(line);
            }
            self.wait(&mut state)?;
        }
    }

    fn wait_for_all(&self) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        while state.error.is_none() && state.free.len() < self.count {
            self.wait(&mut state)?;
        }
        state.error.take().map_or(Ok(()), Err)
    }

    fn wait(&self, state: &mut parking_lot::MutexGuard<'_, State>) -> anyhow::Result<()> {
        if self.changed.wait_for(state, ANSWER_TIMEOUT).timed_out() {
            bail!("no answer within {ANSWER_TIMEOUT:?}");
        }
        Ok(())
    }

    /// Its answer has come: since when that was waited for.
    fn answered(&self, line: usize) -> Instant {
        let mut state = self.state.lock();
        state.free.push_back(line);
        let due = state.due[line];
        drop(state);
        self.changed.notify_one();
        due
    }

    fn fail(&self, error: anyhow::Error) {
        self.state.lock().error.get_or_insert(error);
        self.changed.notify_one();
    }
}

struct Sender {
    ways: Vec<(TcpStream, Box<dyn MakeDue>)>,
    interval: Duration,
    /// Waited actively before a request is due.
    slack: Duration,
    lines: Arc<Lines>,
    progress: Arc<Progress>,
}

impl Sender {
    /// Sends so many requests, and waits for the last answer.
    fn run(mut self, started: Instant, total: u64) -> anyhow::Result<Duration> {
        let result = self.send_all(started, total).and_then(|()| self.lines.wait_for_all());
        let elapsed = started.elapsed();
        // Who reads is at the end then.
        self.ways.iter().for_each(|(stream, _)| drop(stream.shutdown(std::net::Shutdown::Both)));
        result.map(|()| elapsed)
    }

    fn send_all(&mut self, started: Instant, total: u64) -> anyhow::Result<()> {
        let started_nanos = now_nanos() + nanos(started.saturating_duration_since(Instant::now()));
        for sequence in 0..total {
            let offset = self.interval * u32::try_from(sequence).unwrap_or(u32::MAX);
            let due = started + offset;
            wait_until(due, self.slack);
            let line = self.lines.take(due)?;
            let (stream, requests) = &mut self.ways[line];
            let request = requests.make_due(started_nanos + nanos(offset), sequence);
            self.progress.sent.fetch_add(1, Ordering::Relaxed);
            send(stream, request)?;
        }
        Ok(())
    }
}

/// On a thread of its own, until all are closed.
fn read_answers(streams: Vec<TcpStream>, lines: &Arc<Lines>, progress: &Arc<Progress>) -> anyhow::Result<Latencies> {
    let latencies = Arc::new(Mutex::new(latency::latencies()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let readers: Vec<_> = (0..)
            .zip(streams)
            .map(|(line, stream)| {
                let reader = Reader { line, lines: lines.clone(), progress: progress.clone(), latencies: latencies.clone() };
                tokio::spawn(reader.run(stream))
            })
            .collect();
        for reader in readers {
            reader.await?;
        }
        anyhow::Ok(())
    })?;
    let latencies = latencies.lock().clone();
    Ok(latencies)
}

/// Reads the answers of one connection.
struct Reader {
    line: usize,
    lines: Arc<Lines>,
    progress: Arc<Progress>,
    latencies: Arc<Mutex<Latencies>>,
}

impl Reader {
    async fn run(self, stream: TcpStream) {
        if let Err(error) = self.read(stream).await {
            self.lines.fail(error);
        }
    }

    async fn read(&self, stream: TcpStream) -> anyhow::Result<()> {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut buffer = [0; ANSWER_BYTES];
        let mut end = 0;
        loop {
            stream.readable().await?;
            let count = match stream.try_read(&mut buffer[end..]) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                // Of use to nobody, if all has been answered.
                bail!("the server closed the connection");
            }
            end += count;
            let Some(answered) = parse_answer(&buffer[..end])? else { continue };
            end = 0;
            if !(200..300).contains(&answered.status) {
                bail!("the server answered {}", answered.status);
            }
            self.progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            let due = self.lines.answered(self.line);
            latency::record(&mut self.latencies.lock(), u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }
}

/// Without blocking, which nobody who also reads can have.
fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("the server cannot be reached")?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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

fn send(stream: &mut TcpStream, mut request: &[u8]) -> anyhow::Result<()> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while !request.is_empty() {
        match stream.write(request) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => request = &request[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => std::thread::sleep(NO_ROOM),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
