//! The phase `receive`: pushes of GitHub, as large as its own, come to the public URL of a source. No endpoint is attached: what is
//! measured ends with the acknowledgement, which is given after the commit. First closed loop, then half of the rate that this came
//! to, open loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bellwire_verify::{Credentials, Presets, Request, fixtures};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::gentle::{MakeDue, OpenLoop};
use super::latency::{Quantiles, median};
use super::load::{ClosedLoop, MakeRequest, Progress};
use super::payload::write_digits;
use super::phase::{Bench, Measured, Watch};
use super::push;
use super::target::Target;

const NAME: &str = "receive";
const IN_FLIGHT: usize = 64;
/// Connections of the open loop. Requests that wait for a free one are late, and that counts; with so many, few wait.
const OPEN_CONNECTIONS: usize = 128;
/// Signed before anything is measured: so many commits are pushed again and again. Only the id of the delivery is new with every
/// request: GitHub's signature does not cover it, and the source knows a repeated event by it.
const POOL: usize = 512;
const SECRET: &str = "8f3a1c5d7e9b0246813579bdf0246813579bdf02468ace13579bdf02468ace13";
/// A delivery's id; its first and its last digits are written anew for every request.
const DELIVERY: &str = "00000000-ea1e-11f0-8d1e-000000000000";
const ROUND_DIGITS: usize = 8;
const SEQUENCE_DIGITS: usize = 12;

/// The open loop at half of the rate of the closed one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HalfRate {
    pub per_second: f64,
    pub messages: u64,
    /// From the moment a request was meant to be sent.
    pub acknowledge: Quantiles,
}

impl HalfRate {
    /// Each value's median over runs; `None` if there are none.
    pub fn median(runs: &[&Self]) -> Option<Self> {
        runs.first()?;
        Some(Self {
            per_second: median(runs.iter().map(|run| run.per_second)),
            messages: median(runs.iter().map(|run| run.messages as f64)) as u64,
            acknowledge: Quantiles::median(&runs.iter().map(|run| run.acknowledge).collect::<Vec<_>>()),
        })
    }
}

/// A signed request, complete.
#[derive(Clone, Debug)]
struct Push {
    bytes: Vec<u8>,
    /// Where the delivery's id stands.
    at: usize,
}

impl Push {
    /// A push of commit number `commit` to `path`.
    fn sign(authority: &str, path: &str, commit: usize) -> anyhow::Result<Self> {
        let fixture = fixtures::for_provider("github").find(|fixture| fixture.event() == "push");
        let fixture = fixture.context("there is no example of a push")?;
        let body = push::body(&format!("{commit:040x}"));
        let mut headers: Vec<(&str, &[u8])> = fixture.headers().map(|(name, value)| (name, value.as_bytes())).collect();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-github-delivery"));
        headers.push(("X-GitHub-Delivery", DELIVERY.as_bytes()));
        let url = format!("http://{authority}{path}");
        let request = Request { method: "POST", url: &url, headers: &headers, body: body.as_bytes(), peer: None };
        let preset = Presets::builtin().get("github").context("there is no preset of GitHub")?;
        let signed = preset
            .sign(&request, &Credentials::secret(SECRET), 0)
            .map_err(|refusal| anyhow::anyhow!("a push cannot be signed: {refusal:?}"))?;
        let mut bytes = format!("POST {path} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
        for (name, value) in &signed.headers {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", signed.body.len()).as_bytes());
        let delivery = bytes.windows(DELIVERY.len()).position(|part| part == DELIVERY.as_bytes());
        let at = delivery.context("a push without the id of its delivery")?;
        bytes.extend_from_slice(&signed.body);
        Ok(Self { bytes, at })
    }

    fn stamp(&mut self, round: u64, sequence: u64) -> &[u8] {
        let field = &mut self.bytes[self.at..self.at + DELIVERY.len()];
        write_digits(&mut field[..ROUND_DIGITS], round);
        write_digits(&mut field[DELIVERY.len() - SEQUENCE_DIGITS..], sequence);
        &self.bytes
    }
}

/// One connection's pushes, in turn.
struct Pushes {
    pool: Vec<Push>,
    next: usize,
    /// Tells the deliveries of one loop from those of the other.
    round: u64,
}

impl Pushes {
    fn push(&mut self, sequence: u64) -> &[u8] {
        let at = self.next;
        self.next = (at + 1) % self.pool.len();
        self.pool[at].stamp(self.round, sequence)
    }
}

impl MakeRequest for Pushes {
    fn make(&mut self, sequence: u64) -> &[u8] {
        self.push(sequence)
    }
}

impl MakeDue for Pushes {
    fn make_due(&mut self, _: u64, sequence: u64) -> &[u8] {
        self.push(sequence)
    }
}

/// The pool, divided among connections.
struct Pool<'a> {
    targets: &'a [Target],
    pushes: Vec<Push>,
}

impl<'a> Pool<'a> {
    fn sign(targets: &'a [Target], path: &str) -> anyhow::Result<Self> {
        if targets.is_empty() {
            bail!("nobody to push to");
        }
        // As the connections are: number by number to one node after the other.
        let authority = |number: usize| targets[number % targets.len()].authority.as_str();
        let pushes = (0..POOL).map(|number| Push::sign(authority(number), path, number)).collect::<anyhow::Result<_>>()?;
        Ok(Self { targets, pushes })
    }

    fn of(&self, connection: usize, connections: usize, round: u64) -> (SocketAddr, Pushes) {
        let pool = self.pushes.iter().skip(connection).step_by(connections).cloned().collect();
        (self.targets[connection % self.targets.len()].address, Pushes { pool, next: 0, round })
    }
}

/// Creates a source, loads it, and looks whether everything was taken for new.
///
/// # Errors
/// The server failed, or took a push for something else.
pub async fn run(bench: &Bench<'_>, duration: Duration) -> anyhow::Result<Measured> {
    let first = bench.targets.first().context("nobody to measure")?;
    let body = json!({ "name": NAME, "type": "github", "config": { "secret": SECRET } });
    let source = first.call("POST", "/ingest/api/v1/source", Some(&body)).await?;
    let field = |name: &str| source.get(name).and_then(Value::as_str).with_context(|| format!("a source without {name:?}"));
    // Only the path: the URL that is shown may be that of a proxy, or of another node.
    let path = Url::parse(field("ingestUrl")?)?.path().to_owned();
    let pool = Pool::sign(bench.targets, &path)?;

    let progress = Arc::new(Progress::default());
    let watch = Watch::start(NAME, &format!("/p/{}-{NAME}/", bench.tag), 0, bench, &progress);
    let before = bench.cpu();
    let started = Instant::now();
    let load = ClosedLoop { in_flight: IN_FLIGHT, duration, threads: bench.threads };
    let way = |number: usize| {
        let (address, pushes) = pool.of(number, IN_FLIGHT, 1);
        (address, Box::new(pushes) as Box<dyn MakeRequest>)
    };
    let loaded = load.run(&progress, way).await?;
    let (wall, after) = (started.elapsed(), bench.cpu());
    let resident_bytes_max = watch.seen.resident_bytes_max.load(Ordering::Relaxed);
    drop(watch);

    let messages_per_s = loaded.acknowledged as f64 / wall.as_secs_f64();
    let half_rate = at_half(&pool, messages_per_s, duration).await?;
    let is_recorded = all_were_new(first, field("id")?, bench.is_ours).await?;
    Ok(Measured {
        messages: loaded.acknowledged,
        refused: loaded.refused,
        first_error: progress.first_error.lock().clone(),
        wall_s: wall.as_secs_f64(),
        is_recorded,
        messages_per_s,
        acknowledge: Quantiles::of(&loaded.latencies),
        server_cpu_s: after.server - before.server,
        database_cpu_s: after.database - before.database,
        loader_cpu_s: after.loader - before.loader,
        receiver_cpu_s: after.receiver - before.receiver,
        resident_bytes_max,
        half_rate: Some(half_rate),
        ..Measured::default()
    })
}

async fn at_half(pool: &Pool<'_>, messages_per_s: f64, duration: Duration) -> anyhow::Result<HalfRate> {
    let per_second = ((messages_per_s / 2.0) as u32).max(1);
    let ways = (0..OPEN_CONNECTIONS).map(|number| {
        let (address, pushes) = pool.of(number, OPEN_CONNECTIONS, 2);
        (address, Box::new(pushes) as Box<dyn MakeDue>)
    });
    let progress = Arc::new(Progress::default());
    let loaded = OpenLoop { per_second, duration }.send(ways.collect(), &progress).await?;
    Ok(HalfRate {
        per_second: f64::from(per_second),
        messages: loaded.acknowledged,
        acknowledge: Quantiles::of(&loaded.latencies),
    })
}

/// A duplicate is answered as a message is; only the log of the source, where messages do not stand, tells them apart. False: the
/// server has no such log.
async fn all_were_new(target: &Target, source: &str, is_ours: bool) -> anyhow::Result<bool> {
    let log = match target.call("GET", &format!("/api/v1/source/{source}/log"), None).await {
        Ok(log) => log,
        Err(_) if !is_ours => return Ok(false),
        Err(error) => return Err(error),
    };
    let entries = log.get("data").and_then(Value::as_array).context("a log without \"data\"")?;
    match entries.iter().find(|entry| entry.get("reason").is_some_and(|reason| reason == "duplicate")) {
        Some(entry) => bail!("a push was taken for a duplicate: {entry}"),
        None => Ok(true),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Broken: the bench measures how fast pushes are refused, or how fast duplicates are recognised.
    #[test]
    fn every_push_is_genuine_and_a_delivery_of_its_own() {
        let pool = (0..3).map(|commit| Push::sign("127.0.0.1:1", "/in/x", commit).unwrap()).collect();
        let mut pushes = Pushes { pool, next: 0, round: 2 };
        let preset = Presets::builtin().get("github").unwrap();
        let mut ids = HashSet::new();
        for sequence in 0..7 {
            let bytes = pushes.push(sequence).to_vec();
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut parsed = httparse::Request::new(&mut headers);
            let httparse::Status::Complete(head) = parsed.parse(&bytes).unwrap() else { panic!("no complete head") };
            let headers: Vec<(&str, &[u8])> = parsed.headers.iter().map(|header| (header.name, header.value)).collect();
            let request = Request { method: "POST", url: "/in/x", headers: &headers, body: &bytes[head..], peer: None };
            assert!(preset.verify(&request, &Credentials::secret(SECRET), 0).is_ok());
            assert!(preset.verify(&request, &Credentials::secret("another"), 0).is_err());
            ids.insert(headers.iter().find(|(name, _)| *name == "X-GitHub-Delivery").unwrap().1.to_vec());
        }
        assert_eq!(ids.len(), 7);
        assert!(ids.contains(&b"00000002-ea1e-11f0-8d1e-000000000006"[..]));
    }
}
