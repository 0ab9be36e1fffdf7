//! Sources on the wire. What is in a source's config is written and never shown, but for what is no secret.

use std::collections::BTreeMap;

use bellwire_core::{Metadata, Secret, Source, SourceSettings, limits};
use bellwire_store::Receipt;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

use super::field::{MetadataIn, Patch, present};
use super::text::{DateTime, IdOrUid, Name, Uid};
use crate::receive::{Warning, is_shown};

/// Secrets and identifiers by name, as the provider shows them.
///
/// `secret` may be a list: during a rotation any one may fit. Numbers are taken as texts.
#[derive(Clone, Default)]
pub struct ConfigIn(pub BTreeMap<String, Option<Vec<String>>>);

impl std::fmt::Debug for ConfigIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for ConfigIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let map = BTreeMap::<String, Value>::deserialize(deserializer)?;
        if map.len() > limits::SOURCE_CONFIG_ENTRIES_MAX {
            let text = format!("config has {} entries; at most {} are allowed", map.len(), limits::SOURCE_CONFIG_ENTRIES_MAX);
            return Err(D::Error::custom(text));
        }
        let mut read = BTreeMap::new();
        for (name, value) in map {
            if name.is_empty() || name.len() > 64 || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
                let shown: String = name.chars().take(64).collect();
                return Err(D::Error::custom(format!("{shown:?} cannot be a name in config: letters, digits and _ are allowed")));
            }
            let texts = match value {
                Value::Null => None,
                Value::Array(list) if name == "secret" && !list.is_empty() && list.len() <= bellwire_verify::SECRETS_MAX => {
                    Some(list.into_iter().map(text_of).collect::<Option<Vec<_>>>())
                }
                other => Some(text_of(other).map(|text| vec![text])),
            };
            let texts = match texts {
                None => None,
                Some(Some(texts)) if texts.iter().all(|text| text.len() <= limits::SOURCE_CONFIG_BYTES_MAX) => Some(texts),
                Some(Some(_)) => {
                    return Err(D::Error::custom(format!("{name} is longer than {} bytes", limits::SOURCE_CONFIG_BYTES_MAX)));
                }
                Some(None) => return Err(D::Error::custom(format!("{name} is no text (a secret may be a list of texts)"))),
            };
            read.insert(name, texts);
        }
        Ok(Self(read))
    }
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

impl ConfigIn {
    /// Sets what is given and removes what is null; the rest stays.
    pub fn apply(self, config: &mut BTreeMap<String, Secret>) {
        for (name, texts) in self.0 {
            config.retain(|known, _| *known != name && known.strip_prefix(&name).is_none_or(|rest| !rest.starts_with('.')));
            for (index, text) in texts.into_iter().flatten().enumerate() {
                let name = if index == 0 { name.clone() } else { format!("{name}.{index}") };
                config.insert(name, Secret::new(text));
            }
        }
    }
}

impl PartialSchema for ConfigIn {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Secrets and identifiers by name, as the provider shows them. `secret` may be a list."))
            .max_properties(Some(limits::SOURCE_CONFIG_ENTRIES_MAX))
            .into()
    }
}

impl ToSchema for ConfigIn {}

/// A preset's id (`github`), `generic-webhook` or `cron`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct SourceKind(pub String);

impl TryFrom<String> for SourceKind {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        IdOrUid::check(&text)
            .map_err(|_| "the type is a preset's id (GET /api/v1/provider), generic-webhook or cron".to_owned())?;
        Ok(Self(text))
    }
}

impl PartialSchema for SourceKind {
    fn schema() -> RefOr<Schema> {
        IdOrUid::schema()
    }
}

impl ToSchema for SourceKind {}

/// A new source, or the whole of a changed one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestSourceIn {
    pub name: Name,
    #[serde(default)]
    #[schema(value_type = Option<Uid>)]
    pub uid: Patch<Uid>,
    #[serde(default)]
    pub metadata: MetadataIn,
    /// A preset's id (`github`, `stripe`, …), `generic-webhook` or `cron`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: SourceKind,
    /// What the provider shows: `secret`, or what the preset names. When replacing: absent keeps what there is.
    #[serde(default)]
    #[schema(value_type = Option<ConfigIn>)]
    pub config: Option<ConfigIn>,
    /// The application whose messages it makes; absent: one of its own. Only when creating.
    #[serde(default)]
    pub app_id: Option<IdOrUid>,
    /// As of `PUT /api/v1/source/{source_id}/settings`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub settings: Option<SourceSettings>,
}

/// What of a source changes; absent stays as it is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestSourcePatch {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Name, required = false)]
    pub name: Option<Name>,
    #[serde(default)]
    #[schema(value_type = Option<Uid>)]
    pub uid: Patch<Uid>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = MetadataIn, required = false)]
    pub metadata: Option<MetadataIn>,
    #[serde(default, rename = "type", deserialize_with = "present")]
    #[schema(value_type = String, required = false)]
    pub kind: Option<SourceKind>,
    /// Names that are given are set, null removes them, the rest stays.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = ConfigIn, required = false)]
    pub config: Option<ConfigIn>,
}

/// Something an operator should know about a source.
#[derive(Debug, Serialize, ToSchema)]
pub struct WarningOut {
    pub code: &'static str,
    pub text: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestSourceOut {
    #[schema(min_length = 31, max_length = 31, pattern = "^src_[A-Za-z0-9]{27}$")]
    pub id: String,
    #[schema(required = true)]
    pub uid: Option<String>,
    pub name: String,
    /// What to enter at the provider. Null of kinds that nobody sends to (`cron`).
    #[schema(required = true)]
    pub ingest_url: Option<String>,
    pub created_at: DateTime,
    pub updated_at: DateTime,
    #[schema(value_type = MetadataIn)]
    pub metadata: Metadata,
    #[serde(rename = "type")]
    pub kind: String,
    /// What of the config is no secret.
    #[schema(value_type = MetadataIn)]
    pub config: BTreeMap<String, String>,
    /// Names of everything in the config.
    pub config_names: Vec<String>,
    pub app_id: String,
    pub warnings: Vec<WarningOut>,
}

impl IngestSourceOut {
    pub fn new(source: &Source, ingest_url: Option<String>, warnings: Vec<Warning>) -> Self {
        let shown = source.config.iter().filter(|(name, _)| is_shown(name));
        Self {
            id: source.id.to_string(),
            uid: source.uid.clone(),
            name: source.name.clone(),
            ingest_url,
            created_at: DateTime(source.created_at),
            updated_at: DateTime(source.updated_at),
            metadata: source.metadata.clone(),
            kind: source.kind.clone(),
            config: shown.map(|(name, secret)| (name.clone(), secret.expose().to_owned())).collect(),
            config_names: source.config.keys().cloned().collect(),
            app_id: source.app.to_string(),
            warnings: warnings.into_iter().map(|warning| WarningOut { code: warning.code, text: warning.text }).collect(),
        }
    }
}

/// The URL after its token was replaced.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotateTokenOut {
    pub ingest_url: String,
}

/// An entry of a source's log, as the Svix API has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct IngestLogOut {
    pub id: String,
    pub source_id: String,
    pub status_code: i16,
    pub error_text: String,
    #[schema(value_type = MetadataIn)]
    pub headers: BTreeMap<String, String>,
    pub payload: String,
    pub created_at: DateTime,
    pub updated_at: DateTime,
}

impl From<Receipt> for IngestLogOut {
    fn from(receipt: Receipt) -> Self {
        Self {
            id: receipt.id.to_string(),
            source_id: receipt.source.to_string(),
            status_code: i16::try_from(receipt.status).unwrap_or(i16::MAX),
            error_text: format!("{}: {}", receipt.reason, receipt.detail),
            headers: receipt.headers.into_iter().collect(),
            payload: text_of_bytes(receipt.payload.as_deref()).unwrap_or_default(),
            created_at: DateTime(receipt.at),
            updated_at: DateTime(receipt.at),
        }
    }
}

fn text_of_bytes(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// An entry of a source's log: a request that became no message of its own.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptOut {
    pub id: String,
    pub at: DateTime,
    /// What was answered.
    pub status: u16,
    /// `duplicate`, `verification_failed.…`, `no_secret`, `too_large`, `schema`, `handshake`, ….
    pub reason: String,
    pub detail: String,
    /// The message that this request repeats.
    #[schema(required = true)]
    pub duplicate_of: Option<String>,
    #[schema(value_type = MetadataIn)]
    pub headers: BTreeMap<String, String>,
    /// Kept of quarantined requests only.
    #[schema(required = true)]
    pub payload: Option<String>,
}

impl From<Receipt> for ReceiptOut {
    fn from(receipt: Receipt) -> Self {
        Self {
            id: receipt.id.to_string(),
            at: DateTime(receipt.at),
            status: receipt.status,
            reason: receipt.reason,
            detail: receipt.detail,
            duplicate_of: receipt.duplicate_of.map(|id| id.to_string()),
            headers: receipt.headers.into_iter().collect(),
            payload: text_of_bytes(receipt.payload.as_deref()),
        }
    }
}

/// What can be set about a source beyond the Svix API; see the documentation of each name there.
#[derive(Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct SettingsBody(pub SourceSettings);

impl PartialSchema for SettingsBody {
    fn schema() -> RefOr<Schema> {
        let of = |kind: Type, about: &str| {
            let types = SchemaType::from_iter([kind, Type::Null]);
            ObjectBuilder::new().schema_type(types).description(Some(about)).build()
        };
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("isUnverifiedAllowed", of(Type::Boolean, "Takes requests without verifying who sent them."))
            .property("requireJson", of(Type::Boolean, "422 for bodies that are no JSON."))
            .property("bodyBytesMax", of(Type::Integer, "Bytes of one body; larger is 413."))
            .property("allowedNetworks", of(Type::Array, "Networks that may send (CIDR); empty: all."))
            .property("rateLimit", of(Type::Integer, "Requests a second on each node; above it 429."))
            .property("basicUser", of(Type::String, "Basic authentication; the password is `basicPassword` of the config."))
            .property("tokenHeader", of(Type::String, "Header that must hold `headerToken` of the config."))
            .property(
                "clientCertificateSubjects",
                of(Type::Array, "Subjects that a trusted proxy may pass in x-client-cert-subject."),
            )
            .property("answer", of(Type::Object, "`status` (200 to 299), `headers`, `body` of the answer to success."))
            .property("duplicates", of(Type::Object, "`by` (provider, parts, body, off), `parts` (places), `windowSeconds`."))
            .property("orderingKey", of(Type::String, "Place of the ordering key: JSON Pointer, `header:NAME` or `query:NAME`."))
            .property("schema", of(Type::Object, "JSON Schema; what does not fulfil it is quarantined."))
            .property("eventType", of(Type::String, "Place of the event type."))
            .property("staleAfterSeconds", of(Type::Integer, "Older events are marked as stale."))
            .property("occurredAt", of(Type::String, "Place of the event's time."))
            .property("handshake", of(Type::String, "The handshake of a provider without a preset."))
            .property("sequence", of(Type::String, "Place of the event's sequence number."))
            .into()
    }
}

impl ToSchema for SettingsBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "SourceSettings".into()
    }
}

/// What a handshake has left with a source.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandshakeOut {
    /// How the provider calls the secret.
    #[schema(required = true)]
    pub secret_name: Option<String>,
    /// Shown only if it must be copied to the provider.
    #[schema(required = true)]
    pub secret: Option<String>,
    /// Until when the subscription lasts.
    #[schema(required = true)]
    pub lease_ends_at: Option<DateTime>,
}

/// A provider whose requests can be verified.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderOut {
    /// The `type` of a source.
    pub id: String,
    pub name: String,
    pub family: String,
    /// `verified` with the provider's library, after its `docs`, or `recalled`.
    pub confidence: String,
    pub docs: String,
    pub notes: String,
    /// Names in a source's config besides `secret`, and whether they are needed.
    #[schema(value_type = Object)]
    pub settings: BTreeMap<String, bool>,
    pub signature_at: Vec<String>,
    #[schema(required = true)]
    pub tolerance_seconds: Option<u64>,
    pub covers_body: bool,
    pub has_handshake: bool,
}

impl From<&bellwire_verify::Preset> for ProviderOut {
    fn from(preset: &bellwire_verify::Preset) -> Self {
        Self {
            id: preset.id().to_owned(),
            name: preset.name().to_owned(),
            family: preset.family().to_owned(),
            confidence: preset.confidence().as_str().to_owned(),
            docs: preset.docs().to_owned(),
            notes: preset.notes().to_owned(),
            settings: preset.settings().iter().map(|(name, setting)| (name.clone(), setting.is_required)).collect(),
            signature_at: preset.signature_places(),
            tolerance_seconds: preset.tolerance_s(),
            covers_body: preset.covers_body(),
            has_handshake: bellwire_verify::handshake::Flow::named(preset.id()).is_some(),
        }
    }
}
