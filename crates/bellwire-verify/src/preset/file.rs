//! The shape of a preset file (TOML). `presets/FORMAT.md` explains every key; unknown keys are refused.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::algorithm::Algorithm;
use crate::encoding::Encoding;
use crate::key_format::KeyFormat;
use crate::timestamp::Unit;

/// How sure a preset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Confidence {
    /// Checked against requests made by, or judged by, the provider's own or a well-known library.
    Verified,
    /// Written after the provider's documentation.
    Docs,
    /// Written from memory of the provider's documentation; check it before relying on it.
    Recalled,
}

impl Confidence {
    /// The word that preset files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Docs => "docs",
            Self::Recalled => "recalled",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) family: String,
    pub(super) confidence: Confidence,
    pub(super) docs: String,
    #[serde(default)]
    pub(super) notes: String,
    pub(super) content_types: Vec<String>,
    pub(super) handshake: Option<String>,
    #[serde(default)]
    pub(super) key: Option<KeyFormat>,
    #[serde(default)]
    pub(super) alias: Vec<Alias>,
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Setting>,
    #[serde(default)]
    pub(super) require: Vec<Require>,
    pub(super) signature: Option<Signature>,
    pub(super) timestamp: Option<Timestamp>,
    pub(super) jwt: Option<Jwt>,
    pub(super) token: Option<Token>,
    pub(super) network: Option<Network>,
    pub(super) certificate: Option<Certificate>,
    #[serde(default)]
    pub(super) event: Event,
    pub(super) example: Example,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    pub(super) from: String,
    pub(super) to: String,
}

/// A value that the receiver sets besides the secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// What it is, for people.
    pub about: String,
    /// Used when it is not set.
    pub default: Option<String>,
    /// Whether nothing can be verified without it.
    #[serde(default, rename = "required")]
    pub is_required: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Require {
    pub(super) at: String,
    pub(super) equals: Option<String>,
    #[serde(default)]
    pub(super) one_of: Vec<String>,
    #[serde(default, rename = "absent")]
    pub(super) is_absent: bool,
    #[serde(default, rename = "optional")]
    pub(super) is_optional: bool,
    #[serde(default, rename = "message_id")]
    pub(super) is_message_id: bool,
}

/// How the signatures stand in their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    /// A prefix and the signature, or several of them.
    #[default]
    Plain,
    /// `t=1,v1=…`
    Pairs,
    /// Base64 of a JSON object.
    Base64Json,
    /// `header..signature`
    JwsDetached,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signature {
    pub(super) at: Vec<String>,
    #[serde(default)]
    pub(super) layout: Layout,
    pub(super) separator: Option<String>,
    pub(super) group_separator: Option<String>,
    #[serde(default = "equals_sign")]
    pub(super) assign: String,
    pub(super) field: Option<String>,
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) encoding: Encoding,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) algorithm_by: Option<String>,
    #[serde(default)]
    pub(super) algorithms: BTreeMap<String, Algorithm>,
    #[serde(default)]
    pub(super) content: Vec<String>,
    pub(super) hook: Option<String>,
    pub(super) most: Option<usize>,
    #[serde(default)]
    pub(super) covers_body: bool,
}

fn equals_sign() -> String {
    "=".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timestamp {
    pub(super) at: String,
    pub(super) unit: Unit,
    pub(super) tolerance_s: Option<u64>,
    pub(super) future_s: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    pub(super) at: String,
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) algorithms: Vec<String>,
    #[serde(default)]
    pub(super) issuer: Vec<String>,
    pub(super) audience: Option<String>,
    pub(super) max_age_s: Option<u64>,
    #[serde(default)]
    pub(super) required: Vec<String>,
    #[serde(default)]
    pub(super) claims: Vec<Claim>,
}

/// What stands in a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClaimForm {
    Text,
    Sha256Hex,
    Sha256Base64,
    Sha256Base64url,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) of: String,
    pub(super) form: ClaimForm,
    #[serde(default, rename = "optional_when_empty")]
    pub(super) is_optional_when_empty: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) at: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) allow: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificate {
    pub(super) url: String,
    pub(super) hosts: Vec<String>,
    #[serde(default)]
    pub(super) path_suffix: String,
    pub(super) common_name: Option<Names>,
}

/// One name, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Names {
    One(String),
    Several(Vec<String>),
}

impl Names {
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Several(names) => names.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    #[serde(default, rename = "type")]
    pub(super) kind: Vec<String>,
    #[serde(default)]
    pub(super) id: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Example {
    pub(super) method: Option<String>,
    pub(super) url: Option<String>,
    pub(super) peer: Option<std::net::IpAddr>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) fields: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) settings: BTreeMap<String, String>,
    pub(super) body: String,
}
