//! The pipe, one file a step, in the order a message takes:
//!
//! | step | file | invariant |
//! |---|---|---|
//! | ingest | `ingest.rs` | what is answered is durable |
//! | fan out | `fan_out.rs` | decided once, before the message is stored, and stored with it |
//! | queue | `queue.rs`, `retries.rs`, `scheduler/` | whatever is unfinished is in memory, or the store is known to have more |
//! | sign | `sign.rs` | the signature covers the exact bytes sent, with every key valid now |
//! | deliver | `deliver.rs`, `route.rs`, `pool.rs`, `transport/` | every job taken ends in exactly one record |
//! | record | `record.rs` | an attempt and its next due time commit together |
//! | retry | `retry.rs`, `recover.rs` | nothing unfinished is forgotten |
//! | share | `shards/` | one node at a time delivers to an endpoint, and knows everything unfinished of it |
//!
//! Beside it: `operational.rs` (Bellwire's own events), `maintenance.rs` (retention and other chores), `cron.rs` (messages on a schedule), `directory.rs`
//! (applications cached for ingest), `single_flight.rs` (one read for all who ask at the same time). Who decides is in `bellwire-core`, what remembers in `bellwire-store`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod config;
pub mod cron;
mod deliver;
mod directory;
mod fan_out;
mod ingest;
pub mod link;
mod maintenance;
mod metrics;
mod operational;
mod pool;
mod queue;
mod random;
mod record;
mod recover;
mod retries;
mod retry;
mod route;
pub mod scheduler;
mod shards;
mod sign;
pub mod single_flight;
pub mod transport;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bellwire_core::{AppId, Clock, EndpointId, IdGenerator, OrgId, Secret, ShardSet, Timestamp, limits};
use bellwire_store::{Store, StoreError};
use bellwire_verify::{Secret as HmacSecret, SigningKey};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

pub use config::{EngineConfig, HeaderPrefix, SigningDefault};
pub use directory::AppEntry;
pub use ingest::Published;
pub use metrics::Metrics;

use directory::Directory;
use link::Links;
use pool::Pools;
use queue::{Queue, Sink};
use route::Routes;
use scheduler::SchedulerLimits;
use shards::Shards;

/// What the engine cannot start without.
pub struct EngineDeps {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub config: EngineConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("delivery.proxy: {0}")]
    Proxy(&'static str),
    #[error("node.listen: other nodes cannot be listened for at {at:?}: {error}")]
    Link { error: std::io::Error, at: Option<std::net::SocketAddr> },
}

/// How stopping went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// Attempts that had not ended within the grace time; they are repeated at the next start.
    pub abandoned: usize,
}

/// The running pipe; shared as `Arc<Engine>`.
pub struct Engine {
    this: Weak<Engine>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    config: EngineConfig,
    ids: IdGenerator,
    directory: Directory,
    routes: Routes,
    pools: Pools,
    queue: Queue,
    client: transport::Client,
    metrics: Metrics,
    shards: Shards,
    links: Links,
    tasks: recover::Running,
    operational: mpsc::Sender<operational::Event>,
    operational_apps: Mutex<HashMap<OrgId, AppId>>,
    runtime: tokio::runtime::Handle,
    /// Held by each task that is to store the health of an endpoint.
    saving_health: Arc<()>,
    /// The second (of the queue's clock) in which it was last said that the store does not answer.
    store_silent: AtomicU64,
    stopping: AtomicBool,
    stop: Notify,
}

impl Engine {
    /// Starts the pipe on the current tokio runtime and resumes what is unfinished in the store: at once, or on a shared store as
    /// this node gets shards.
    pub async fn start(deps: EngineDeps) -> Result<Arc<Self>, EngineError> {
        let EngineDeps { store, clock, mut config } = deps;
        let last_key = store.last_key().await?;
        store.prepare(clock.now()).await?;
        let link = config.link.as_ref().filter(|_| store.is_shared());
        let bound = Links::bind(link).await;
        let (links, listener) = bound.map_err(|error| EngineError::Link { error, at: link.map(|link| link.listen) })?;
        if let Some(listener) = &listener {
            // Like the API's: no delivery goes there.
            config.egress.own.extend(listener.local_addr().ok());
        }
        let proxy = config.proxy.as_deref().map(transport::Proxy::parse).transpose().map_err(EngineError::Proxy)?;
        let options = transport::ClientOptions { policy: config.egress.clone(), proxy, ..Default::default() };
        let client = transport::Client::new(options);
        let (operational, events) = mpsc::channel(operational::QUEUE_MAX);
        let engine = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            ids: IdGenerator::new(last_key),
            directory: Directory::new(),
            routes: Routes::new(),
            pools: Pools::default(),
            queue: Queue::new(scheduler_limits(&config, store.is_shared())),
            shards: Shards::new(store.is_shared()),
            links,
            tasks: recover::Running::default(),
            client,
            metrics: Metrics::new(),
            operational,
            operational_apps: Mutex::new(HashMap::new()),
            runtime: tokio::runtime::Handle::current(),
            saving_health: Arc::new(()),
            stopping: AtomicBool::new(false),
            store_silent: AtomicU64::new(u64::MAX),
            stop: Notify::new(),
            store,
            clock,
            config,
        });
        shards::join(&engine).await?;
        engine.store.set_sink(Arc::new(Sink(Arc::downgrade(&engine))));
        if engine.shards.is_shared() {
            if let Some(listener) = listener {
                tokio::spawn(link::serve(engine.clone(), listener));
            }
            tokio::spawn(shards::run(engine.clone()));
            tokio::spawn(shards::run_exchange(engine.clone()));
        } else {
            engine.queue.incomplete(&ShardSet::ALL);
            tokio::spawn(shards::adopt_alone(engine.clone(), last_key));
        }
        tokio::spawn(operational::run(Arc::downgrade(&engine), events));
        tokio::spawn(retry::run_pump(engine.clone()));
        tokio::spawn(retry::run_timers(engine.clone()));
        tokio::spawn(retry::run_first_tries(engine.clone()));
        tokio::spawn(retry::run_retries(engine.clone()));
        tokio::spawn(recover::run_tasks(engine.clone()));
        tokio::spawn(cron::run(engine.clone()));
        tokio::spawn(maintenance::run_sweep(engine.clone()));
        tokio::spawn(maintenance::run_retention(engine.clone()));
        Ok(engine)
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        random::secret_bytes()
    }

    /// Counters; gauges are brought up to date first.
    pub async fn metrics_text(&self) -> String {
        let (queued, quick, in_flight, waiting) = self.queue.depths();
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.queued.set(gauge(queued));
        self.metrics.queued_quick.set(gauge(quick));
        self.metrics.in_flight.set(gauge(in_flight));
        self.metrics.retries_waiting.set(gauge(waiting));
        self.metrics.shards_owned.set(gauge(self.shards.count()));
        self.metrics.links.set(gauge(self.links.up()));
        self.metrics.nodes.set(gauge(self.shards.others() + 1));
        if let Ok(report) = self.store.report().await {
            let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            self.metrics.store_bytes.set(gauge(report.bytes_on_disk));
            self.metrics.store_segments.set(gauge(report.segments));
            self.metrics.store_commits.set(gauge(report.commits_total));
            self.metrics.store_commit_items.set(gauge(report.commit_items_total));
            self.metrics.store_full.set(i64::from(report.is_full));
        }
        self.metrics.encode()
    }

    /// A customer application with its endpoints, by id or uid.
    pub async fn application(&self, org: OrgId, id_or_uid: &str) -> Result<Option<Arc<AppEntry>>, StoreError> {
        self.directory.find(&*self.store, org, id_or_uid).await
    }

    pub async fn application_by_id(&self, id: AppId) -> Result<Option<Arc<AppEntry>>, StoreError> {
        self.directory.get(&*self.store, id).await
    }

    /// To be called after every write to an application: what was cached of it and its endpoints is forgotten.
    pub fn application_changed(&self, id: AppId) {
        self.applications_changed(&[id]);
        self.links.nudge_all();
    }

    fn applications_changed(&self, ids: &[AppId]) {
        for id in ids {
            self.directory.forget(*id);
        }
        self.routes.forget_applications(ids);
    }

    /// Anything may have been changed by others.
    fn forget_caches(&self) {
        self.directory.clear();
        self.routes.clear();
    }

    /// To be called after every write to an endpoint.
    pub fn endpoint_changed(&self, app: AppId, endpoint: EndpointId) {
        self.directory.forget(app);
        self.routes.forget(endpoint);
        self.links.nudge_all();
    }

    /// A new signing key of the configured kind: `whsec_…` or `whsk_…`.
    pub fn new_signing_secret(&self) -> Secret {
        let random = random::secret_bytes();
        match self.config.signing_default {
            SigningDefault::HmacSha256 => Secret::new(HmacSecret::generate(random).expose()),
            SigningDefault::Ed25519 => match SigningKey::generate(random) {
                Ok(key) => Secret::new(key.expose()),
                Err(error) => {
                    tracing::error!(%error, "no Ed25519 key could be made; using a symmetric one");
                    Secret::new(HmacSecret::generate(random).expose())
                }
            },
        }
    }

    /// Starts nothing more and waits for what runs, at most `grace`. Queued work stays in the store; other nodes get this one's
    /// shards as they drain.
    pub async fn stop(&self, grace: Duration) -> StopReport {
        self.stopping.store(true, Ordering::Release);
        self.stop.notify_waiters();
        self.queue.work.notify_one();
        self.queue.retry_changed.notify_one();
        let deadline = tokio::time::Instant::now() + grace;
        if self.shards.is_shared() {
            shards::leave(self, deadline).await;
        }
        let is_busy = || self.queue.in_flight() > 0 || Arc::strong_count(&self.saving_health) > 1;
        while is_busy() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        StopReport { abandoned: self.queue.in_flight() }
    }

    /// Nothing queued and nothing running in memory (the store may hold retries for later).
    pub fn is_idle(&self) -> bool {
        let (queued, _, in_flight, _) = self.queue.depths();
        queued == 0 && in_flight == 0
    }

    /// Shards whose deliveries this node makes, of [`bellwire_core::SHARDS`].
    pub fn shards_owned(&self) -> usize {
        self.shards.count()
    }

    /// Whether it is this node that delivers to the endpoint.
    pub fn delivers_to(&self, endpoint: EndpointId) -> bool {
        self.shards.has(endpoint)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sleeps, unless the engine stops.
    pub(crate) async fn sleep(&self, duration: Duration) {
        let stop = self.stop.notified();
        if !self.is_stopping() {
            let _ = tokio::time::timeout(duration, stop).await;
        }
    }
}

fn scheduler_limits(config: &EngineConfig, is_shared: bool) -> SchedulerLimits {
    SchedulerLimits {
        in_flight_max: config.in_flight_max.max(1),
        window_max: config.endpoint_window_max.max(1),
        endpoint_queue_max: limits::ENDPOINT_QUEUE_MAX,
        queue_max: limits::QUEUE_MAX,
        payload_bytes_max: limits::QUEUED_PAYLOAD_BYTES_MAX,
        is_shared,
    }
}
