//! A server's life: open the store, start the engine, serve the API; and the same backwards, so that nothing in flight is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bellwire_api::{ApiConfig, ApiState, NewApiKey, ReceiveConfig, ServeReport};
use bellwire_core::{Clock as _, IdGenerator, OrgId, Secret, SystemClock, Timestamp};
use bellwire_engine::link::{LinkConfig, LinkKey};
use bellwire_engine::{Engine, EngineDeps};
use bellwire_store::postgres::database;
use bellwire_store::{ApiKeyRecord, Idempotency, IdempotencyRecord, Store, Written};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::config::node::NodeListen;
use crate::config::security::MasterKey;
use crate::config::storage::Backend;
use crate::exit::{Exit, Failure};
use crate::{presets, vault};

/// The organisation that everything belongs to until someone names another: the first of every Svix server.
pub const DEFAULT_ORG: &str = "org_23rb8YdGqMT0qIzpgGwdXfHirMu";
/// Open files: connections of callers and receivers, and the store. Above the kernel's usual default.
const OPEN_FILES_WANTED: u64 = 65_536;
/// Requests of the API that are under way may finish for this long, before attempts get the rest of the grace time.
const API_GRACE_MAX: Duration = Duration::from_secs(10);
/// Closing the store gets at least this, whatever the grace: it writes what is finished already.
const CLOSE_MIN: Duration = Duration::from_secs(5);

/// A running server.
pub struct Running {
    pub address: SocketAddr,
    pub engine: Arc<Engine>,
    shutdown: oneshot::Sender<()>,
    api: JoinHandle<ServeReport>,
    /// The first API key, if this start made it. Shown once, kept nowhere.
    pub first_key: Option<Secret>,
}

/// # Errors
/// None: the constant is an id.
pub fn default_org() -> anyhow::Result<OrgId> {
    Ok(DEFAULT_ORG.parse()?)
}

/// Binds the configured address, before anything else is touched.
///
/// # Errors
/// [`Exit::PortTaken`], or that the address is not one of this machine.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(
            Exit::PortTaken,
            format!("{address} is taken by another program; stop it, or listen elsewhere (--listen, BELLWIRE_LISTEN)"),
        )
        .into(),
        _ => anyhow::Error::from(error).context(format!("cannot listen at {address} (--listen, BELLWIRE_LISTEN)")),
    })
}

/// Starts a server on `listener`.
///
/// # Errors
/// The store is locked, too new, damaged, or the disk is full; a key is missing.
pub async fn start(mut config: Config, listener: TcpListener) -> anyhow::Result<Running> {
    raise_file_limit();
    let address = listener.local_addr()?;
    config.server.listen = address;
    let presets = config.server.presets_dir.as_deref().map(presets::read).transpose()?.unwrap_or_default();
    vault::judge(&config.storage.backend, config.storage.start_timeout).await?;
    let (master, store) = vault::open(&vault::Place::of(&config), config.storage.start_timeout).await?;
    let first_key = match config.node.is_api {
        true => make_first_key(&store).await.context("the first API key cannot be made")?,
        // Nobody could use it here.
        false => None,
    };
    let mut engine = config.engine();
    engine.link = link(&config, &master).await?;
    let deps = EngineDeps { store, clock: Arc::new(SystemClock), config: engine };
    let engine = Engine::start(deps).await?;
    let api = ApiConfig {
        jwt_secret: config.auth.jwt_secret.clone(),
        portal_secret: vault::derived_key(&master, "portal tokens")?,
        public_url: config.server.public_url.clone().unwrap_or_else(|| format!("http://{address}")),
        receive: ReceiveConfig { trusted_proxies: config.server.trusted_proxies.clone(), presets },
    };
    let state = match config.node.is_api {
        true => ApiState::new(Arc::clone(&engine), api),
        false => ApiState::health_only(Arc::clone(&engine), api),
    };
    let (shutdown, stopped) = oneshot::channel::<()>();
    let grace = config.server.stop_grace.min(API_GRACE_MAX);
    let api = tokio::spawn(async move {
        let ended = async move { drop(stopped.await) };
        bellwire_api::serve(listener, state, ended, grace).await
    });
    tracing::info!(
        listen = %address,
        version = env!("CARGO_PKG_VERSION"),
        node.name = config.node.name,
        node.is_api = config.node.is_api,
        node.is_worker = config.node.is_worker,
        store = %config.storage.backend,
        "serving"
    );
    Ok(Running { address, engine, shutdown, api, first_key })
}

/// How the other nodes of the database reach this one.
async fn link(config: &Config, master: &MasterKey) -> anyhow::Result<Option<LinkConfig>> {
    let Backend::Postgres(url) = &config.storage.backend else { return Ok(None) };
    let listen = match config.node.listen {
        NodeListen::Off => return Ok(None),
        NodeListen::At(address) => address,
        NodeListen::Auto => match database::local_address(url.expose()).await {
            Some(address) => SocketAddr::new(address, 0),
            None => return Ok(None),
        },
    };
    let key = LinkKey::new(vault::derived_key(master, "links between nodes")?);
    Ok(Some(LinkConfig { listen, advertise: config.node.advertise.clone(), key }))
}

impl Running {
    /// Stops accepting, lets requests and attempts in flight finish within `grace`, closes the store.
    ///
    /// # Errors
    /// The store did not close cleanly; what was acknowledged is durable all the same.
    pub async fn stop(self, grace: Duration) -> anyhow::Result<()> {
        let Self { engine, shutdown, api, .. } = self;
        let deadline = tokio::time::Instant::now() + grace;
        // The receiver is gone only if serving has ended already.
        let _ = shutdown.send(());
        // Serving ends by itself within its share of the grace time.
        let served = api.await.context("serving the API failed")?;
        if served.cut > 0 {
            tracing::warn!(
                connections = served.cut,
                "requests were still under way at the end of the grace time; their callers got no answer"
            );
        }
        let report = engine.stop(deadline.saturating_duration_since(tokio::time::Instant::now())).await;
        if report.abandoned > 0 {
            tracing::warn!(
                attempts = report.abandoned,
                "attempts were still in flight at the end of the grace time; they are repeated at the next start"
            );
        }
        // A database that is away must not hold up the end: what was acknowledged is in it already.
        let limit = deadline.saturating_duration_since(tokio::time::Instant::now()).max(CLOSE_MIN);
        match tokio::time::timeout(limit, engine.store().close()).await {
            Ok(closed) => closed.context("the store did not close cleanly")?,
            Err(_) => anyhow::bail!("the store did not close within {limit:?}; what was acknowledged is durable"),
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// On a store without any key: one with all scopes for the default organisation. Of several nodes that start at once, one makes
/// it.
async fn make_first_key(store: &Arc<dyn Store>) -> anyhow::Result<Option<Secret>> {
    if !store.list_api_keys(None).await?.is_empty() {
        return Ok(None);
    }
    let all = ["*".to_owned()];
    let org = default_org()?;
    let (text, record) = new_key(store, org, "first", &all, None).await?;
    let window = bellwire_store::idempotency::WINDOW;
    let expires_at = record.created_at.plus(window);
    let idempotency = Idempotency { key: *b"first API key   ", request: [0; 16], expires_at, window };
    let once = IdempotencyRecord { org, idempotency, status: 201, response: bytes::Bytes::from_static(b"{}") };
    match store.create_api_key(record, Some(once)).await? {
        Written::Fresh(_) => Ok(Some(text)),
        Written::Replayed { .. } => Ok(None),
    }
}

/// Makes an API key; the text is shown once and kept nowhere.
///
/// # Errors
/// An unknown scope, or the store's.
pub async fn make_key(
    store: &Arc<dyn Store>,
    org: OrgId,
    name: &str,
    scopes: &[String],
    expires_at: Option<Timestamp>,
) -> anyhow::Result<(Secret, ApiKeyRecord)> {
    let (text, record) = new_key(store, org, name, scopes, expires_at).await?;
    match store.create_api_key(record, None).await? {
        Written::Fresh(record) => Ok((text, record)),
        Written::Replayed { .. } => anyhow::bail!("the store answered a new key with an old one"),
    }
}

async fn new_key(
    store: &Arc<dyn Store>,
    org: OrgId,
    name: &str,
    scopes: &[String],
    expires_at: Option<Timestamp>,
) -> anyhow::Result<(Secret, ApiKeyRecord)> {
    let now = SystemClock.now();
    let id = IdGenerator::new(store.last_key().await?).generate(now, vault::random()?);
    let new = NewApiKey { id, secret: vault::random()?, org, name, scopes, created_at: now, expires_at };
    Ok(bellwire_api::new_api_key(&new).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?)
}

/// Raises the limit of open files as far as it may be raised.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES_WANTED, |maximum| maximum.min(OPEN_FILES_WANTED));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
