//! Presets: what is known about one provider's requests, parsed from a file and checked once.

mod compile;
mod error;
mod file;
mod table;

use std::collections::BTreeMap;
use std::sync::OnceLock;

pub use error::PresetError;
pub(crate) use file::{ClaimForm, Layout};
pub use file::{Confidence, Setting};

use crate::algorithm::Algorithm;
use crate::encoding::Encoding;
use crate::hook::Hook;
use crate::key_format::KeyFormat;
use crate::place::{Place, Places};
use crate::request::Request;
use crate::template::Template;
use crate::timestamp::Unit;

/// What is known about one provider: how its requests are verified, and where they say what happened.
#[derive(Clone, Debug)]
pub struct Preset {
    file: file::File,
    pub(crate) scheme: Scheme,
    pub(crate) key: KeyFormat,
    pub(crate) aliases: Vec<(String, String)>,
    pub(crate) defaults: Vec<(String, String)>,
    pub(crate) requires: Vec<RequireRule>,
    pub(crate) network: Option<Vec<String>>,
    pub(crate) certificate: Option<CertificateRule>,
    pub(crate) event_type: Vec<Places>,
    pub(crate) event_id: Vec<Places>,
}

#[derive(Clone, Debug)]
pub(crate) enum Scheme {
    Signature(SignatureRule),
    Jwt(JwtRule),
    Token(Vec<Place>),
}

#[derive(Clone, Debug)]
pub(crate) struct SignatureRule {
    pub(crate) at: Vec<Place>,
    pub(crate) layout: Layout,
    pub(crate) separator: Option<String>,
    pub(crate) group_separator: Option<String>,
    pub(crate) assign: String,
    pub(crate) field: Template,
    pub(crate) prefix: String,
    pub(crate) encoding: Encoding,
    pub(crate) algorithm: AlgorithmRule,
    pub(crate) content: Content,
    pub(crate) timestamp: Option<TimestampRule>,
    pub(crate) most: usize,
    /// The part of the body that is signed is all that counts.
    pub(crate) covers_body: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum AlgorithmRule {
    One(Algorithm),
    /// The prefix of each signature says which.
    ByPrefix(Vec<(String, Algorithm)>),
    /// A value of the request or of the settings says which.
    ByPlace(Place, Vec<(String, Algorithm)>),
}

impl AlgorithmRule {
    pub(crate) fn all(&self) -> Vec<Algorithm> {
        match self {
            Self::One(algorithm) => vec![*algorithm],
            Self::ByPrefix(list) | Self::ByPlace(_, list) => list.iter().map(|(_, algorithm)| *algorithm).collect(),
        }
    }

    /// Whether whoever verifies holds no secret; algorithms of both kinds are never mixed.
    pub(crate) fn is_public(&self) -> bool {
        match self {
            Self::One(algorithm) => algorithm.is_public(),
            Self::ByPrefix(list) | Self::ByPlace(_, list) => list.iter().all(|(_, algorithm)| algorithm.is_public()),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Each of them may be what was signed.
    Templates(Vec<Template>),
    Hook(Hook),
}

#[derive(Clone, Debug)]
pub(crate) struct TimestampRule {
    pub(crate) at: Places,
    pub(crate) unit: Unit,
    pub(crate) tolerance_s: Option<u64>,
    pub(crate) future_s: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct JwtRule {
    pub(crate) at: Place,
    pub(crate) prefix: String,
    pub(crate) algorithms: Vec<String>,
    pub(crate) issuers: Vec<Template>,
    pub(crate) audience: Option<Template>,
    pub(crate) max_age_s: Option<u64>,
    pub(crate) required: Vec<String>,
    pub(crate) claims: Vec<ClaimRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct ClaimRule {
    pub(crate) name: String,
    pub(crate) of: Template,
    pub(crate) form: ClaimForm,
    pub(crate) is_optional_when_empty: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct RequireRule {
    pub(crate) at: Place,
    pub(crate) check: RequireCheck,
    /// Only checked where it is there.
    pub(crate) is_optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum RequireCheck {
    Present,
    Absent,
    /// Not checked when a setting that it names is not set.
    Equals(Template),
    OneOf(Vec<String>),
    /// Short, printable and without a full stop, so that the border between id, timestamp and body cannot move.
    MessageId,
}

#[derive(Clone, Debug)]
pub(crate) struct CertificateRule {
    pub(crate) url: Place,
    /// `*` stands for one label, a leading `*.` for any number of them.
    pub(crate) hosts: Vec<String>,
    pub(crate) path_suffix: String,
    /// Any of them; empty: not looked at.
    pub(crate) common_names: Vec<String>,
}

impl Preset {
    /// Reads a preset from the text of a file. `file` is its name, for messages.
    ///
    /// # Errors
    /// [`PresetError`], which names file, key, value and what to write instead.
    pub fn parse(file: &str, text: &str) -> Result<Self, PresetError> {
        compile::compile(file, text)
    }

    /// Short name, as in URLs and configuration: lower-case letters, digits and hyphens.
    pub fn id(&self) -> &str {
        &self.file.id
    }

    /// The provider's name, for people.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// What kind of scheme it is: `standard-webhooks`, `hmac`, `hmac-timestamp`, `hash`, `public-key`, `certificate`, `jwt`,
    /// `token`, `basic`, `secret-url`, `network`; users' own presets may say something else.
    pub fn family(&self) -> &str {
        &self.file.family
    }

    /// How sure the preset is.
    pub fn confidence(&self) -> Confidence {
        self.file.confidence
    }

    /// The provider's page about it.
    pub fn docs(&self) -> &str {
        &self.file.docs
    }

    /// What one should know besides.
    pub fn notes(&self) -> &str {
        &self.file.notes
    }

    /// Content types that the provider sends.
    pub fn content_types(&self) -> &[String] {
        &self.file.content_types
    }

    /// The id of the registration flow, for providers that have one.
    pub fn handshake(&self) -> Option<&str> {
        self.file.handshake.as_deref()
    }

    /// Settings besides the secret, by name.
    pub fn settings(&self) -> &BTreeMap<String, Setting> {
        &self.file.settings
    }

    /// The places of the signature, token or credential, as the preset file has them.
    pub fn signature_places(&self) -> Vec<String> {
        let places = match &self.scheme {
            Scheme::Signature(rule) => rule.at.as_slice(),
            Scheme::Jwt(rule) => std::slice::from_ref(&rule.at),
            Scheme::Token(places) => places.as_slice(),
        };
        places.iter().map(ToString::to_string).collect()
    }

    /// How far a timestamp may be from the clock, in seconds; `None` where the provider names no limit or signs no time.
    pub fn tolerance_s(&self) -> Option<u64> {
        match &self.scheme {
            Scheme::Signature(rule) => rule.timestamp.as_ref().and_then(|timestamp| timestamp.tolerance_s),
            Scheme::Jwt(rule) => rule.max_age_s,
            Scheme::Token(_) => None,
        }
    }

    /// Whether what is verified covers the whole body. Where it does not, the body is as trustworthy as the connection.
    pub fn covers_body(&self) -> bool {
        match &self.scheme {
            Scheme::Signature(rule) => match &rule.content {
                Content::Templates(templates) => rule.covers_body || templates.iter().all(Template::covers_body),
                Content::Hook(hook) => hook.covers_body(),
            },
            Scheme::Jwt(rule) => rule.at == Place::Body || rule.claims.iter().any(|claim| claim.of.covers_body()),
            Scheme::Token(_) => false,
        }
    }

    /// Whether the receiver holds a public key only, so that it could not forge requests itself.
    pub fn is_asymmetric(&self) -> bool {
        matches!(self.key, KeyFormat::PublicKey | KeyFormat::Certificate)
    }

    /// An example request, without its signature.
    pub fn example(&self) -> Example<'_> {
        let example = &self.file.example;
        Example {
            method: example.method.as_deref().unwrap_or("POST"),
            url: example.url.clone().unwrap_or_else(|| format!("https://hooks.example.com/in/{}", self.id())),
            headers: example.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            fields: example.fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            settings: &example.settings,
            peer: example.peer,
            body: &example.body,
        }
    }
}

/// An example request of a provider, unsigned; [`Preset::sign`] makes it a genuine one.
#[derive(Clone, Debug)]
pub struct Example<'a> {
    pub method: &'a str,
    pub url: String,
    pub headers: Vec<(&'a str, &'a str)>,
    /// Named parts of the signature header that the provider sends besides the signature and the timestamp.
    pub fields: Vec<(String, String)>,
    /// Settings that fit the example.
    pub settings: &'a BTreeMap<String, String>,
    /// An address of the provider, where addresses count.
    pub peer: Option<std::net::IpAddr>,
    pub body: &'a str,
}

impl Example<'_> {
    /// Calls `f` with the example as a request, as if it had just arrived without a signature.
    pub fn with_request<T>(&self, f: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        f(&Request { method: self.method, url: &self.url, headers: &headers, body: self.body.as_bytes(), peer: self.peer })
    }
}

/// All presets of this crate, by id.
#[derive(Debug)]
pub struct Presets(BTreeMap<String, Preset>);

impl Presets {
    /// The built-in ones. They are parsed once, at the first call.
    ///
    /// # Panics
    /// Never: a test parses every file that is built in.
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Presets> = OnceLock::new();
        BUILTIN.get_or_init(|| {
            let presets = table::FILES.iter().filter_map(|(file, text)| Preset::parse(file, text).ok());
            Self(presets.map(|preset| (preset.id().to_owned(), preset)).collect())
        })
    }

    /// The preset of that id.
    pub fn get(&self, id: &str) -> Option<&Preset> {
        self.0.get(id)
    }

    /// All, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Preset> {
        self.0.values()
    }

    /// Ids that resemble a mistyped one, nearest first, at most three.
    pub fn resembling(&self, id: &str) -> Vec<&str> {
        let wanted = id.to_ascii_lowercase();
        let mut ids: Vec<(usize, &str)> = self.0.keys().map(|known| (distance(&wanted, known), known.as_str())).collect();
        ids.retain(|(distance, known)| *distance <= 2 || known.contains(&wanted) && !wanted.is_empty());
        ids.sort_unstable();
        ids.into_iter().take(3).map(|(_, id)| id).collect()
    }
}

/// Edits between two short words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(l != *r)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: a preset is in the folder but not in the program, is called otherwise than its file, or does not parse.
    #[test]
    fn every_file_of_the_folder_is_built_in_and_parses() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("presets");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.retain(|file| file.ends_with(".toml"));
        files.sort();
        let built_in: Vec<&str> = table::FILES.iter().map(|(file, _)| *file).collect();
        assert_eq!(files, built_in);
        for (file, text) in table::FILES {
            let preset = Preset::parse(file, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(format!("{}.toml", preset.id()), *file);
            assert!(!preset.name().is_empty() && preset.docs().starts_with("https://"), "{file}");
        }
        assert_eq!(Presets::builtin().iter().count(), table::FILES.len());
    }

    /// Broken: somebody who mistypes a provider is told nothing.
    #[test]
    fn mistyped_ids_find_their_neighbours() {
        assert_eq!(Presets::builtin().resembling("gihtub"), ["github"]);
        assert!(Presets::builtin().resembling("hubspot").contains(&"hubspot-v3"));
        assert!(Presets::builtin().resembling("").is_empty() && Presets::builtin().resembling("zzzzzzzz").is_empty());
    }
}
