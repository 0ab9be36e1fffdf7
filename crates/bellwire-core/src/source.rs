//! Sources: ways in. What a source is set up to check, recognise and answer; who checks is `bellwire-verify` and the API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AppId, OrgId, SourceId};
use crate::noun::{Metadata, Secret};
use crate::time::Timestamp;

/// A way in: a public URL whose requests are verified, recognised when they come twice, and become messages of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub id: SourceId,
    pub org: OrgId,
    /// Whose messages it makes.
    pub app: AppId,
    /// The application was made for this source alone, and goes with it.
    pub is_app_own: bool,
    pub uid: Option<String>,
    pub name: String,
    /// A preset's id (`github`, `stripe`, …), `generic-webhook` or `cron`.
    pub kind: String,
    /// The secret part of the public URL.
    pub token: Secret,
    /// Secrets and identifiers the preset needs, by name (`secret`, `webhookId`, …). Never shown again. Sealed at rest.
    pub config: BTreeMap<String, Secret>,
    pub settings: SourceSettings,
    /// What handshakes have left behind (Asana's secret), by name. Sealed at rest.
    pub state: BTreeMap<String, Secret>,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What can be set about a source, and shown. All off or default unless said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SourceSettings {
    /// Takes requests without verifying who sent them. Explicit and visible: without it, a source whose provider signs and that
    /// has no secret takes nothing.
    pub is_unverified_allowed: bool,
    /// 422 for bodies that are not JSON.
    pub require_json: bool,
    /// Bytes of one body; larger is 413. Never above the server's own limit.
    pub body_bytes_max: Option<usize>,
    /// Networks that may send; empty: all.
    pub allowed_networks: Vec<String>,
    /// Requests a second; above it 429.
    pub rate_limit: Option<u16>,
    /// `authorization: Basic …` that must match, as `user:password` (the password is in the source's config as `basicPassword`).
    pub basic_user: Option<String>,
    /// Header whose value must equal the config's `headerToken`.
    pub token_header: Option<String>,
    /// Subjects of client certificates, as a trusted proxy passes them on in `x-client-cert-subject`; empty: none is asked for.
    pub client_certificate_subjects: Vec<String>,
    /// What success is answered with instead of 200 and an empty JSON object.
    pub answer: Option<SourceAnswer>,
    pub duplicates: DuplicateRule,
    /// JSON Pointer to the ordering key in the body (`/data/customer`).
    pub ordering_key: Option<String>,
    /// JSON Schema every body must fulfil; what does not is quarantined: answered as success, kept in the log, not a message.
    pub schema: Option<serde_json::Value>,
    /// JSON Pointer or `header:NAME` to the event type, where the preset does not say or says otherwise.
    pub event_type: Option<String>,
    /// Events older than this by the provider's own time are marked as stale.
    pub stale_after_seconds: Option<u64>,
    /// JSON Pointer or `header:NAME` to the time of the event (RFC 3339, or Unix seconds or milliseconds), where it is not known of the
    /// provider. Without any, the time of its signature counts.
    pub occurred_at: Option<String>,
    /// The handshake of a provider that there is no preset for (`clio`, `smartcar`, …), or another than its preset's.
    pub handshake: Option<String>,
    /// JSON Pointer or `header:NAME` to the event's sequence number.
    pub sequence: Option<String>,
}

/// A custom answer to success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceAnswer {
    /// 200 to 299.
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
}

/// How an event that came before is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DuplicateRule {
    pub by: DuplicateKey,
    /// JSON Pointers (`/id`) and `header:NAME`s whose values together are the key, for [`DuplicateKey::Parts`].
    pub parts: Vec<String>,
    /// How long an event is remembered.
    pub window_seconds: u64,
}

/// What makes two events the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DuplicateKey {
    /// The provider's event id; where it has none, or the request lacks it, the whole body.
    #[default]
    Provider,
    Parts,
    Body,
    Off,
}

impl Default for DuplicateRule {
    fn default() -> Self {
        Self { by: DuplicateKey::Provider, parts: Vec::new(), window_seconds: crate::limits::DUPLICATE_WINDOW_SECONDS_DEFAULT }
    }
}

/// Where a received message came from, kept with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    pub source: String,
    /// Method, and path after the token.
    pub method: String,
    pub path: String,
    /// Headers as they came, but for credentials and hop-by-hop ones; lower-case names.
    pub headers: Vec<(String, String)>,
    pub remote_address: String,
    /// How it was verified: a scheme's name, or `none` where that was allowed.
    pub verified_by: String,
    pub ordering_key: Option<String>,
    /// The provider's own time of the event, and its sequence number, where it has them.
    pub occurred_at: Option<i64>,
    pub sequence: Option<String>,
    /// Older than an event of the same ordering key that came before it.
    pub is_late: bool,
    /// Older than the source's `staleAfterSeconds`.
    pub is_stale: bool,
}
