//! How many messages a second the embedded store accepts and records: `cargo run --release --example store_bench`.
//!
//! Each message of 630 bytes is accepted, and once it is durable its first tries are recorded as successes, as the engine does.
//! Prints, per fan-out, messages a second, microseconds of wall and processor time a message, and bytes on disk a message.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bellwire_core::{
    AppId, Attempt, AttemptId, AttemptStatus, Clock, EndpointId, IdGenerator, IdKind, Message, MessageId, SystemClock, Trigger,
};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::{
    AttemptRecord, Cipher, CommitSink, DeliveryNext, DeliveryStore, MaintenanceStore, MessageStore, NewMessage,
};
use bytes::Bytes;

/// Stands for the engine: every delivery succeeds at once.
struct Echo {
    store: OnceLock<std::sync::Weak<SqliteStore>>,
    ids: Arc<IdGenerator>,
    recorded: AtomicU64,
}

impl CommitSink for Echo {
    fn accepted(&self, messages: &[Arc<NewMessage>]) {
        let Some(store) = self.store.get().and_then(std::sync::Weak::upgrade) else { return };
        let now = SystemClock.now();
        for new in messages {
            for endpoint in &new.endpoints {
                let attempt = Attempt {
                    id: self.ids.generate::<AttemptId>(now, [7; 12]),
                    message: new.message.id,
                    endpoint: *endpoint,
                    status: AttemptStatus::Success,
                    trigger: Trigger::Scheduled,
                    timestamp: now,
                    duration: Duration::from_millis(3),
                    response_status: 200,
                    response: Bytes::from_static(b"ok"),
                    url: Arc::from("https://receiver.example/webhooks/bellwire"),
                };
                store.record_attempt(AttemptRecord {
                    message: new.message.id,
                    endpoint: *endpoint,
                    app: new.message.app,
                    attempt: Some(attempt),
                    next: DeliveryNext::Delivered,
                    is_first_try: true,
                });
            }
        }
    }

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

async fn run(fan_out: usize, messages: u64, waiters: u64) {
    let dir = std::env::temp_dir().join(format!("bellwire-store-bench-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let store = SqliteStore::open(SqliteOptions::new(&dir, Cipher::new([1; 32]))).unwrap();
    let ids = Arc::new(IdGenerator::new(0));
    let echo = Arc::new(Echo { store: OnceLock::new(), ids: ids.clone(), recorded: AtomicU64::new(0) });
    let _ = echo.store.set(Arc::downgrade(&store));
    store.set_sink(echo.clone());
    let now = SystemClock.now();
    let app: AppId = ids.generate(now, [1; 12]);
    let endpoints: Vec<EndpointId> = (0..fan_out).map(|_| ids.generate(now, [2; 12])).collect();
    let payload = Bytes::from(vec![b'x'; 630]);
    let (started, processor) = (Instant::now(), processor_seconds());
    let tasks: Vec<_> = (0..waiters)
        .map(|waiter| {
            let (store, ids, endpoints, payload) = (store.clone(), ids.clone(), endpoints.clone(), payload.clone());
            tokio::spawn(async move {
                for n in 0..messages / waiters {
                    let now = SystemClock.now();
                    let id: MessageId = ids.generate(now, [(waiter ^ n) as u8; 12]);
                    let message = Message {
                        id,
                        app,
                        event_type: "invoice.paid".to_owned(),
                        event_id: None,
                        payload: Some(payload.clone()),
                        content_type: "application/json".to_owned(),
                        channels: vec![],
                        tags: vec![],
                        created_at: id.created(),
                        deliver_at: None,
                        payload_expires_at: id.created().plus(Duration::from_secs(90 * 86_400)),
                    };
                    store
                        .accept(Arc::new(NewMessage { message, endpoints: endpoints.clone(), idempotency: None }))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let total = messages / waiters * waiters;
    while echo.recorded.load(Ordering::Relaxed) < total * fan_out as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (seconds, processor) = (started.elapsed().as_secs_f64(), processor_seconds() - processor);
    let report = store.report().await.unwrap();
    println!(
        "fan-out {fan_out:>2}, {waiters:>3} waiting: {:>7.0} messages/s, {:>5.1} µs wall and {:>5.1} µs processor a message, {:>5} B on disk a message, {:.1} items a commit",
        total as f64 / seconds,
        seconds / total as f64 * 1e6,
        processor / total as f64 * 1e6,
        report.bytes_on_disk / total,
        report.commit_items_total as f64 / report.commits_total as f64,
    );
    store.close().await.unwrap();
    drop(store);
    let _ = std::fs::remove_dir_all(&dir);
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let messages: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200_000);
    run(1, messages, 64).await;
    run(1, messages, 256).await;
    run(10, messages / 4, 64).await;
    run(1, messages / 20, 1).await;
}
