//! What the tests stand on: a store in a temporary folder, an engine that may deliver to loopback, a receiver, a clock to turn.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bellwire_api::{Api, ApiConfig, ApiState, NewApiKey, ReceiveConfig, new_api_key};
use bellwire_core::{Clock, Direction, IdKind, Message, OrgId, PageQuery, Secret, SystemClock, Timestamp};
use bellwire_engine::{Engine, EngineConfig, EngineDeps};
use bellwire_store::postgres::{PostgresOptions, PostgresStore};
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};
use bellwire_store::{Cipher, MessageFilter, Store};
use bellwire_verify::Preset;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

pub const JWT_SECRET: &str = "a secret of at least thirty-two characters";

/// The system's clock, turned forward.
#[derive(Debug, Default)]
pub struct TurnedClock {
    ahead_ms: AtomicI64,
}

impl TurnedClock {
    pub fn turn(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().as_millis() + self.ahead_ms.load(Ordering::SeqCst))
    }
}

pub struct Harness {
    pub api: Api,
    pub engine: Arc<Engine>,
    pub clock: Arc<TurnedClock>,
    pub org: OrgId,
    /// All scopes.
    pub key: String,
    pub receiver: Receiver,
    _dir: Option<tempfile::TempDir>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer's JSON, after checking its status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The place of a 422's first finding.
    #[track_caller]
    pub fn place(self) -> Vec<String> {
        let found = self.expect(422);
        assert!(!found["detail"][0]["msg"].as_str().unwrap().is_empty());
        serde_json::from_value(found["detail"][0]["loc"].clone()).unwrap()
    }
}

impl Harness {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(SqliteOptions::new(dir.path(), Cipher::new([7; 32]))).unwrap();
        Self::over(store, Some(dir), change).await
    }

    /// One of several nodes on the database of this URL.
    pub async fn node(url: &str) -> Self {
        let options = PostgresOptions { connections_max: 8, ..PostgresOptions::new(url, Cipher::new([7; 32])) };
        Self::over(PostgresStore::open(options).await.unwrap(), None, |_| {}).await
    }

    async fn over(store: Arc<dyn Store>, dir: Option<tempfile::TempDir>, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let mut config = EngineConfig { request_timeout: Duration::from_secs(3), ..EngineConfig::default() };
        config.egress.allow_entries(["127.0.0.0/8"]).unwrap();
        change(&mut config);
        let clock = Arc::new(TurnedClock::default());
        let engine = Engine::start(EngineDeps { store, clock: clock.clone(), config }).await.unwrap();
        let api = Api::new(ApiState::new(engine.clone(), api_config()));
        let org = OrgId::from_bytes([1; 20]);
        let mut harness = Self { api, engine, clock, org, key: String::new(), receiver: Receiver::start().await, _dir: dir };
        harness.key = harness.make_key(org, &["*"]).await;
        harness
    }

    /// Another node's API on the same store: what it remembers and locks is its own.
    pub fn another_node(&self) -> Api {
        Api::new(self.another_node_with(Vec::new()))
    }

    pub fn another_node_with(&self, presets: Vec<Preset>) -> ApiState {
        let mut config = api_config();
        config.receive.presets = presets;
        ApiState::new(self.engine.clone(), config)
    }

    pub async fn make_key(&self, org: OrgId, scopes: &[&str]) -> String {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let new = NewApiKey {
            id: self.engine.new_id(),
            secret: self.engine.random_bytes(),
            org,
            name: "test",
            scopes: &scopes,
            created_at: self.engine.now(),
            expires_at: None,
        };
        let (text, record) = new_api_key(&new).unwrap();
        self.engine.store().create_api_key(record, None).await.unwrap();
        text.expose().to_owned()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.api.handle(request).await;
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    /// With any credential and any headers.
    pub async fn call(&self, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(text) => {
                request = request.header("content-type", "application/json");
                Body::from(text.to_owned())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    /// Anything, from anywhere, as it would come to a public URL (or only its path).
    pub async fn receive(&self, method: &str, url: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(url.trim_start_matches("https://hooks.example.com"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// A new source; its whole answer.
    pub async fn source(&self, body: Value) -> Value {
        self.post("/ingest/api/v1/source", body).await.expect(201)
    }

    /// The log of a source once it has `count` entries, newest first: reason, status and the message it repeats.
    pub async fn log(&self, source: &Value, count: usize) -> Vec<(String, u64, Option<String>)> {
        let path = format!("/api/v1/source/{}/log", text(&source["id"]));
        let page = self.until(&path, |page| page["data"].as_array().is_some_and(|rows| rows.len() >= count)).await;
        let rows = page["data"].as_array().unwrap();
        assert_eq!(rows.len(), count, "{page}");
        rows.iter()
            .map(|row| (text(&row["reason"]), row["status"].as_u64().unwrap(), row["duplicateOf"].as_str().map(str::to_owned)))
            .collect()
    }

    /// The messages of a source, newest first, as they are stored.
    pub async fn received(&self, source: &Value) -> Vec<Message> {
        let page = PageQuery { limit: 250, order: Direction::Descending, after: None, backwards: false };
        let app = text(&source["appId"]).parse().unwrap();
        self.engine.store().list_messages(app, MessageFilter::default(), page, true).await.unwrap().rows
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(&self.key, "GET", path, &[], None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(&self.key, "DELETE", path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(&self.key, "POST", path, &[], Some(&body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(&self.key, "PUT", path, &[], Some(&body.to_string())).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(&self.key, "PATCH", path, &[], Some(&body.to_string())).await
    }

    /// A new application with this uid; its id.
    pub async fn application(&self, uid: &str) -> String {
        text(&self.post("/api/v1/app", json!({ "name": uid, "uid": uid })).await.expect(201)["id"])
    }

    /// A new endpoint of the application at a path of the receiver; its id.
    pub async fn endpoint(&self, app: &str, path: &str) -> String {
        let url = self.receiver.url(path);
        text(&self.post(&format!("/api/v1/app/{app}/endpoint"), json!({ "url": url })).await.expect(201)["id"])
    }

    /// Publishes; the message's id.
    pub async fn publish(&self, app: &str, event_type: &str) -> String {
        let body = json!({ "eventType": event_type, "payload": { "type": event_type } });
        text(&self.post(&format!("/api/v1/app/{app}/msg"), body).await.expect(202)["id"])
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get(path).await.expect(200);
            if is_wanted(&answer) {
                return answer;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} never came to be as wanted: {answer}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn api_config() -> ApiConfig {
    ApiConfig {
        jwt_secret: Some(Secret::new(JWT_SECRET)),
        portal_secret: [3; 32],
        public_url: "https://hooks.example.com".into(),
        receive: ReceiveConfig { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], presets: Vec::new() },
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// One request as a receiver got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

type Log = Arc<std::sync::Mutex<Vec<Received>>>;

/// Answers 204, or the status in the path (`/status/500`), and remembers everything.
pub struct Receiver {
    address: SocketAddr,
    log: Log,
    statuses: Arc<std::sync::Mutex<HashMap<String, u16>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (log, statuses) = (Log::default(), Arc::new(std::sync::Mutex::new(HashMap::<String, u16>::new())));
        let (seen, told) = (log.clone(), statuses.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, told) = (seen.clone(), told.clone());
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (seen, told) = (seen.clone(), told.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let path = parts.uri.path().to_owned();
                        let body = body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
                        let status = told.lock().unwrap().get(&path).copied().unwrap_or(200);
                        seen.lock().unwrap().push(Received { path, headers: parts.headers, body });
                        let response = http::Response::builder().status(status).body(Full::new(Bytes::from_static(b"thanks")));
                        Ok::<_, Infallible>(response.unwrap())
                    }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(async move { hyper::server::conn::http1::Builder::new().serve_connection(io, service).await });
            }
        });
        Self { address, log, statuses }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What a path answers from now on.
    pub fn set_status(&self, path: &str, status: u16) {
        self.statuses.lock().unwrap().insert(path.to_owned(), status);
    }

    pub fn at(&self, path: &str) -> Vec<Received> {
        self.log.lock().unwrap().iter().filter(|received| received.path == path).cloned().collect()
    }

    /// Waits for `count` requests at a path.
    pub async fn wait(&self, path: &str, count: usize) -> Vec<Received> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.at(path);
            if found.len() >= count {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "{} of {count} requests arrived at {path}", found.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
