//! Running one recorded request against its provider's preset, for tests and for `verify --vectors`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::{Credentials, Presets, Request};

/// One recorded request and what is expected of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub id: String,
    /// Id of a preset.
    pub provider: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub why: String,
    pub secret: Option<String>,
    /// All secrets that the receiver holds, if there are several.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Settings; `certificates` among them is an object of PEM texts by address.
    #[serde(default)]
    pub config: BTreeMap<String, Value>,
    pub method: String,
    pub url: String,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub body_base64: Option<String>,
    /// The clock, in seconds since 1970.
    pub now: u64,
    pub expect: Expect,
    /// False where genuine receivers differ; such cases are reported, not failed.
    #[serde(default = "yes", rename = "normative")]
    pub is_normative: bool,
}

fn yes() -> bool {
    true
}

/// What a request is judged to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    Valid,
    Invalid,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub expect: Expect,
    pub got: Expect,
    /// `ok`, or the code of the refusal; `provider_unknown` and `case_malformed` for cases that could not be run.
    pub reason: &'static str,
    /// The refusal in words, for people.
    pub detail: String,
}

impl Outcome {
    /// Whether it is as expected.
    pub fn is_right(&self) -> bool {
        self.expect == self.got && !matches!(self.reason, "provider_unknown" | "case_malformed")
    }
}

/// Runs one case with its own clock and secrets.
pub fn run(case: &Case) -> Outcome {
    let refused = |reason, detail: String| Outcome { expect: case.expect, got: Expect::Invalid, reason, detail };
    let Some(preset) = Presets::builtin().get(&case.provider) else {
        return refused("provider_unknown", format!("there is no preset {:?}", case.provider));
    };
    let body = match (&case.body, &case.body_base64) {
        (Some(body), None) => body.clone().into_bytes(),
        (None, Some(encoded)) => match STANDARD.decode(encoded) {
            Ok(body) => body,
            Err(error) => return refused("case_malformed", format!("body_base64: {error}")),
        },
        _ => return refused("case_malformed", "a case has either body or body_base64".to_owned()),
    };
    let headers: Vec<(&str, &[u8])> = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let request = Request { method: &case.method, url: &case.url, headers: &headers, body: &body, peer: None };
    match preset.verify(&request, &credentials(case), case.now) {
        Ok(_) => Outcome { expect: case.expect, got: Expect::Valid, reason: "ok", detail: String::new() },
        Err(refusal) => refused(refusal.code(), refusal.to_string()),
    }
}

fn credentials(case: &Case) -> Credentials {
    let only = case.secret.iter().filter(|secret| case.secrets.is_empty() && !secret.is_empty());
    let mut credentials =
        case.secrets.iter().chain(only).fold(Credentials::none(), |all, secret| all.and_secret(secret.as_str()));
    for (name, value) in &case.config {
        match value {
            Value::String(text) => credentials = credentials.setting(name.as_str(), text.as_str()),
            Value::Object(certificates) if name == "certificates" => {
                credentials = credentials.certificates_may_begin_later();
                for (url, pem) in certificates {
                    credentials = credentials.certificate(url.as_str(), pem.as_str().unwrap_or_default());
                }
            }
            other => credentials = credentials.setting(name.as_str(), other.to_string()),
        }
    }
    credentials
}
