//! The receiving process of the bench (the hidden command `bench-receiver`): answers 200, counts, and measures how long each
//! message was under way. Reports over HTTP on the same address.
//!
//! `/p/<name>` counts, `/fail/<name>` counts and answers 500, `/hang/<name>` never answers; `/stats?<prefix>` sums up all
//! paths that begin with the prefix, `/count?<prefix>` the same without latencies, `/clear?<prefix>` forgets them.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use super::latency::{self, Latencies, Quantiles};
use super::payload::{now_nanos, read_stamp};
use crate::receiver::{Answer, Incoming, Reply, serve_connection};

/// Paths told apart: a bench run makes some hundreds.
const PATHS_MAX: usize = 10_000;
/// Sequence numbers remembered for each path, to tell duplicates (8 MiB of bits).
const SEQUENCES_MAX: u64 = 64 * 1024 * 1024;

/// What arrived under a prefix.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Arrivals {
    /// Requests, repetitions included.
    pub arrived: u64,
    /// Different messages (for each path).
    pub unique: u64,
    pub first_nanos: u64,
    pub last_nanos: u64,
    /// From being published to being here. Empty for `/count`.
    pub latency: Quantiles,
}

struct PathStats {
    arrived: u64,
    unique: u64,
    first_nanos: u64,
    last_nanos: u64,
    latencies: Latencies,
    seen: Vec<u64>,
}

impl PathStats {
    fn record(&mut self, now: u64, body: &[u8], hint: &mut usize) {
        self.arrived += 1;
        self.last_nanos = now;
        if self.first_nanos == 0 {
            self.first_nanos = now;
        }
        let Some(stamp) = read_stamp(body, hint) else { return };
        latency::record(&mut self.latencies, now.saturating_sub(stamp.sent_nanos) / 1_000);
        let sequence = stamp.sequence.min(SEQUENCES_MAX - 1);
        let (word, bit) = ((sequence / 64) as usize, 1u64 << (sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.unique += 1;
        }
    }
}

type Paths = Arc<Mutex<HashMap<String, Arc<Mutex<PathStats>>>>>;

/// One connection. Deliveries of an endpoint come over their own, so the path is looked up once.
struct Counting {
    paths: Paths,
    last: Option<(String, Arc<Mutex<PathStats>>)>,
    hint: usize,
}

impl Answer for Counting {
    fn answer(&mut self, request: &Incoming<'_>) -> Reply {
        let now = now_nanos();
        if !request.path.starts_with("/p/")
            && let Some(reply) = self.report(request.path)
        {
            return reply;
        }
        let Some(stats) = self.stats(request.path) else { return Reply::Status(507) };
        stats.lock().record(now, request.body, &mut self.hint);
        match request.path.split('/').nth(1) {
            Some("fail") => Reply::Status(500),
            Some("hang") => Reply::Hang,
            _ => Reply::Ok,
        }
    }
}

impl Counting {
    fn stats(&mut self, path: &str) -> Option<Arc<Mutex<PathStats>>> {
        if let Some((last, stats)) = &self.last
            && last == path
        {
            return Some(Arc::clone(stats));
        }
        let mut paths = self.paths.lock();
        let stats = match paths.get(path) {
            Some(stats) => Arc::clone(stats),
            None if paths.len() >= PATHS_MAX => return None,
            None => {
                let latencies = latency::latencies().ok()?;
                let stats = PathStats { arrived: 0, unique: 0, first_nanos: 0, last_nanos: 0, latencies, seen: Vec::new() };
                Arc::clone(paths.entry(path.to_owned()).or_insert(Arc::new(Mutex::new(stats))))
            }
        };
        self.last = Some((path.to_owned(), Arc::clone(&stats)));
        Some(stats)
    }

    /// Forgets what arrived below a prefix.
    fn clear(&self, prefix: &str) -> Reply {
        for (_, stats) in self.paths.lock().iter().filter(|(path, _)| path.starts_with(prefix)) {
            let mut stats = stats.lock();
            (stats.arrived, stats.unique, stats.first_nanos, stats.last_nanos) = (0, 0, 0, 0);
            stats.latencies.reset();
            stats.seen.clear();
        }
        Reply::Json("{}".to_owned())
    }

    fn report(&self, path: &str) -> Option<Reply> {
        let (prefix, with_latency) = match path.split_once('?')? {
            ("/stats", prefix) => (prefix, true),
            ("/count", prefix) => (prefix, false),
            ("/clear", prefix) => return Some(self.clear(prefix)),
            _ => return None,
        };
        let paths: Vec<_> = {
            let paths = self.paths.lock();
            paths.iter().filter(|(path, _)| path.starts_with(prefix)).map(|(_, stats)| Arc::clone(stats)).collect()
        };
        let (mut sum, mut all) = (Arrivals::default(), latency::latencies().ok()?);
        for stats in paths {
            let stats = stats.lock();
            sum.arrived += stats.arrived;
            sum.unique += stats.unique;
            sum.last_nanos = sum.last_nanos.max(stats.last_nanos);
            if sum.first_nanos == 0 || (stats.first_nanos != 0 && stats.first_nanos < sum.first_nanos) {
                sum.first_nanos = stats.first_nanos;
            }
            if with_latency {
                all.add(&stats.latencies).ok()?;
            }
        }
        sum.latency = Quantiles::of(&all);
        serde_json::to_string(&sum).ok().map(Reply::Json)
    }
}

/// Runs until standard input closes: it lives no longer than the bench that started it. Prints its address first.
///
/// # Errors
/// The address cannot be bound.
pub fn run(bind: SocketAddr, threads: usize) -> anyhow::Result<()> {
    let paths = Paths::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(bind).await.with_context(|| format!("the receiver cannot listen at {bind}"))?;
        {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", listener.local_addr()?)?;
            out.flush()?;
        }
        exit_with_parent();
        let workers = start_workers(threads.saturating_sub(1), &paths)?;
        let mut turn = 0;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors: there will be some when connections close.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            };
            turn = (turn + 1) % (workers.len() + 1);
            match workers.get(turn) {
                Some(worker) => drop(worker.send(stream.into_std()?).await),
                None => serve(stream, &paths),
            }
        }
    })
}

fn serve(stream: TcpStream, paths: &Paths) {
    let counting = Counting { paths: Arc::clone(paths), last: None, hint: 0 };
    // A connection that breaks is the other side's matter; the loader sees and reports it.
    tokio::spawn(async move { drop(serve_connection(stream, counting).await) });
}

/// Connections on their way to a worker.
const HANDOVER_MAX: usize = 1_024;

fn start_workers(count: usize, paths: &Paths) -> anyhow::Result<Vec<tokio::sync::mpsc::Sender<std::net::TcpStream>>> {
    let start = |_| {
        let (sender, mut streams) = tokio::sync::mpsc::channel::<std::net::TcpStream>(HANDOVER_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let paths = Arc::clone(paths);
        std::thread::Builder::new().name("receive".to_owned()).spawn(move || {
            runtime.block_on(async move {
                while let Some(stream) = streams.recv().await {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        serve(stream, &paths);
                    }
                }
            });
        })?;
        Ok(sender)
    };
    (0..count).map(start).collect()
}

/// Ends the process when the pipe from the parent closes, however the parent ended.
pub fn exit_with_parent() {
    let watch = || {
        let mut byte = [0; 64];
        while std::io::Read::read(&mut std::io::stdin(), &mut byte).is_ok_and(|count| count > 0) {}
        std::process::exit(0);
    };
    drop(std::thread::Builder::new().name("parent".to_owned()).spawn(watch));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::bench::payload::Stamped;

    fn post(counting: &mut Counting, path: &str, body: &[u8]) -> Reply {
        counting.answer(&Incoming { path, headers: &[], body })
    }

    fn stats(counting: &mut Counting, prefix: &str) -> Arrivals {
        let Reply::Json(text) = post(counting, &format!("/stats?{prefix}"), b"") else { panic!("no report") };
        serde_json::from_str(&text).unwrap()
    }

    /// Broken: repeated deliveries count as throughput, or one phase's arrivals as another's.
    #[test]
    fn arrivals_are_counted_by_path_and_repetitions_told_apart() {
        let mut counting = Counting { paths: Paths::default(), last: None, hint: 0 };
        let mut payload = Stamped::payload();
        for sequence in [0, 1, 1, 70] {
            post(&mut counting, "/p/a/1", payload.stamp(now_nanos() - 5_000_000, sequence));
        }
        assert!(matches!(post(&mut counting, "/fail/b", payload.stamp(1, 1)), Reply::Status(500)));
        assert!(matches!(post(&mut counting, "/hang/c", b"{}"), Reply::Hang));
        post(&mut counting, "/p/a/2", payload.stamp(now_nanos() - 5_000_000, 1));
        let seen = stats(&mut counting, "/p/a/");
        assert_eq!((seen.arrived, seen.unique, seen.latency.samples), (5, 4, 5));
        assert!(seen.latency.p50_ms >= 4.9 && seen.latency.p50_ms < 1_000.0, "{seen:?}");
        assert_eq!(stats(&mut counting, "/fail/").arrived, 1);
        assert_eq!(stats(&mut counting, "/p/z").arrived, 0);
        post(&mut counting, "/clear?/p/a/", b"");
        let cleared = stats(&mut counting, "/p/a/");
        assert_eq!((cleared.arrived, cleared.unique, cleared.latency.samples), (0, 0, 0));
        post(&mut counting, "/p/a/1", payload.stamp(now_nanos(), 1));
        assert_eq!(stats(&mut counting, "/p/a/").unique, 1);
    }
}
