//! What all requests share: the engine, the remembered credentials, the locks, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bellwire_core::{OrgId, Secret, Timestamp, limits};
use bellwire_engine::Engine;
use bellwire_store::{Store, StoreError};
use quick_cache::sync::Cache;

use crate::auth::{Sessions, TokenKeys};
use crate::lock::Locks;
use crate::receive::{Receive, ReceiveConfig};

/// What the API needs from the configuration.
pub struct ApiConfig {
    /// HS256 secret of Svix-style tokens; without it none is taken.
    pub jwt_secret: Option<Secret>,
    /// Signs portal tokens while no `jwt_secret` is configured. Derived from the master key, so that it survives a restart.
    pub portal_secret: [u8; 32],
    /// How the outside reaches this server, without a slash at the end; for links in answers.
    pub public_url: String,
    pub receive: ReceiveConfig,
}

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    public_url: String,
    sessions: Sessions,
    tokens: TokenKeys,
    app_locks: Locks,
    key_locks: Locks,
    archived: Cache<(OrgId, Box<str>), ArchivedMark>,
    archived_generation: AtomicU64,
    counts: [AtomicU64; 6],
    closing: AtomicBool,
    serves_api: bool,
    receive: Receive,
}

/// Whether an event type was archived when last looked at.
#[derive(Clone, Copy)]
struct ArchivedMark {
    archived: bool,
    until: Timestamp,
}

impl ApiState {
    pub fn new(engine: Arc<Engine>, config: ApiConfig) -> Self {
        Self::with(engine, config, true)
    }

    /// For a node that only delivers: health and metrics are served, and nothing else.
    pub fn health_only(engine: Arc<Engine>, config: ApiConfig) -> Self {
        Self::with(engine, config, false)
    }

    fn with(engine: Arc<Engine>, config: ApiConfig, serves_api: bool) -> Self {
        let receive = Receive::new(&engine, config.receive);
        Self(Arc::new(Inner {
            engine,
            receive,
            public_url: config.public_url,
            sessions: Sessions::new(),
            tokens: TokenKeys::new(config.jwt_secret.as_ref(), &config.portal_secret),
            app_locks: Locks::new(),
            key_locks: Locks::new(),
            archived: Cache::new(limits::ARCHIVED_NAMES_CACHED),
            archived_generation: AtomicU64::new(0),
            counts: Default::default(),
            closing: AtomicBool::new(false),
            serves_api,
        }))
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.0.engine.store()
    }

    pub fn now(&self) -> Timestamp {
        self.0.engine.now()
    }

    pub(crate) fn public_url(&self) -> &str {
        &self.0.public_url
    }

    /// What requests to sources share.
    pub fn receive(&self) -> &Receive {
        &self.0.receive
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(crate) fn tokens(&self) -> &TokenKeys {
        &self.0.tokens
    }

    /// Control writes to one application take turns here.
    pub(crate) fn app_locks(&self) -> &Locks {
        &self.0.app_locks
    }

    /// Calls with one idempotency key take turns here.
    pub(crate) fn key_locks(&self) -> &Locks {
        &self.0.key_locks
    }

    pub(crate) fn serves_api(&self) -> bool {
        self.0.serves_api
    }

    /// From now on `/readyz` says no, so that balancers look elsewhere.
    pub fn set_closing(&self) {
        self.0.closing.store(true, Ordering::Release);
    }

    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Acquire)
    }

    /// Counts an answer by its class.
    pub(crate) fn count(&self, status: u16) {
        let class = usize::from(status / 100).min(5);
        self.0.counts[class].fetch_add(1, Ordering::Relaxed);
    }

    /// Answers so far by class, 1xx to 5xx.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        (1..=5).map(|class| (class, self.0.counts[class].load(Ordering::Relaxed)))
    }

    /// Whether this event type exists and is archived; remembered for a few seconds, since every publish asks.
    pub(crate) async fn is_archived(&self, org: OrgId, event_type: &str) -> Result<bool, StoreError> {
        let key = (org, Box::from(event_type));
        let now = self.now();
        if let Some(mark) = self.0.archived.get(&key)
            && mark.until > now
        {
            return Ok(mark.archived);
        }
        let generation = self.0.archived_generation.load(Ordering::Acquire);
        let archived = self.store().get_event_type(org, event_type).await?.is_some_and(|found| found.archived);
        if self.0.archived_generation.load(Ordering::Acquire) == generation {
            let until = Timestamp(now.as_millis() + limits::SESSION_FRESH_MS);
            self.0.archived.insert(key, ArchivedMark { archived, until });
        }
        Ok(archived)
    }

    /// To be called after every write to an event type.
    pub(crate) fn event_type_changed(&self, org: OrgId, event_type: &str) {
        self.0.archived_generation.fetch_add(1, Ordering::AcqRel);
        self.0.archived.remove(&(org, Box::from(event_type)));
    }
}
