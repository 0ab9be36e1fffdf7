//! The server under test: one that the bench starts itself, or any Svix-compatible one. Sets up applications and endpoints, and
//! asks what has been recorded.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::time::timeout;
use url::Url;

use super::process::Process;
use super::wire::Wire;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(60);
/// One set-up call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Where and how to talk to it.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub authority: String,
    /// Of the API, without a slash at the end; empty for most.
    pub base_path: String,
    pub token: String,
    /// To measure processor time and memory; unknown for a server that others started, unless they say.
    pub pid: Option<u32>,
}

/// A server that the bench started.
pub struct Server {
    process: Process,
    pub target: Target,
}

/// What a server is started with.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub data_dir: &'a Path,
    /// `None`: the embedded store in `data_dir`.
    pub database: Option<&'a str>,
    /// Its number, from 1.
    pub node: u32,
    /// Of an earlier start; the first one prints a new key.
    pub token: Option<&'a str>,
}

impl Server {
    /// Starts `bellwire serve`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(launch: &Launch<'_>) -> anyhow::Result<Self> {
        let Launch { data_dir, database, node, token } = *launch;
        let mut variables = vec![
            ("BELLWIRE_LISTEN", "127.0.0.1:0".to_owned()),
            ("BELLWIRE_DATA_DIR", data_dir.display().to_string()),
            ("BELLWIRE_EGRESS__ALLOW", "127.0.0.0/8".to_owned()),
            ("BELLWIRE_LOG__LEVEL", "error".to_owned()),
            ("BELLWIRE_NODE__NAME", format!("bench-{node}")),
        ];
        variables.extend(database.map(|url| ("BELLWIRE_STORAGE__URL", url.to_owned())));
        let mut process = Process::start("server", &["serve", "--stop-with-stdin"], &variables, data_dir)?;
        let mut key = token.map(str::to_owned);
        let address = process.wait_line(START_TIMEOUT, |line| {
            let line = line.trim();
            if let Some(found) = line.split_whitespace().find(|word| word.starts_with("bw_")) {
                key.get_or_insert_with(|| found.to_owned());
            }
            line.split_whitespace().find_map(|word| word.strip_prefix("http://")?.trim_end_matches('/').parse().ok())
        })?;
        let token = match key {
            Some(key) => key,
            None => process
                .wait_line(START_TIMEOUT, |line| line.split_whitespace().find(|word| word.starts_with("bw_")).map(str::to_owned))
                .context("the server printed no API key")?,
        };
        let target =
            Target { address, authority: address.to_string(), base_path: String::new(), token, pid: Some(process.pid()) };
        Ok(Self { process, target })
    }

    /// Stops it and waits until it has closed its store.
    ///
    /// # Errors
    /// It did not end well.
    pub fn stop(self) -> anyhow::Result<()> {
        self.process.stop(STOP_GRACE)
    }
}

impl Target {
    /// A server that runs already, on this machine.
    ///
    /// # Errors
    /// The URL is not of a plain `http` server on a loopback address.
    pub fn external(url: &str, token: String, pid: Option<u32>) -> anyhow::Result<Self> {
        let parsed = Url::parse(url).with_context(|| format!("--target {url}"))?;
        let (Some(host), Some(port), "http") = (parsed.host_str(), parsed.port_or_known_default(), parsed.scheme()) else {
            bail!("--target {url}: write http://127.0.0.1:PORT");
        };
        let address = (host.trim_matches(['[', ']']), port).to_socket_addrs()?.next().context("the target has no address")?;
        if !address.ip().is_loopback() {
            bail!("--target {url}: the bench loads servers of this machine only (a loopback address)");
        }
        let base_path = parsed.path().trim_end_matches('/').to_owned();
        Ok(Self { address, authority: format!("{host}:{port}"), base_path, token, pid })
    }

    /// The head of a request up to its body.
    pub fn head(&self, method: &str, path: &str, body_bytes: usize) -> String {
        format!(
            "{method} {}{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             accept: application/json\r\ncontent-length: {body_bytes}\r\n\r\n",
            self.base_path, self.authority, self.token
        )
    }

    /// One API call on a connection of its own.
    ///
    /// # Errors
    /// No answer, or one that is not 2xx.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let body = self.exchange(method, path, body).await?;
        if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&body)?) }
    }

    /// The body of an answer of 2xx.
    async fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!("{}{body}", self.head(method, path, body.len()));
        let exchange = async {
            let mut wire = Wire::connect(self.address).await?;
            let answered = wire.exchange(request.as_bytes()).await?;
            std::io::Result::Ok((answered.status, wire.body(&answered)))
        };
        let (status, body) = timeout(CALL_TIMEOUT, exchange)
            .await
            .with_context(|| format!("{method} {path}: no answer within {CALL_TIMEOUT:?}"))?
            .with_context(|| format!("{method} {path}"))?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if !(200..300).contains(&status) {
            bail!("{method} {path}: {status} {}", body.chars().take(300).collect::<String>());
        }
        Ok(body)
    }

    /// Creates an application with one endpoint for each URL; returns its id and theirs.
    ///
    /// # Errors
    /// As [`Target::call`].
    pub async fn set_up(&self, name: &str, urls: &[String]) -> anyhow::Result<(String, Vec<String>)> {
        let app = self.call("POST", "/api/v1/app", Some(&json!({ "name": name }))).await?;
        let app = text(&app, "id")?;
        let mut endpoints = Vec::with_capacity(urls.len());
        for url in urls {
            let body = json!({ "url": url, "version": 1, "description": name });
            let endpoint = self.call("POST", &format!("/api/v1/app/{app}/endpoint"), Some(&body)).await?;
            endpoints.push(text(&endpoint, "id")?);
        }
        Ok((app, endpoints))
    }

    /// The value of a gauge or counter without labels that the server shows at `/metrics`; 0 if it does not.
    ///
    /// # Errors
    /// As [`Target::call`].
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.exchange("GET", "/metrics", None).await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0.0))
    }

    /// Deliveries of an endpoint that are recorded as delivered, and those that are not finished.
    ///
    /// # Errors
    /// As [`Target::call`]: some servers have no such statistics.
    pub async fn recorded(&self, app: &str, endpoint: &str) -> anyhow::Result<(u64, u64)> {
        let stats = self.call("GET", &format!("/api/v1/app/{app}/endpoint/{endpoint}/stats"), None).await?;
        let count = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
        Ok((count("success"), count("pending") + count("sending")))
    }
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    value.get(field).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("an answer without {field:?}"))
}
