//! The delivery client: the one way by which requests leave, for deliveries, tests, and everything else that opens a socket.
//!
//! `resolve` asks DNS, `bellwire_core::egress` judges, `connect` dials the judged address, `http1` exchanges a request for an
//! answer over a connection that stays open, `response` and `chunked` find the answer's end, `head` writes requests.
//!
//! * A [`Connection`] belongs to one worker and one target; [`Client::exchange`] keeps one in a slot and replaces it when it
//!   must (closed, too old, another host, changed policy).
//! * Redirects are answers; `Alt-Svc`, `Refresh` and proxy environment variables are ignored; nothing is decompressed.
//! * Every exchange ends at its deadline; what is read of an answer is bounded ([`ResponseLimits`]).
//! * The receiver's failures are [`TransportError`]s with stable codes; an answer of any status is a [`Response`].

mod chunked;
mod connect;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod http1;
mod proxy;
mod resolve;
mod response;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwire_core::egress::{EgressPolicy, Host, Target};
use bellwire_core::limits;
use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use connect::{Dialer, Stream};
pub use error::{ConnectFailure, Phase, TlsFailure, TransportError};
pub use head::RequestHead;
use http1::Http1;
pub use proxy::Proxy;
pub use resolve::{Answers, Resolve, SystemResolver};
pub use response::{Response, ResponseLimits};

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    pub policy: EgressPolicy,
    pub proxy: Option<Proxy>,
    /// Certificate authorities trusted beside the machine's own (DER).
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// For one address; see [`limits::CONNECT_MS_MAX`].
    pub connect_timeout: Duration,
    pub response: ResponseLimits,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            policy: EgressPolicy::default(),
            proxy: None,
            extra_roots: Vec::new(),
            connect_timeout: Duration::from_millis(limits::CONNECT_MS_MAX),
            response: ResponseLimits::default(),
        }
    }
}

/// Makes connections under one policy. Share it behind an `Arc`; it holds no connections itself.
pub struct Client {
    policy: RwLock<Arc<EgressPolicy>>,
    /// Counts policies: connections made under an older one are not used again.
    generation: AtomicU64,
    resolver: Arc<dyn Resolve>,
    proxy: Option<Proxy>,
    tls: Result<Arc<rustls::ClientConfig>, String>,
    connect_timeout: Duration,
    response: ResponseLimits,
}

/// One keep-alive connection to one target.
pub struct Connection {
    http: Http1<Stream>,
    host: Host,
    port: u16,
    is_tls: bool,
    address: SocketAddr,
    generation: u64,
    made_at: Instant,
    used_at: Instant,
}

impl Client {
    /// Makes a client that asks the machine's DNS servers. A machine without certificate authorities still gets a client;
    /// its `https:` requests fail as [`TransportError::Local`].
    pub fn new(options: ClientOptions) -> Self {
        Self::with_resolver(options, Arc::new(SystemResolver::default()))
    }

    /// Makes a client with another source of addresses.
    pub fn with_resolver(options: ClientOptions, resolver: Arc<dyn Resolve>) -> Self {
        Self {
            policy: RwLock::new(Arc::new(options.policy)),
            generation: AtomicU64::new(0),
            resolver,
            proxy: options.proxy,
            tls: tls_config(options.extra_roots).map_err(|error| format!("TLS cannot be set up: {error}")),
            connect_timeout: options.connect_timeout,
            response: options.response,
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<EgressPolicy> {
        Arc::clone(&self.policy.read())
    }

    /// Puts another policy in force: for new connections at once, and open ones are not used again.
    pub fn set_policy(&self, policy: EgressPolicy) {
        let mut slot = self.policy.write();
        *slot = Arc::new(policy);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Opens a connection to `target` before `deadline`. The name is looked up once, and every answer judged.
    ///
    /// # Errors
    /// [`TransportError`]: `Refused`, `Unresolvable`, `Connect`, `Tls`, `Timeout`, `Proxy`, `Local`.
    pub async fn connect(&self, target: &Target, deadline: Instant) -> Result<Connection, TransportError> {
        // Before the policy is read: a policy set in between makes this connection old, not the other way round.
        let generation = self.generation.load(Ordering::Acquire);
        let policy = self.policy();
        let dialer = Dialer {
            policy: &policy,
            resolver: &*self.resolver,
            proxy: self.proxy.as_ref(),
            tls: &self.tls,
            connect_timeout: self.connect_timeout,
            deadline,
        };
        let (stream, address) = dialer.dial(target).await?;
        let now = Instant::now();
        Ok(Connection {
            http: Http1::new(stream, self.response),
            host: target.host.clone(),
            port: target.port,
            is_tls: target.tls,
            address,
            generation,
            made_at: now,
            used_at: now,
        })
    }

    /// Sends a request over the connection in `slot`, opening one if there is none that can be used, and leaves in `slot`
    /// what can be used again.
    ///
    /// A request that finds its kept-alive connection closed, with no byte received, is sent once more on a fresh one
    /// ([`Response::is_resent`]); the receiver may then see it twice, with the same id.
    ///
    /// `head`: from [`RequestHead::write`]. `deadline`: for all of it, connecting included. `may_send` is asked right before the request is
    /// written, each time, since connecting may have taken long; `None`: it said no, and the request was not sent (again).
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn exchange(
        &self,
        slot: &mut Option<Connection>,
        target: &Target,
        head: &[u8],
        body: &[u8],
        deadline: Instant,
        may_send: impl Fn() -> bool,
    ) -> Result<Option<Response>, TransportError> {
        if slot.as_ref().is_some_and(|connection| !self.is_usable(connection, target)) {
            *slot = None;
        }
        let connection = match slot {
            Some(connection) => connection,
            // In a box: whoever has a connection does not carry along what it takes to make one.
            None => slot.insert(Box::pin(self.connect(target, deadline)).await?),
        };
        if !may_send() {
            return Ok(None);
        }
        let mut result = connection.send(head, body, deadline).await;
        if result.as_ref().is_err_and(TransportError::is_stale_connection) {
            *slot = None;
            let connection = slot.insert(Box::pin(self.connect(target, deadline)).await?);
            if !may_send() {
                return Ok(None);
            }
            result = connection.send(head, body, deadline).await.map(|answer| Response { is_resent: true, ..answer });
        }
        if slot.as_ref().is_some_and(|connection| !connection.is_reusable()) {
            *slot = None;
        }
        result.map(Some)
    }

    /// One request on a connection of its own: for the command line, handshakes and tests. `headers` are added to the
    /// standard ones.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn request(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<Response, TransportError> {
        let target = self.policy().judge_url(url)?;
        let mut head = Vec::new();
        RequestHead::new(method, &target, concat!("Bellwire/", env!("CARGO_PKG_VERSION")))?.write(
            &mut head,
            headers,
            body.len(),
        )?;
        let deadline = Instant::now() + timeout;
        self.connect(&target, deadline).await?.send(&head, body, deadline).await
    }

    fn is_usable(&self, connection: &Connection, target: &Target) -> bool {
        let now = Instant::now();
        connection.is_reusable()
            && connection.generation == self.generation.load(Ordering::Acquire)
            && connection.is_tls == target.tls
            && connection.port == target.port
            && connection.host == target.host
            && now.duration_since(connection.used_at) < Duration::from_secs(limits::CONNECTION_IDLE_SECONDS)
            && now.duration_since(connection.made_at) < Duration::from_secs(limits::CONNECTION_AGE_SECONDS_MAX)
    }
}

impl Connection {
    /// Sends one request and reads its answer before `deadline`. Dropping the future ends the connection's use.
    ///
    /// # Errors
    /// [`TransportError`]: `Timeout`, `Protocol`, `Closed`, `HeadTooLarge`. After an error the connection cannot be reused.
    pub async fn send(&mut self, head: &[u8], body: &[u8], deadline: Instant) -> Result<Response, TransportError> {
        let result = self.http.exchange(head, body, deadline).await;
        self.used_at = Instant::now();
        result
    }

    /// Whether another request may be sent.
    pub fn is_reusable(&self) -> bool {
        self.http.is_reusable()
    }

    /// The judged address at the other end (behind the proxy, if there is one).
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn tls_config(extra_roots: Vec<CertificateDer<'static>>) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra_roots, Arc::clone(&provider))?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
