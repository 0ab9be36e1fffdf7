//! How many messages a second a store accepts and records: `cargo run --release --example store_bench`.
//!
//! Of the embedded store, or with `--database URL` of PostgreSQL: in that database, which should be empty.
//! With `grow 1000000` it fills one store and prints the rate as it grows. Each message of 630 bytes is accepted, and once it is durable its first tries are recorded as successes, as the engine does.
//! Prints, per fan-out, messages a second, microseconds of wall and processor time a message, and bytes on disk a message.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bellwire_core::{
    AppId, Attempt, AttemptId, AttemptStatus, Clock, EndpointId, IdGenerator, IdKind, Message, MessageId, ShardSet, SystemClock,
    Timestamp, Trigger,
};
use bellwire_store::postgres::{PostgresOptions, PostgresStore};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::{AttemptRecord, Cipher, CommitSink, DeliveryNext, DueCursor, NewMessage, NodeInfo, Store};
use bytes::Bytes;

/// Stands for the engine: every delivery succeeds (or fails) at once.
struct Echo {
    store: OnceLock<std::sync::Weak<dyn Store>>,
    ids: Arc<IdGenerator>,
    epoch: i64,
    recorded: AtomicU64,
    fails: AtomicBool,
}

impl CommitSink for Echo {
    fn accepted(&self, messages: &[Arc<NewMessage>], _local: &bellwire_core::ShardSet, _begun: Instant) {
        let Some(store) = self.store.get().and_then(std::sync::Weak::upgrade) else { return };
        let now = SystemClock.now();
        let fails = self.fails.load(Ordering::Relaxed);
        for new in messages {
            for endpoint in &new.endpoints {
                let attempt = Attempt {
                    id: self.ids.generate::<AttemptId>(now, [7; 12]),
                    message: new.message.id,
                    endpoint: *endpoint,
                    status: if fails { AttemptStatus::Fail } else { AttemptStatus::Success },
                    trigger: Trigger::Scheduled,
                    timestamp: now,
                    duration: Duration::from_millis(3),
                    response_status: if fails { 503 } else { 200 },
                    response: Bytes::from_static(b"ok"),
                    url: Arc::from("https://receiver.example/webhooks/bellwire"),
                };
                store.record_attempt(AttemptRecord {
                    message: new.message.id,
                    endpoint: *endpoint,
                    app: new.message.app,
                    attempt: Some(attempt),
                    next: if fails {
                        DeliveryNext::RetryAt { at: now.plus(Duration::from_secs(3_600)), tries: 1 }
                    } else {
                        DeliveryNext::Delivered
                    },
                    is_first_try: true,
                    epoch: self.epoch,
                });
            }
        }
    }

    fn requeued(&self, _: &[bellwire_store::DueDelivery]) {}
    fn fenced(&self, _: &[AttemptRecord]) {}
    fn recorded(&self, attempts: &[AttemptRecord]) {
        self.recorded.fetch_add(attempts.len() as u64, Ordering::Relaxed);
    }
}

/// User and system seconds of this process.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

struct Bench {
    dir: std::path::PathBuf,
    store: Arc<dyn Store>,
    ids: Arc<IdGenerator>,
    echo: Arc<Echo>,
}

impl Bench {
    async fn open(database: Option<&str>) -> Self {
        let dir = std::env::temp_dir().join(format!("bellwire-store-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let store = open_store(&dir, database).await;
        let ids = Arc::new(IdGenerator::new(store.last_key().await.unwrap()));
        let node = NodeInfo { name: "bench".to_owned(), is_worker: true, version: "0".to_owned(), address: String::new() };
        let membership = store.join(node, None).await.unwrap();
        ids.set_slot(membership.slot);
        store.claim_shards(ShardSet::ALL).await.unwrap();
        store.set_local(ShardSet::ALL).await.unwrap();
        let echo = Arc::new(Echo {
            store: OnceLock::new(),
            ids: ids.clone(),
            epoch: membership.epoch,
            recorded: AtomicU64::new(0),
            fails: AtomicBool::new(false),
        });
        let _ = echo.store.set(Arc::downgrade(&store));
        store.set_sink(echo.clone());
        Self { dir, store, ids, echo }
    }

    /// Accepts and records `messages`, `waiters` at a time; prints how that went.
    async fn run(&self, fan_out: usize, messages: u64, waiters: u64) {
        let now = SystemClock.now();
        let app: AppId = self.ids.generate(now, [1; 12]);
        let endpoints: Vec<EndpointId> = (0..fan_out).map(|_| self.ids.generate(now, [2; 12])).collect();
        let payload = Bytes::from(vec![b'x'; 630]);
        let before = self.store.report().await.unwrap();
        let recorded = self.echo.recorded.load(Ordering::Relaxed);
        let (started, processor) = (Instant::now(), processor_seconds());
        let tasks: Vec<_> = (0..waiters)
            .map(|waiter| {
                let (store, ids, endpoints, payload) = (self.store.clone(), self.ids.clone(), endpoints.clone(), payload.clone());
                tokio::spawn(async move {
                    for n in 0..messages / waiters {
                        let id: MessageId = ids.generate(SystemClock.now(), [(waiter ^ n) as u8; 12]);
                        let message = message(id, app, payload.clone());
                        let new = NewMessage { message, endpoints: endpoints.clone(), idempotency: None, app_version: None };
                        store.accept(Arc::new(new)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let total = messages / waiters * waiters;
        while self.echo.recorded.load(Ordering::Relaxed) - recorded < total * fan_out as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (seconds, processor) = (started.elapsed().as_secs_f64(), processor_seconds() - processor);
        let report = self.store.report().await.unwrap();
        println!(
            "fan-out {fan_out:>2}, {waiters:>3} waiting: {:>7.0} messages/s, {:>5.1} µs wall and {:>5.1} µs processor a message, \
             {:.1} items a commit, {} MB on disk",
            total as f64 / seconds,
            seconds / total as f64 * 1e6,
            processor / total as f64 * 1e6,
            (report.commit_items_total - before.commit_items_total) as f64 / (report.commits_total - before.commits_total) as f64,
            report.bytes_on_disk / 1_000_000,
        );
    }

    async fn close(self) {
        self.store.leave().await.unwrap();
        self.store.close().await.unwrap();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn open_store(dir: &std::path::Path, database: Option<&str>) -> Arc<dyn Store> {
    let cipher = Cipher::new([1; 32]);
    match database {
        Some(url) => PostgresStore::open(PostgresOptions::new(url, cipher)).await.unwrap(),
        None => SqliteStore::open(SqliteOptions::new(dir, cipher)).unwrap(),
    }
}

fn message(id: MessageId, app: AppId, payload: Bytes) -> Message {
    Message {
        id,
        app,
        event_type: "invoice.paid".to_owned(),
        event_id: None,
        payload: Some(payload),
        content_type: "application/json".to_owned(),
        channels: vec![],
        tags: vec![],
        created_at: id.created(),
        deliver_at: None,
        payload_expires_at: id.created().plus(Duration::from_secs(90 * 86_400)),
        origin: None,
    }
}

/// With `grow`: one store that grows to so many messages, with a tenth of them pending retries first. Else fresh stores.
#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    let database = arguments.next_if(|word| word == "--database").and_then(|_| arguments.next());
    let is_growing = arguments.next_if(|word| word == "grow").is_some();
    let messages: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    if is_growing {
        let bench = Bench::open(database.as_deref()).await;
        bench.run(1, messages / 20, 64).await;
        bench.echo.fails.store(true, Ordering::Relaxed);
        bench.run(1, messages / 10, 64).await;
        bench.echo.fails.store(false, Ordering::Relaxed);
        for _ in 0..20 {
            bench.run(1, messages / 20, 64).await;
        }
        if database.is_some() {
            // What is loaded comes with its application and endpoint, and these messages have none there.
            bench.close().await;
            return;
        }
        bench.store.close().await.unwrap();
        let started = Instant::now();
        let store = open_store(&bench.dir, None).await;
        store.last_key().await.unwrap();
        store.load_first_tries(None, None, 2_048).await.unwrap();
        let opened = started.elapsed();
        let (mut retries, mut after) = (0, None);
        loop {
            let page = store.load_retries(ShardSet::ALL, after, Timestamp(i64::MAX), 2_048).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(DueCursor { due_at: last.due_at, message: last.message, endpoint: last.endpoint });
            retries += page.len();
        }
        println!("opened again in {opened:.1?}, {retries} waiting retries read in {:.1?}", started.elapsed() - opened);
        drop(store);
        bench.close().await;
        return;
    }
    for (fan_out, messages, waiters) in [(1, messages, 64), (1, messages, 256), (10, messages / 4, 64), (1, messages / 20, 1)] {
        let bench = Bench::open(database.as_deref()).await;
        bench.run(fan_out, messages, waiters).await;
        bench.close().await;
    }
}
