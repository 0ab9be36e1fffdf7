//! A source made ready for requests: preset, credentials, networks, schema and answer, read once.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{Source, limits};
use bellwire_verify::handshake::Flow;
use bellwire_verify::{Confidence, Credentials, Preset, Reason, Refusal};
use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::mask::Mask;
use super::room::Room;
use super::schema::Schema;
use super::{Prepared, Receive, default_answer, prepare, schema};

/// The kind without a provider.
pub const GENERIC: &str = "generic-webhook";
/// What a handshake has left: the key of events from then on.
pub const STATE_SECRET: &str = "secret";
/// How the provider calls it.
pub const STATE_SECRET_NAME: &str = "secretName";
/// Whether the operator has to copy it to the provider.
pub const STATE_FOR_OPERATOR: &str = "isForOperator";
/// Unix seconds.
pub const STATE_LEASE: &str = "leaseEndsAt";
/// Names of the Svix API whose preset has another name here; those of its customers sign as it does.
const SVIX_NAMES: &[(&str, &str)] = &[
    ("beehiiv", "svix"),
    ("guesty", "svix"),
    ("incident-io", "svix"),
    ("nash", "svix"),
    ("pleo", "svix"),
    ("psi-fi", "svix"),
    ("render", "svix"),
    ("safebase", "svix"),
    ("sardine", "svix"),
    ("hubspot", "hubspot-v3"),
    ("open-ai", "openai"),
    ("stych", "stytch"),
];

/// Names in a config of the Svix API for what is `secret` here, by kind.
const SVIX_SECRETS: &[(&str, &str)] = &[("adobe-sign", "clientId")];
/// The Svix API's name for `toleranceSeconds` (Tailscale).
const SVIX_TOLERANCE: &str = "timestampGraceSeconds";

/// The preset of a source's kind.
pub fn preset_id(kind: &str) -> &str {
    SVIX_NAMES.iter().find(|(name, _)| *name == kind).map_or(kind, |(_, preset)| preset)
}

pub struct Ready {
    pub source: Source,
    pub preset: Option<Arc<Preset>>,
    pub flow: Option<&'static Flow>,
    pub credentials: Credentials,
    /// The secret that handshakes compare with and never replace.
    pub settled: Option<String>,
    /// Why nothing can be verified.
    pub problem: Option<String>,
    pub networks: Vec<IpNet>,
    pub body_bytes_max: usize,
    pub window: Duration,
    pub schema: Option<Schema>,
    pub(super) answer: Prepared,
    /// What of the room for large bodies this source may have.
    pub share: Semaphore,
    /// What must not be shown.
    pub mask: Mask,
    /// The source's id as text.
    pub id: String,
}

impl Ready {
    pub fn new(receive: &Receive, source: Source) -> Self {
        let preset = receive.preset(&source.kind).cloned();
        let flow = flow_of(preset.as_deref(), &source);
        let credentials = credentials_of(preset.as_deref(), flow, &source);
        let credentials = match &preset {
            Some(preset) => preset.prepare(credentials),
            None => credentials,
        };
        let problem = match &preset {
            Some(preset) => preset.check_credentials(&credentials).err().map(|refusal| refusal.to_string()),
            None if source.kind == GENERIC => None,
            None => Some(format!("there is no preset {:?} (any more)", source.kind)),
        };
        let settings = &source.settings;
        let acknowledged = flow.map(|flow| flow.acknowledgement(&credentials));
        let custom = settings.answer.as_ref().and_then(|answer| {
            let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            prepare(answer.status, headers, &answer.body).ok()
        });
        let own = acknowledged.and_then(|answer| {
            let headers = answer.headers.iter().map(|(name, value)| (*name, value.as_str()));
            prepare(answer.status, headers, &answer.body).ok()
        });
        Self {
            settled: settled_of(&source),
            networks: networks_of(&settings.allowed_networks),
            body_bytes_max: settings
                .body_bytes_max
                .unwrap_or(limits::RECEIVED_BODY_BYTES_MAX)
                .min(limits::RECEIVED_BODY_BYTES_MAX),
            window: Duration::from_secs(settings.duplicates.window_seconds.min(limits::DUPLICATE_WINDOW_SECONDS_MAX)),
            schema: settings.schema.as_ref().map(schema::compile),
            answer: custom.or(own).unwrap_or_else(default_answer),
            share: Room::share(),
            mask: Mask::new(secret_headers(preset.as_deref(), &source), secrets_of(&source)),
            id: source.id.to_string(),
            preset,
            flow,
            credentials,
            problem,
            source,
        }
    }
}

fn secrets_of(source: &Source) -> impl Iterator<Item = &str> {
    source.config.iter().filter(|(name, _)| !is_shown(name)).map(|(_, secret)| secret.expose())
}

/// The handshake that is set, or the preset's.
pub fn flow_of(preset: Option<&Preset>, source: &Source) -> Option<&'static Flow> {
    source.settings.handshake.as_deref().or(preset.map(Preset::id)).and_then(Flow::named)
}

fn networks_of(texts: &[String]) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = texts.iter().filter_map(|text| parse_network(text)).collect();
    if networks.is_empty() && !texts.is_empty() {
        // Unreadable is not unrestricted: nobody has this address.
        networks.extend(parse_network("255.255.255.255/32"));
    }
    networks
}

/// A network, or a single address.
pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn settled_of(source: &Source) -> Option<String> {
    let kept = source.state.get(STATE_SECRET).or_else(|| source.config.get("secret"));
    kept.map(|secret| secret.expose().to_owned()).filter(|secret| !secret.trim().is_empty())
}

/// `webhookId` → `webhook_id`.
fn to_snake(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, c| {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
        text
    })
}

/// What a name of a source's config is: `secret`, `secret.1`, … and `publicKey` are secrets that may fit; the rest are settings.
pub fn credentials_of(preset: Option<&Preset>, flow: Option<&Flow>, source: &Source) -> Credentials {
    let mut credentials = Credentials::none();
    for (name, value) in &source.config {
        let (value, setting) = (value.expose(), to_snake(name));
        let is_setting = preset.is_some_and(|preset| preset.settings().contains_key(&setting))
            || flow.is_some_and(|flow| flow.settings().contains(&setting.as_str()));
        let is_secret = name == "secret"
            || name.starts_with("secret.")
            || name == "publicKey"
            || SVIX_SECRETS.contains(&(source.kind.as_str(), name.as_str()));
        credentials = match name.as_str() {
            "basicPassword" | "headerToken" => credentials,
            "toleranceSeconds" | SVIX_TOLERANCE => match value.parse() {
                Ok(seconds) => credentials.tolerance_s(seconds),
                Err(_) => credentials,
            },
            _ if is_secret && !is_setting => credentials.and_secret(value),
            _ => credentials.setting(setting, value),
        };
    }
    if let Some(kept) = source.state.get(STATE_SECRET) {
        credentials = credentials.and_secret(kept.expose());
    }
    let is_by_url = preset.is_some_and(|preset| preset.family() == "secret-url");
    if is_by_url && !source.config.contains_key("secret") {
        // These providers know nothing but a URL that is hard to guess; the source's own is.
        credentials = credentials.and_secret(source.token.expose());
    }
    credentials
}

/// Config that is no secret and may be shown.
pub fn is_shown(name: &str) -> bool {
    const SHOWN: &[&str] = &[
        "publicKey", "schedule", "payload", "contentType", "timezone", "eventType", "webhookId", "topicArn", "allow", "audience",
        "email", "algorithm", "header", "merchant", "toleranceSeconds", SVIX_TOLERANCE,
    ];
    SHOWN.contains(&name)
}

fn secret_headers(preset: Option<&Preset>, source: &Source) -> Vec<String> {
    let is_bearer = |preset: &&Preset| matches!(preset.family(), "token" | "basic" | "jwt" | "secret-url" | "network");
    let places = preset.filter(is_bearer).map(Preset::signature_places).unwrap_or_default();
    let of_preset = places.iter().filter_map(|place| place.strip_prefix("header:")).map(str::to_ascii_lowercase);
    let of_setting = source.config.get("header").map(|name| name.expose().to_ascii_lowercase());
    let own = source.settings.token_header.as_ref().map(|name| name.to_ascii_lowercase());
    of_preset.chain(of_setting).chain(own).chain([super::gate::SUBJECT_HEADER.to_owned()]).collect()
}

/// What an operator should know about a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub code: &'static str,
    pub text: String,
}

/// Everything that is worth a warning.
pub fn warnings_of(receive: &Receive, source: &Source) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code, text| warnings.push(Warning { code, text });
    if source.settings.is_unverified_allowed {
        warn("unverified", "anybody who knows the URL can send events: isUnverifiedAllowed is on".to_owned());
    }
    let Some(preset) = receive.preset(&source.kind) else { return warnings };
    let credentials = credentials_of(Some(preset), flow_of(Some(preset), source), source);
    match preset.check_credentials(&credentials) {
        Err(refusal) if is_missing(&refusal) => {
            warn("no_secret", format!("every request is refused until the config is complete: {refusal}"));
        }
        Err(refusal) => warn("secret_invalid", format!("every request is refused: {refusal}")),
        Ok(()) => {}
    }
    match preset.confidence() {
        Confidence::Verified => {}
        Confidence::Docs => {
            warn("docs", format!("how {} signs is known from its documentation, not tried with its library", preset.name()))
        }
        _ => warn("recalled", format!("how {} signs is known from memory: try it before you rely on it", preset.name())),
    }
    if !preset.covers_body() {
        warn(
            "body_not_covered",
            format!("what {} offers does not cover the body: it is as trustworthy as the connection", preset.name()),
        );
    }
    warnings
}

/// Whether the source lacks something, as opposed to having something unusable.
pub fn is_missing(refusal: &Refusal) -> bool {
    matches!(refusal.reason(), Reason::SecretMissing | Reason::SettingMissing)
}
