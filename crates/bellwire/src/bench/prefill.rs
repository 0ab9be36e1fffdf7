//! Cost stays flat: the same phases on an empty store and on one that holds many messages and many waiting retries, and the
//! time from the start of the process to its first delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bellwire_core::{
    AppId, Application, ApplicationKind, Attempt, AttemptStatus, Clock as _, Endpoint, EndpointHealth, EndpointId, HeaderSet,
    IdGenerator, IdKind, Message, MessageId, Metadata, Secret, ShardSet, SigningSecret, SystemClock, Trigger,
};
use bellwire_store::{AttemptRecord, CommitSink, DeliveryNext, Membership, NewMessage, NodeInfo, Store, Written};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::ground::{Ground, Servers, StoreKind};
use super::latency::{median, ratio};
use super::payload::{Stamped, now_nanos};
use super::phase::Measured;
use super::run::Session;
use super::{Phase, report};
use crate::terminal::thousands;
use crate::{lifecycle, vault};

/// Accepts under way, and completions not yet durable.
const ACCEPTS_MAX: usize = 1_024;
const RECORDS_MAX: u64 = 8_192;
const RETENTION: Duration = Duration::from_secs(90 * 86_400);
/// Retries wait from one hour to one day: none comes due while the bench runs.
const RETRY_WAIT_S: (u64, u64) = (3_600, 86_400);
const FIRST_DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// From the last accept to the last record.
const RECORD_TIMEOUT: Duration = Duration::from_secs(60);

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
    pub store: StoreKind,
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
        median(self.of(phase).map(|pair| ratio(pair.filled_of_r, pair.empty_of_r)))
    }

    /// Median of filled over empty: processor time of server and database for one delivery, from claim to completion.
    pub fn cpu_ratio(&self, phase: Phase) -> f64 {
        median(self.of(phase).map(|pair| ratio(pair.filled.cpu_us_per_delivery(), pair.empty.cpu_us_per_delivery())))
    }

    pub fn of(&self, phase: Phase) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.phase == phase)
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
    let ground = session.ground(session.store()).await?;
    let started = Instant::now();
    fill(&ground, &session.receiver.url("/p/waiting"), messages, pending).await?;
    let fill_s = started.elapsed().as_secs_f64();
    ground.settle().await?;
    let mut flat = Flat { store: ground.store_kind(), messages, pending, fill_s, ..Flat::default() };
    flat.disk_bytes = ground.disk_bytes().await?;
    let mut token: Option<String> = None;
    for run in 1..=runs {
        let prefix = format!("/p/{}-restart/", session.tag());
        fill(&ground, &session.receiver.url(&format!("{prefix}0")), 1, 0).await?;
        let (filled, restart) = start_and_wait(session, &ground, token.as_deref(), &prefix).await?;
        report::note(&format!("run {run}: first delivery {restart:.2} s after the start of the process"));
        flat.restart_to_first_delivery_s.push(restart);
        token = filled.token().map(str::to_owned);
        let empty_ground = session.ground(session.store()).await?;
        let empty = empty_ground.start(1, None).await?;
        for (turn, phase) in [Phase::EndToEnd, Phase::FanOut].into_iter().enumerate() {
            // Who comes first takes turns: a machine that drifts drifts for both.
            let is_empty_first = (turn + run as usize).is_multiple_of(2);
            let order = if is_empty_first { [&empty, &filled] } else { [&filled, &empty] };
            let first_r = session.bare().await?;
            let first = session.on(&order[0].targets, flat.store, phase).await?;
            let middle_r = session.bare().await?;
            let second = session.on(&order[1].targets, flat.store, phase).await?;
            let last_r = session.bare().await?;
            let first_of_r = ratio(first.deliveries_per_s, (first_r + middle_r) / 2.0);
            let second_of_r = ratio(second.deliveries_per_s, (middle_r + last_r) / 2.0);
            flat.pairs.push(if is_empty_first {
                Pair { phase, empty: first, empty_of_r: first_of_r, filled: second, filled_of_r: second_of_r }
            } else {
                Pair { phase, empty: second, empty_of_r: second_of_r, filled: first, filled_of_r: first_of_r }
            });
        }
        filled.stop()?;
        empty.stop()?;
    }
    Ok(flat)
}

/// Starts the server on a store in which one message waits for its first try, and waits until that has arrived.
async fn start_and_wait(session: &Session, ground: &Ground, token: Option<&str>, prefix: &str) -> anyhow::Result<(Servers, f64)> {
    let (started, deadline) = (now_nanos(), Instant::now() + FIRST_DELIVERY_TIMEOUT);
    let server = ground.start(1, token).await?;
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
    fn accepted(&self, _: &[Arc<NewMessage>], _local: &bellwire_core::ShardSet, _begun: Instant) {}

    fn requeued(&self, _: &[bellwire_store::DueDelivery]) {}
    fn fenced(&self, _: &[AttemptRecord]) {}
    fn recorded(&self, attempts: &[AttemptRecord]) {
        self.recorded.fetch_add(attempts.len() as u64, Ordering::Release);
    }
}

/// Writes straight into the store, without a server: an application with one endpoint at `url`, and its messages. Of
/// `messages`, `pending` wait for a retry and the others are delivered; a lone message waits for its first try.
async fn fill(ground: &Ground, url: &str, messages: u64, pending: u64) -> anyhow::Result<()> {
    let store = ground.open().await?;
    let result = fill_as_member(&store, url, messages, pending).await;
    store.close().await?;
    result
}

/// What is recorded must be this node's to record: it joins, alone, and takes everything. Nobody is there to declare it dead.
async fn fill_as_member(store: &Arc<dyn Store>, url: &str, messages: u64, pending: u64) -> anyhow::Result<()> {
    let info = NodeInfo {
        name: "bench".to_owned(),
        is_worker: true,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: String::new(),
    };
    let membership = store.join(info, None).await?;
    store.claim_shards(ShardSet::ALL).await?;
    store.set_local(ShardSet::ALL).await?;
    let result = write_all(store, membership, url, messages, pending).await;
    store.set_local(ShardSet::EMPTY).await?;
    store.leave().await?;
    result
}

async fn write_all(store: &Arc<dyn Store>, membership: Membership, url: &str, messages: u64, pending: u64) -> anyhow::Result<()> {
    let ids = Arc::new(IdGenerator::new(store.last_key().await?));
    ids.set_slot(membership.slot);
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
        let record =
            (!is_first_try_left).then(|| record_of(&ids, membership.epoch, &message, url, number < pending)).transpose()?;
        let store = Arc::clone(store);
        tasks.spawn(async move {
            store.accept(Arc::new(message)).await?;
            if let Some(record) = record {
                store.record_attempt(record);
            }
            anyhow::Ok(())
        });
        handed_over += 1;
        let mut progress = (Instant::now(), sink.recorded.load(Ordering::Acquire));
        while handed_over - sink.recorded.load(Ordering::Acquire).min(handed_over) > RECORDS_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
            while let Some(done) = tasks.try_join_next() {
                done??;
            }
            let recorded = sink.recorded.load(Ordering::Acquire);
            if recorded > progress.1 {
                progress = (Instant::now(), recorded);
            } else if progress.0.elapsed() > RECORD_TIMEOUT {
                bail!("the store records nothing more: {recorded} of {handed_over} attempts");
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
    let deadline = Instant::now() + RECORD_TIMEOUT;
    while !is_first_try_left && sink.recorded.load(Ordering::Acquire) < messages {
        if Instant::now() > deadline {
            let recorded = sink.recorded.load(Ordering::Acquire);
            bail!("the store recorded {recorded} of {messages} attempts within {RECORD_TIMEOUT:?}");
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
        origin: None,
    };
    Ok(NewMessage { message, endpoints: vec![endpoint], idempotency: None, app_version: None })
}

fn record_of(ids: &IdGenerator, epoch: i64, new: &NewMessage, url: &str, is_waiting: bool) -> anyhow::Result<AttemptRecord> {
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
    Ok(AttemptRecord { message, endpoint, app: new.message.app, attempt: Some(attempt), next, is_first_try: true, epoch })
}
