//! An endpoint made ready for sending: judged URL, constant part of the request head, prepared keys, connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use bellwire_core::egress::Target;
use bellwire_core::{AppId, Application, Endpoint, EndpointId, Timestamp};
use bellwire_store::{Store, StoreError};
use bellwire_verify::{Key, Signer};
use quick_cache::sync::Cache;

use crate::config::EngineConfig;
use crate::pool::{Pool, Pools};
use crate::single_flight::SingleFlight;
use crate::transport::{RequestHead, TransportError};

/// Routes kept: the endpoints one node delivers to at a time.
const ROUTES_CACHED: usize = 65_536;

pub struct Route {
    pub application: Application,
    pub endpoint: Endpoint,
    pub url: Arc<str>,
    /// Where it goes; an error once and for all if policy forbids the URL as it stands.
    pub destination: Result<Destination, TransportError>,
    /// Current key first; old ones with the time they stop.
    signers: Vec<(Signer, Option<Timestamp>)>,
    /// Milliseconds; 0: not failing.
    failing_since: AtomicI64,
    /// As the store has it.
    stored_failing_since: AtomicI64,
    /// Somebody will store it in a while.
    is_health_due: AtomicBool,
    /// Health is written by one at a time, so that the last write says what is true last.
    pub health: tokio::sync::Mutex<()>,
}

pub struct Destination {
    pub target: Target,
    pub head: RequestHead,
    pub pool: Arc<Pool>,
}

impl Route {
    fn new(application: Application, endpoint: Endpoint, config: &EngineConfig, pools: &Pools) -> Self {
        let mut destination = destination(&endpoint, config, pools);
        let mut signers = Vec::with_capacity(1 + endpoint.secret.old.len());
        let keys = std::iter::once((&endpoint.secret.current, None))
            .chain(endpoint.secret.old.iter().map(|(secret, expires)| (secret, Some(*expires))));
        for (secret, expires) in keys {
            match Key::parse(secret.expose()).and_then(|key| key.signer()) {
                Ok(signer) => signers.push((signer, expires)),
                Err(error) => {
                    tracing::error!(endpoint.id = %endpoint.id, %error, "a stored signing secret cannot be used");
                }
            }
        }
        if signers.is_empty() {
            // Never send unsigned.
            destination = Err(TransportError::Local("the endpoint has no signing secret that can be used".to_owned()));
        }
        let failing_since = endpoint.health.failing_since.map_or(0, |at| at.as_millis());
        Self {
            url: Arc::from(endpoint.url.as_str()),
            destination,
            signers,
            health: tokio::sync::Mutex::new(()),
            failing_since: AtomicI64::new(failing_since),
            stored_failing_since: AtomicI64::new(failing_since),
            is_health_due: AtomicBool::new(false),
            application,
            endpoint,
        }
    }

    /// The keys that sign at `now`.
    pub fn signers(&self, now: Timestamp) -> impl Iterator<Item = &Signer> {
        self.signers.iter().filter(move |(_, expires)| expires.is_none_or(|at| at > now)).map(|(signer, _)| signer)
    }

    pub fn failing_since(&self) -> Option<Timestamp> {
        match self.failing_since.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Timestamp(ms)),
        }
    }

    /// Whether the caller is the one who is to store the health in a while, and then to say [`Self::begin_storing`].
    pub fn is_first_to_store(&self) -> bool {
        !self.is_health_due.swap(true, Ordering::AcqRel)
    }

    /// From now on changes are somebody else's to store. Whether there is one.
    pub fn begin_storing(&self) -> bool {
        self.is_health_due.store(false, Ordering::Release);
        self.failing_since.load(Ordering::Acquire) != self.stored_failing_since.load(Ordering::Relaxed)
    }

    pub fn note_stored(&self, failing_since: Option<Timestamp>) {
        self.stored_failing_since.store(failing_since.map_or(0, |at| at.as_millis()), Ordering::Relaxed);
    }

    /// Notes a failure; whether it is the first after a success.
    pub fn note_failure(&self, now: Timestamp) -> bool {
        self.failing_since.compare_exchange(0, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes a success; whether it is the first after a failure.
    pub fn note_success(&self) -> bool {
        self.failing_since.load(Ordering::Relaxed) != 0 && self.failing_since.swap(0, Ordering::Relaxed) != 0
    }
}

fn destination(endpoint: &Endpoint, config: &EngineConfig, pools: &Pools) -> Result<Destination, TransportError> {
    let target = config.egress.judge_url(&endpoint.url).map_err(TransportError::from)?;
    let mut head = RequestHead::new("POST", &target, &config.user_agent)?;
    for (name, value) in &endpoint.headers.0 {
        head.header(name, value.expose())?;
    }
    let pool = pools.get(&target);
    Ok(Destination { target, head, pool })
}

/// Routes by endpoint; forgotten when the endpoint or its application changes.
pub struct Routes {
    cache: Cache<EndpointId, Arc<Route>>,
    reads: SingleFlight<(u64, EndpointId), Option<Arc<Route>>>,
    generation: AtomicU64,
}

impl Routes {
    pub fn new() -> Self {
        Self { cache: Cache::new(ROUTES_CACHED), reads: SingleFlight::new(), generation: AtomicU64::new(0) }
    }

    pub fn cached(&self, id: EndpointId) -> Option<Arc<Route>> {
        self.cache.get(&id)
    }

    /// `None` if the endpoint or its application is deleted.
    pub async fn load(
        &self,
        store: &dyn Store,
        id: EndpointId,
        config: &EngineConfig,
        pools: &Pools,
    ) -> Result<Option<Arc<Route>>, StoreError> {
        let generation = self.generation.load(Ordering::Acquire);
        let read = async {
            let Some((application, endpoint)) = store.endpoint_for_delivery(id).await? else { return Ok(None) };
            let route = Arc::new(Route::new(application, endpoint, config, pools));
            self.cache.insert(id, route.clone());
            if self.generation.load(Ordering::Acquire) != generation {
                // Read before a write that has happened since: good for this once, not to keep.
                self.cache.remove(&id);
            }
            Ok(Some(route))
        };
        self.reads.read((generation, id), read).await
    }

    pub fn forget(&self, id: EndpointId) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.remove(&id);
    }

    pub fn forget_applications(&self, ids: &[AppId]) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.retain(|_, route| !ids.contains(&route.application.id));
    }

    pub fn clear(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.clear();
    }
}
