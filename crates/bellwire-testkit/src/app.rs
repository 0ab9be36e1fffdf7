//! A whole Bellwire without the HTTP server: an embedded store in a temporary folder and a running engine.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{
    Application, ApplicationKind, AttemptStatus, Direction, Endpoint, EndpointHealth, HeaderSet, IdKind, Message, MessageId,
    Metadata, OrgId, PageQuery, SigningSecret, SystemClock, Timestamp,
};
use bellwire_engine::{Engine, EngineConfig, EngineDeps, Published};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::{AttemptFilter, Cipher, Store, Written};
use bytes::Bytes;

/// How long [`TestApp::drain`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct TestApp {
    pub engine: Arc<Engine>,
    pub org: OrgId,
    dir: Arc<tempfile::TempDir>,
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
        Self::open(Arc::new(tempfile::tempdir().expect("a temporary folder")), config).await
    }

    async fn open(dir: Arc<tempfile::TempDir>, config: EngineConfig) -> Self {
        let store = SqliteStore::open(SqliteOptions::new(dir.path(), Cipher::new([7; 32]))).expect("a store");
        let deps = EngineDeps { store, clock: Arc::new(SystemClock), config: config.clone() };
        let engine = Engine::start(deps).await.expect("an engine");
        Self { engine, org: OrgId::from_bytes([1; 20]), dir, config }
    }

    /// Stops and opens the same folder again.
    pub async fn restart(self) -> Self {
        let Self { engine, dir, config, .. } = self;
        engine.stop(Duration::from_secs(5)).await;
        engine.store().close().await.expect("close");
        drop(engine);
        Self::open(dir, config).await
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
        self.store().update_endpoint(endpoint, None).await.expect("update");
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
