//! The public way in: `/in/{token}[/rest]`. A request is verified over its raw bytes, recognised when it comes twice, and published.
//!
//! The order of the checks is what keeps strangers cheap: `sources.rs` finds the source, `address.rs` and `gate.rs` look at the head,
//! `intake.rs` takes the body within limits, `judge.rs` verifies it and answers handshakes, `recognise.rs` reads what it is about, and
//! only then is it published. What does not become a message leaves an entry in the source's log (`receipts.rs`); the sender learns
//! nothing from an answer but its status.

mod address;
mod certificates;
mod cron;
mod gate;
mod intake;
mod judge;
mod mask;
mod rate;
mod ready;
mod receipts;
mod recognise;
mod room;
mod schema;
mod sources;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bellwire_core::{SourceId, limits};
use bellwire_engine::{Engine, Published};
use bellwire_store::{Idempotency, StoreError};
use bellwire_verify::{Preset, Presets};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use ipnet::IpNet;

pub use address::{PeerAddress, client_address};
pub use cron::{KIND as CRON, check as check_cron};
pub use gate::basic_credentials;
pub use ready::{
    GENERIC, STATE_FOR_OPERATOR, STATE_LEASE, STATE_SECRET, STATE_SECRET_NAME, Warning, credentials_of, flow_of, is_missing,
    is_shown, parse_network, preset_id, warnings_of,
};
pub use recognise::is_place;
pub use schema::{compile as compile_schema, finding_of};

use crate::ApiState;
use crate::answer;
use crate::error::ApiError;
use certificates::Certificates;
use rate::Buckets;
use ready::Ready;
use receipts::{Entry, Receipts};
use recognise::{Latest, Recognised};
use room::Room;
use sources::Sources;

/// Where the public URLs begin.
pub const PREFIX: &str = "/in/";
const METHODS: &str = "GET, HEAD, OPTIONS, PATCH, POST, PUT";

/// What an operator sets about receiving.
#[derive(Clone, Debug, Default)]
pub struct ReceiveConfig {
    /// Proxies whose word about the sender's address and certificate is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Presets of the operator's own; one with the id of a built-in one takes its place.
    pub presets: Vec<Preset>,
}

/// What all received requests share.
pub struct Receive {
    sources: Sources,
    buckets: Buckets,
    receipts: Receipts,
    certificates: Certificates,
    latest: Latest,
    /// For the bodies in memory.
    room: Room,
    trusted_proxies: Vec<IpNet>,
    presets: BTreeMap<String, Arc<Preset>>,
}

impl Receive {
    pub fn new(engine: &Arc<Engine>, config: ReceiveConfig) -> Self {
        let builtin = Presets::builtin().iter().cloned();
        let presets = builtin.chain(config.presets).map(|preset| (preset.id().to_owned(), Arc::new(preset))).collect();
        Self {
            sources: Sources::new(),
            buckets: Buckets::new(),
            receipts: Receipts::start(engine),
            certificates: Certificates::new(engine.config()),
            latest: Latest::new(),
            room: Room::new(),
            trusted_proxies: config.trusted_proxies,
            presets,
        }
    }

    /// The preset of a source's kind; `generic-webhook` and `cron` have none.
    pub fn preset(&self, kind: &str) -> Option<&Arc<Preset>> {
        self.presets.get(preset_id(kind))
    }

    /// All of them, by id.
    pub fn presets(&self) -> impl Iterator<Item = &Arc<Preset>> {
        self.presets.values()
    }

    /// To be called after every write to a source, with each token it has or had.
    pub fn source_changed(&self, token: &str) {
        self.sources.forget(token);
    }

    /// Entries of sources' logs that were not kept since the start.
    pub fn receipts_dropped(&self) -> u64 {
        self.receipts.dropped()
    }

    /// Writes what of the logs is still in memory.
    pub async fn flush(&self) {
        self.receipts.flush().await;
    }
}

/// Why a request becomes no message.
enum Stop {
    /// Answered with this, and nothing is noted.
    Answered(Box<Response>),
    /// Answered with this, and noted in the source's log.
    Noted(Box<Response>, &'static str, String),
    Refused(Refused),
    /// Ours: the sender is to come again.
    Fault(ApiError),
}

/// A refusal: a status for the sender, the reason for the log.
struct Refused {
    status: StatusCode,
    reason: String,
    detail: String,
    retry_after: Option<u64>,
    challenge: Option<&'static str>,
    /// The rest of the body is not read.
    is_cut: bool,
}

impl Refused {
    fn new(status: StatusCode, reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), detail: detail.into(), retry_after: None, challenge: None, is_cut: false }
    }

    /// The status and nothing else.
    fn to_response(&self) -> Response {
        let mut response = empty(self.status);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.is_cut {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Fault(error)
    }
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// One request to a source, with its head judged.
struct Visit<'a> {
    api: &'a ApiState,
    ready: &'a Ready,
    parts: &'a Parts,
    /// The full public URL, as the provider knows it.
    url: String,
    client: std::net::IpAddr,
}

impl Visit<'_> {
    fn id(&self) -> SourceId {
        self.ready.source.id
    }
}

/// Answers one request under [`PREFIX`].
pub async fn serve(api: &ApiState, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let response = match find(api, &parts).await {
        Ok(ready) => visit(api, &ready, &parts, body).await,
        Err(Stop::Fault(error)) => fault(api, error),
        Err(Stop::Answered(response) | Stop::Noted(response, ..)) => *response,
        Err(Stop::Refused(refused)) => refused.to_response(),
    };
    api.count(response.status().as_u16());
    response
}

/// The source of the path. What is unknown is answered alike, whatever it looks like.
async fn find(api: &ApiState, parts: &Parts) -> Result<Arc<Ready>, Stop> {
    let token = parts.uri.path().strip_prefix(PREFIX).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    match api.receive().sources.find(api, token).await? {
        Some(ready) if ready.source.kind != CRON => Ok(ready),
        _ => Err(Stop::Answered(Box::new(empty(StatusCode::NOT_FOUND)))),
    }
}

async fn visit(api: &ApiState, ready: &Ready, parts: &Parts, body: Body) -> Response {
    let receive = api.receive();
    let client = client_address(parts, &receive.trusted_proxies);
    let path_and_query = parts.uri.path_and_query().map_or("/", |text| text.as_str());
    let visit = Visit { api, ready, parts, url: format!("{}{path_and_query}", api.public_url()), client };
    let (response, reason, detail) = match take(&visit, body).await {
        Ok(response) => return response,
        Err(Stop::Answered(response)) => return *response,
        Err(Stop::Fault(error)) => return fault(api, error),
        Err(Stop::Noted(response, reason, detail)) => (*response, reason.to_owned(), detail),
        Err(Stop::Refused(refused)) => (refused.to_response(), refused.reason, refused.detail),
    };
    tracing::debug!(source.id = %visit.id(), http.status = response.status().as_u16(), reason, "received request is no message");
    receive.receipts.note(api.engine(), entry(&visit, response.status(), reason, detail));
    response
}

fn entry(visit: &Visit<'_>, status: StatusCode, reason: String, detail: String) -> Entry {
    Entry {
        source: visit.id(),
        status: status.as_u16(),
        reason,
        detail,
        duplicate_of: None,
        payload: None,
        headers: visit.ready.mask.headers(&visit.parts.headers),
    }
}

fn fault(api: &ApiState, error: ApiError) -> Response {
    let mut request_id = String::new();
    if let ApiError::Internal { cause } = &error {
        request_id = u64::from_be_bytes(api.engine().random_bytes()).to_string();
        tracing::error!(request.id = request_id, cause, "received request failed");
    }
    error.into_response(&request_id)
}

async fn take(visit: &Visit<'_>, body: Body) -> Result<Response, Stop> {
    let ready = visit.ready;
    if !is_served(&visit.parts.method) {
        let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
        return Err(Stop::Answered(Box::new(response)));
    }
    gate::check_network(visit)?;
    visit.api.receive().buckets.take(visit)?;
    gate::check_credentials(visit)?;
    let headers: Vec<(&str, &[u8])> = visit.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    // A small body has come with its head, most likely: refusing it by the head alone would save nothing.
    let is_small = intake::announced(visit).is_some_and(|length| length <= limits::RECEIVED_WITH_HEAD_BYTES_MAX);
    let head_refusal = if is_small { None } else { judge::check_head(visit, &headers)? };
    let body_max = if head_refusal.is_some() { limits::HANDSHAKE_BODY_BYTES_MAX } else { ready.body_bytes_max };
    let taken = match intake::read(visit, body, body_max).await {
        // The head alone was refused, and no handshake is that large.
        Err(Stop::Refused(refused)) if refused.status == StatusCode::PAYLOAD_TOO_LARGE && head_refusal.is_some() => {
            return Err(head_refusal.map_or(Stop::Refused(refused), Stop::Refused));
        }
        taken => taken?,
    };
    let verified = judge::judge(visit, &headers, &taken.bytes).await?;
    if is_look(visit, &taken.bytes) {
        // A browser, or a provider that tries whether the URL is there.
        return Err(Stop::Answered(Box::new(ready.success()?)));
    }
    schema::check(visit, &taken.bytes).await?;
    let recognised = recognise::recognise(visit, &headers, taken.bytes.clone(), &verified);
    publish(visit, recognised).await
}

fn is_served(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Nothing that could be an event: no handshake, and it brings nothing.
fn is_look(visit: &Visit<'_>, body: &Bytes) -> bool {
    match visit.parts.method {
        Method::HEAD | Method::OPTIONS => true,
        Method::GET => body.is_empty() && visit.parts.uri.query().is_none_or(str::is_empty),
        _ => false,
    }
}

/// Invariant: success is answered after the commit, and the same to an event that came before.
async fn publish(visit: &Visit<'_>, recognised: Recognised) -> Result<Response, Stop> {
    let (api, ready) = (visit.api, visit.ready);
    let Some(app) = api.engine().application_by_id(ready.source.app).await? else {
        return Err(Stop::Answered(Box::new(empty(StatusCode::NOT_FOUND))));
    };
    let Recognised { message, duplicate_key, order } = recognised;
    let now = api.now();
    let window = ready.window.min(api.engine().config().retention);
    let idempotency = duplicate_key.map(|key| Idempotency { key, request: [0; 16], expires_at: now.plus(window), window });
    match api.engine().publish(&app, message, idempotency).await? {
        Published::Fresh(_) => {
            if let Some(order) = order {
                api.receive().latest.note(order);
            }
        }
        Published::Replayed(id) => {
            let mut entry = entry(visit, StatusCode::OK, "duplicate".to_owned(), format!("the same event as {id}"));
            entry.duplicate_of = Some(id);
            api.receive().receipts.note(api.engine(), entry);
        }
    }
    Ok(ready.success()?)
}

impl Ready {
    /// What success is answered with.
    fn success(&self) -> Result<Response, ApiError> {
        let (status, headers, body) = &self.answer;
        let mut response = if body.is_empty() { Response::new(Body::empty()) } else { Response::new(Body::from(body.clone())) };
        *response.status_mut() = *status;
        for (name, value) in headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(response)
    }
}

/// An answer as it is sent: its headers read once.
type Prepared = (StatusCode, Vec<(HeaderName, HeaderValue)>, Bytes);

/// Reads status and headers of an answer.
///
/// # Errors
/// The header that HTTP does not allow.
fn prepare<'a>(status: u16, headers: impl IntoIterator<Item = (&'a str, &'a str)>, body: &str) -> Result<Prepared, String> {
    let status = StatusCode::from_u16(status).map_err(|_| format!("{status} is no HTTP status"))?;
    let mut read = Vec::new();
    for (name, value) in headers {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of {name} has characters that headers cannot have"))?;
        read.push((header, value));
    }
    Ok((status, read, Bytes::from(body.to_owned())))
}

/// 200 and an empty JSON object.
fn default_answer() -> Prepared {
    let json = HeaderValue::from_static("application/json");
    (StatusCode::OK, vec![(header::CONTENT_TYPE, json)], Bytes::from_static(b"{}"))
}

/// The answer of a handshake.
fn handshake_response(answer: &bellwire_verify::handshake::Answer) -> Result<Response, ApiError> {
    let headers = answer.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let (status, headers, body) = prepare(answer.status, headers, &answer.body)
        .map_err(|error| ApiError::internal(format!("a handshake's answer cannot be sent: {error}")))?;
    let mut response = answer::from_bytes(status, body);
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in headers {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

pub use prepare_check::check_answer;

mod prepare_check {
    //! Custom answers are checked when they are set, by the code that will read them.

    use bellwire_core::SourceAnswer;

    /// # Errors
    /// Why it cannot be sent.
    pub fn check_answer(answer: &SourceAnswer) -> Result<(), String> {
        if !(200..300).contains(&answer.status) {
            return Err(format!("{} is no success; 200 to 299 are", answer.status));
        }
        let framing = ["content-length", "transfer-encoding", "connection"];
        if let Some(name) = answer.headers.keys().find(|name| framing.contains(&name.to_ascii_lowercase().as_str())) {
            return Err(format!("{name} is the server's own; leave it out"));
        }
        let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        super::prepare(answer.status, headers, &answer.body).map(drop)
    }
}
