//! What has to be fetched to judge or answer a request: certificates of providers, and URLs that confirm a subscription. Always
//! through the egress judge, never across a redirect.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bellwire_core::limits;
use bellwire_engine::EngineConfig;
use bellwire_engine::transport::{Client, ClientOptions, Proxy};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Receive;

/// Fetches at once: each is a few kilobytes, and a source that is flooded must not flood its provider.
const FETCHES_MAX: usize = 8;

#[derive(Clone)]
struct Kept {
    pem: Result<Arc<str>, Arc<str>>,
    until: Instant,
}

impl Receive {
    /// Fetches with this client instead of one of its own. False, and it is not, if one was needed before.
    pub fn fetch_with(&self, client: Client) -> bool {
        self.certificates.client.set(client).is_ok()
    }
}

pub struct Certificates {
    cache: Cache<String, Kept>,
    fetches: Semaphore,
    client: OnceLock<Client>,
    config: Options,
}

struct Options {
    policy: bellwire_core::egress::EgressPolicy,
    proxy: Option<String>,
}

impl Certificates {
    pub fn new(config: &EngineConfig) -> Self {
        Self {
            cache: Cache::new(limits::CERTIFICATES_CACHED),
            fetches: Semaphore::new(FETCHES_MAX),
            client: OnceLock::new(),
            config: Options { policy: config.egress.clone(), proxy: config.proxy.clone() },
        }
    }

    /// Most servers never need one. Made when it is.
    fn client(&self) -> &Client {
        self.client.get_or_init(|| {
            // The engine has refused to start with a proxy that cannot be read.
            let proxy = self.config.proxy.as_deref().and_then(|text| Proxy::parse(text).ok());
            Client::new(ClientOptions { policy: self.config.policy.clone(), proxy, ..ClientOptions::default() })
        })
    }

    /// The certificate (PEM) at this address, which `bellwire-verify` has found to be the provider's.
    ///
    /// # Errors
    /// Why it could not be fetched, for the source's log.
    pub async fn get(&self, url: &str) -> Result<Arc<str>, String> {
        if let Some(kept) = self.known(url) {
            return kept;
        }
        let _place = self.place().await?;
        // Somebody else may have fetched it while this one waited.
        if let Some(kept) = self.known(url) {
            return kept;
        }
        let fetched = self.fetch(url).await;
        let seconds = if fetched.is_ok() { limits::CERTIFICATE_FRESH_SECONDS } else { limits::CERTIFICATE_RETRY_SECONDS };
        let pem = fetched.as_ref().map(Arc::clone).map_err(|error| Arc::from(error.as_str()));
        self.cache.insert(url.to_owned(), Kept { pem, until: Instant::now() + Duration::from_secs(seconds) });
        fetched
    }

    fn known(&self, url: &str) -> Option<Result<Arc<str>, String>> {
        let kept = self.cache.get(url).filter(|kept| kept.until > Instant::now())?;
        Some(kept.pem.map_err(|error| error.to_string()))
    }

    async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, String> {
        let wait = Duration::from_millis(limits::HANDSHAKE_FETCH_MS_MAX);
        let place = tokio::time::timeout(wait, self.fetches.acquire()).await;
        place.ok().and_then(Result::ok).ok_or_else(|| "too much is being fetched".to_owned())
    }

    async fn fetch(&self, url: &str) -> Result<Arc<str>, String> {
        let body = self.ask(url).await?;
        std::str::from_utf8(&body).map(Arc::from).map_err(|_| format!("{url} is no certificate"))
    }

    /// Fetches a URL for its effect.
    ///
    /// # Errors
    /// Why not, for the source's log.
    pub async fn confirm(&self, url: &str) -> Result<(), String> {
        let _place = self.place().await?;
        // The query holds a token: not for the log.
        self.ask(url).await.map(drop).map_err(|error| error.replace(url, url.split('?').next().unwrap_or_default()))
    }

    async fn ask(&self, url: &str) -> Result<bytes::Bytes, String> {
        let wait = Duration::from_millis(limits::HANDSHAKE_FETCH_MS_MAX);
        let response = self.client().request("GET", url, &[], &[], wait).await;
        let response = response.map_err(|error| format!("{url} could not be fetched: {error}"))?;
        if response.status != 200 || response.is_truncated || response.interrupted.is_some() {
            return Err(format!("{url} answered with {} or broke off", response.status));
        }
        Ok(response.body)
    }
}
