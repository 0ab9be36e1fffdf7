//! A whole Bellwire without the HTTP server: a store (embedded in a temporary folder, or a fresh database on a real PostgreSQL) and a
//! running engine; or several on one database.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{
    Application, ApplicationKind, AttemptStatus, Direction, Endpoint, EndpointHealth, HeaderSet, IdKind, Message, MessageId,
    Metadata, OrgId, PageQuery, SigningSecret, SystemClock, Timestamp,
};
use bellwire_engine::{Engine, EngineConfig, EngineDeps, Published};
use bellwire_postgres_testkit::Postgres;
use bellwire_store::postgres::{PostgresOptions, PostgresStore};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::{AttemptFilter, Cipher, Store, Written};
use bytes::Bytes;

/// How long [`TestApp::drain`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections of one test's node: several nodes and several tests share the server.
const CONNECTIONS_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// Where the store is.
#[derive(Clone)]
enum Home {
    Folder(Arc<tempfile::TempDir>),
    /// A URL.
    Database(String),
}

pub struct TestApp {
    pub engine: Arc<Engine>,
    pub org: OrgId,
    home: Home,
    config: EngineConfig,
}

/// Loopback allowed, quick retries without jitter.
pub fn test_config() -> EngineConfig {
    let mut config = EngineConfig { request_timeout: Duration::from_secs(3), ..EngineConfig::default() };
    config.egress.allow_entries(["127.0.0.0/8", "::1/128"]).expect("networks");
    config.retry.schedule = vec![Duration::from_millis(50); 3];
    config.retry.jitter_percent = 0;
    config
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(test_config()).await
    }

    pub async fn with(config: EngineConfig) -> Self {
        Self::on_with(Backend::Sqlite, config).await
    }

    pub async fn on(backend: Backend) -> Self {
        Self::on_with(backend, test_config()).await
    }

    pub async fn on_with(backend: Backend, config: EngineConfig) -> Self {
        let app = match backend {
            Backend::Sqlite => {
                let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
                Self::open(Home::Folder(folder), config).await
            }
            Backend::Postgres => Self::node(&database().await, config).await,
        };
        app.wait_for_shards().await;
        app
    }

    /// One of several on the database of this URL (see [`database`]); it has no shards yet.
    pub async fn node(url: &str, config: EngineConfig) -> Self {
        Self::open(Home::Database(url.to_owned()), config).await
    }

    async fn open(home: Home, config: EngineConfig) -> Self {
        let cipher = Cipher::new([7; 32]);
        let store: Arc<dyn Store> = match &home {
            Home::Folder(folder) => SqliteStore::open(SqliteOptions::new(folder.path(), cipher)).expect("a store"),
            Home::Database(url) => {
                let options = PostgresOptions { connections_max: CONNECTIONS_MAX, ..PostgresOptions::new(url, cipher) };
                PostgresStore::open(options).await.expect("a store")
            }
        };
        let deps = EngineDeps { store, clock: Arc::new(SystemClock), config: config.clone() };
        let engine = Engine::start(deps).await.expect("an engine");
        Self { engine, org: OrgId::from_bytes([1; 20]), home, config }
    }

    async fn wait_for_shards(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.engine.shards_owned() < bellwire_core::SHARDS {
            assert!(tokio::time::Instant::now() < deadline, "only {} shards were gained", self.engine.shards_owned());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stops in order: what it had is given up.
    pub async fn stop(self) {
        self.engine.stop(Duration::from_secs(5)).await;
        self.engine.store().close().await.expect("close");
    }

    /// Stops and opens the same store again.
    pub async fn restart(self) -> Self {
        let (home, config) = (self.home.clone(), self.config.clone());
        self.stop().await;
        let app = Self::open(home, config).await;
        app.wait_for_shards().await;
        app
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.engine.store()
    }

    pub async fn application(&self, uid: &str) -> Application {
        let now = self.engine.now();
        let application = Application {
            id: self.engine.new_id(),
            org: self.org,
            kind: ApplicationKind::Customer,
            uid: Some(uid.to_owned()),
            name: uid.to_owned(),
            throttle_rate: None,
            metadata: Metadata::new(),
            created_at: now,
            updated_at: now,
        };
        fresh(self.store().create_application(application, None).await.expect("application"))
    }

    pub async fn endpoint(&self, application: &Application, url: String, change: impl FnOnce(&mut Endpoint)) -> Endpoint {
        let now = self.engine.now();
        let mut endpoint = Endpoint {
            id: self.engine.new_id(),
            app: application.id,
            uid: None,
            url,
            description: String::new(),
            event_types: None,
            channels: None,
            throttle_rate: None,
            disabled: false,
            metadata: Metadata::new(),
            headers: HeaderSet::default(),
            secret: SigningSecret { current: self.engine.new_signing_secret(), old: vec![] },
            health: EndpointHealth::default(),
            created_at: now,
            updated_at: now,
        };
        change(&mut endpoint);
        let endpoint = fresh(self.store().create_endpoint(endpoint, None).await.expect("endpoint"));
        self.engine.endpoint_changed(application.id, endpoint.id);
        endpoint
    }

    /// Replaces an endpoint.
    pub async fn update(&self, endpoint: Endpoint) {
        let (app, id) = (endpoint.app, endpoint.id);
        let read = self.store().find_endpoint(app, &id.to_string()).await.expect("store").expect("endpoint");
        self.store().change_endpoint(&read, endpoint, None).await.expect("update");
        self.engine.endpoint_changed(app, id);
    }

    pub fn message(&self, application: &Application, event_type: &str, payload: &'static str) -> Message {
        let id: MessageId = self.engine.new_id();
        Message {
            id,
            app: application.id,
            event_type: event_type.to_owned(),
            event_id: None,
            payload: Some(Bytes::from_static(payload.as_bytes())),
            content_type: "application/json".to_owned(),
            channels: vec![],
            tags: vec![],
            created_at: id.created(),
            deliver_at: None,
            payload_expires_at: id.created().plus(Duration::from_secs(90 * 86_400)),
            origin: None,
        }
    }

    pub async fn publish(&self, application: &Application, event_type: &str, payload: &'static str) -> MessageId {
        self.publish_message(application, self.message(application, event_type, payload)).await
    }

    pub async fn publish_message(&self, application: &Application, message: Message) -> MessageId {
        let entry = self.engine.application_by_id(application.id).await.expect("store").expect("application");
        match self.engine.publish(&entry, message, None).await.expect("publish") {
            Published::Fresh(message) => message.id,
            Published::Replayed(id) => id,
        }
    }

    /// (status, response code) of every attempt of a message, oldest first.
    pub async fn attempts(&self, application: &Application, message: MessageId) -> Vec<(AttemptStatus, u16)> {
        let page = PageQuery { limit: 100, order: Direction::Ascending, after: None, backwards: false };
        let filter = AttemptFilter::default();
        let page = self.store().list_attempts_of_message(application.id, message, filter, page, true).await.expect("attempts");
        page.rows.iter().map(|attempt| (attempt.status, attempt.response_status)).collect()
    }

    /// Waits until no delivery is unfinished, in memory or in the store.
    pub async fn drain(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let unfinished = self.store().count_unfinished().await.expect("count");
            if unfinished == (0, 0) && self.engine.is_idle() {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "not drained: {unfinished:?} unfinished in the store");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn now(&self) -> Timestamp {
        self.engine.now()
    }
}

fn fresh<T>(written: Written<T>) -> T {
    match written {
        Written::Fresh(value) => value,
        Written::Replayed { .. } => panic!("written before"),
    }
}

/// The URL of a fresh database on the test's PostgreSQL server.
pub async fn database() -> String {
    // The first one starts the server.
    tokio::task::spawn_blocking(|| Postgres::shared().create_database()).await.expect("a database")
}
