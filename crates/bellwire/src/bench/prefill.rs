//! Cost stays flat: the same phases on an empty store and on one that holds many messages and many waiting retries, and the
//! time from the start of the process to its first delivery.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bellwire_core::{
    AppId, Application, ApplicationKind, Attempt, AttemptStatus, Clock as _, Endpoint, EndpointHealth, EndpointId, HeaderSet,
    IdGenerator, IdKind, Message, MessageId, Metadata, Secret, SigningSecret, SystemClock, Trigger,
};
use bellwire_engine::EngineConfig;
use bellwire_store::{AttemptRecord, CommitSink, DeliveryNext, NewMessage, Store, Written};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::latency::{median, ratio};
use super::payload::{Stamped, now_nanos};
use super::phase::Measured;
use super::run::Session;
use super::target::Server;
use super::{Phase, process, report};
use crate::terminal::thousands;
use crate::{lifecycle, vault};

/// Accepts under way, and completions not yet durable.
const ACCEPTS_MAX: usize = 1_024;
const RECORDS_MAX: u64 = 8_192;
const RETENTION: Duration = Duration::from_secs(90 * 86_400);
/// Retries wait from one hour to one day: none comes due while the bench runs.
const RETRY_WAIT_S: (u64, u64) = (3_600, 86_400);
const FIRST_DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// One phase on both stores, with R around each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pair {
    pub phase: Phase,
    pub empty: Measured,
    pub empty_of_r: f64,
    pub filled: Measured,
    pub filled_of_r: f64,
}

/// What the comparison came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Flat {
    pub messages: u64,
    pub pending: u64,
    pub fill_s: f64,
    pub disk_bytes: u64,
    pub pairs: Vec<Pair>,
    /// From starting the process to the first delivery's arrival, each run.
    pub restart_to_first_delivery_s: Vec<f64>,
}

impl Flat {
    /// Median of filled over empty, both as fractions of R.
    pub fn ratio(&self, phase: Phase) -> f64 {
        median(self.pairs.iter().filter(|pair| pair.phase == phase).map(|pair| ratio(pair.filled_of_r, pair.empty_of_r)))
    }
}

/// Fills a store, then compares, `runs` times.
///
/// # Errors
/// A process failed.
pub async fn compare(session: &Session, messages: u64, pending: u64, runs: u32) -> anyhow::Result<Flat> {
    if pending > messages {
        bail!("--pending {pending} is above --prefill {messages}");
    }
    let data_dir = session.folder.join("filled");
    std::fs::create_dir_all(&data_dir)?;
    let started = Instant::now();
    fill(&data_dir, &session.receiver.url("/p/waiting"), messages, pending).await?;
    let mut flat = Flat { messages, pending, fill_s: started.elapsed().as_secs_f64(), ..Flat::default() };
    flat.disk_bytes = process::disk_bytes(&data_dir);
    let mut token: Option<String> = None;
    for run in 1..=runs {
        let prefix = format!("/p/{}-restart/", session.tag());
        fill(&data_dir, &session.receiver.url(&format!("{prefix}0")), 1, 0).await?;
        let (filled, restart) = start_and_wait(session, &data_dir, token.as_deref(), &prefix).await?;
        report::note(&format!("run {run}: first delivery {restart:.2} s after the start of the process"));
        flat.restart_to_first_delivery_s.push(restart);
        token = Some(filled.target.token.clone());
        let empty_dir = session.folder.join(session.tag());
        std::fs::create_dir_all(&empty_dir)?;
        let empty = Server::start(&empty_dir, None)?;
        for phase in [Phase::EndToEnd, Phase::FanOut] {
            let r = [session.bare().await?];
            let on_empty = session.on(&empty.target, Some(empty_dir.clone()), phase).await?;
            let r = [r[0], session.bare().await?];
            let on_filled = session.on(&filled.target, Some(data_dir.clone()), phase).await?;
            let last = session.bare().await?;
            flat.pairs.push(Pair {
                phase,
                empty_of_r: ratio(on_empty.deliveries_per_s, (r[0] + r[1]) / 2.0),
                filled_of_r: ratio(on_filled.deliveries_per_s, (r[1] + last) / 2.0),
                empty: on_empty,
                filled: on_filled,
            });
        }
        filled.stop()?;
        empty.stop()?;
        std::fs::remove_dir_all(&empty_dir)?;
    }
    Ok(flat)
}

/// Starts the server on a store in which one message waits for its first try, and waits until that has arrived.
async fn start_and_wait(session: &Session, data_dir: &Path, token: Option<&str>, prefix: &str) -> anyhow::Result<(Server, f64)> {
    let (started, deadline) = (now_nanos(), Instant::now() + FIRST_DELIVERY_TIMEOUT);
    let server = Server::start(data_dir, token)?;
    loop {
        let arrivals = session.receiver.count(prefix).await?;
        if arrivals.arrived > 0 {
            return Ok((server, arrivals.first_nanos.saturating_sub(started) as f64 / 1e9));
        }
        if Instant::now() > deadline {
            bail!("no delivery within {FIRST_DELIVERY_TIMEOUT:?} of the start");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts what has become durable.
#[derive(Default)]
struct Counting {
    recorded: AtomicU64,
}

impl CommitSink for Counting {
    fn accepted(&self, _: &[Arc<NewMessage>], _local: &bellwire_core::ShardSet) {}

    fn requeued(&self, _: &[bellwire_store::DueDelivery]) {}
    fn fenced(&self, _: &[AttemptRecord]) {}
    fn recorded(&self, attempts: &[AttemptRecord]) {
        self.recorded.fetch_add(attempts.len() as u64, Ordering::Release);
    }
}

/// Writes straight into the store, without a server: an application with one endpoint at `url`, and its messages. Of
/// `messages`, `pending` wait for a retry and the others are delivered; a lone message waits for its first try.
async fn fill(data_dir: &Path, url: &str, messages: u64, pending: u64) -> anyhow::Result<()> {
    let store = vault::open(data_dir, &vault::master_key(data_dir, data_dir, None)?, EngineConfig::default().retention)?;
    let result = write_all(&store, url, messages, pending).await;
    store.close().await?;
    result
}

async fn write_all(store: &Arc<dyn Store>, url: &str, messages: u64, pending: u64) -> anyhow::Result<()> {
    let ids = Arc::new(IdGenerator::new(store.last_key().await?));
    let sink = Arc::new(Counting::default());
    store.set_sink(Arc::clone(&sink) as Arc<dyn CommitSink>);
    let (app, endpoint) = set_up(store, &ids, url).await?;
    let is_first_try_left = messages == 1;
    let mut payload = Stamped::payload();
    let (mut tasks, mut handed_over) = (JoinSet::new(), 0);
    for number in 0..messages {
        if tasks.len() >= ACCEPTS_MAX {
            tasks.join_next().await.context("a task")???;
        }
        let message = new_message(&ids, app, endpoint, payload.stamp(now_nanos(), number).to_vec())?;
        let record = (!is_first_try_left).then(|| record_of(&ids, &message, url, number < pending)).transpose()?;
        let store = Arc::clone(store);
        tasks.spawn(async move {
            store.accept(Arc::new(message)).await?;
            if let Some(record) = record {
                store.record_attempt(record);
            }
            anyhow::Ok(())
        });
        handed_over += 1;
        while handed_over - sink.recorded.load(Ordering::Acquire).min(handed_over) > RECORDS_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
            while let Some(done) = tasks.try_join_next() {
                done??;
            }
        }
        if number % 20_000 == 0 && messages > 1 {
            report::progress(&format!("filling: {} of {} messages", thousands(number), thousands(messages)));
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    report::progress_end();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_first_try_left && sink.recorded.load(Ordering::Acquire) < messages {
        if Instant::now() > deadline {
            bail!("the store did not record everything");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn set_up(store: &Arc<dyn Store>, ids: &IdGenerator, url: &str) -> anyhow::Result<(AppId, EndpointId)> {
    let now = SystemClock.now();
    let (app, endpoint): (AppId, EndpointId) = (ids.generate(now, vault::random()?), ids.generate(now, vault::random()?));
    let application = Application {
        id: app,
        org: lifecycle::default_org()?,
        kind: ApplicationKind::Customer,
        uid: None,
        name: "filled".to_owned(),
        throttle_rate: None,
        metadata: Metadata::new(),
        created_at: now,
        updated_at: now,
    };
    let Written::Fresh(_) = store.create_application(application, None).await? else { bail!("an application was replayed") };
    let secret = bellwire_verify::Secret::generate(vault::random()?).expose();
    let endpoint_record = Endpoint {
        id: endpoint,
        app,
        uid: None,
        url: url.to_owned(),
        description: String::new(),
        event_types: None,
        channels: None,
        throttle_rate: None,
        disabled: false,
        metadata: Metadata::new(),
        headers: HeaderSet::default(),
        secret: SigningSecret { current: Secret::new(secret), old: Vec::new() },
        health: EndpointHealth::default(),
        created_at: now,
        updated_at: now,
    };
    let Written::Fresh(_) = store.create_endpoint(endpoint_record, None).await? else { bail!("an endpoint was replayed") };
    Ok((app, endpoint))
}

fn new_message(ids: &IdGenerator, app: AppId, endpoint: EndpointId, payload: Vec<u8>) -> anyhow::Result<NewMessage> {
    let now = SystemClock.now();
    let id: MessageId = ids.generate(now, vault::random()?);
    let message = Message {
        id,
        app,
        event_type: "invoice.paid".to_owned(),
        event_id: None,
        payload: Some(payload.into()),
        content_type: "application/json".to_owned(),
        channels: Vec::new(),
        tags: Vec::new(),
        created_at: id.created(),
        deliver_at: None,
        payload_expires_at: now.plus(RETENTION),
    };
    Ok(NewMessage { message, endpoints: vec![endpoint], idempotency: None, app_version: None })
}

fn record_of(ids: &IdGenerator, new: &NewMessage, url: &str, is_waiting: bool) -> anyhow::Result<AttemptRecord> {
    let now = SystemClock.now();
    let (message, endpoint) = (new.message.id, new.endpoints[0]);
    let spread = message.key().unsigned_abs() % (RETRY_WAIT_S.1 - RETRY_WAIT_S.0);
    let attempt = Attempt {
        id: ids.generate(now, vault::random()?),
        message,
        endpoint,
        status: if is_waiting { AttemptStatus::Fail } else { AttemptStatus::Success },
        trigger: Trigger::Scheduled,
        timestamp: now,
        duration: Duration::from_millis(3),
        response_status: if is_waiting { 503 } else { 200 },
        response: bytes::Bytes::new(),
        url: url.into(),
    };
    let next = if is_waiting {
        DeliveryNext::RetryAt { at: now.plus(Duration::from_secs(RETRY_WAIT_S.0 + spread)), tries: 1 }
    } else {
        DeliveryNext::Delivered
    };
    Ok(AttemptRecord { message, endpoint, app: new.message.app, attempt: Some(attempt), next, is_first_try: true, epoch: 0 })
}
