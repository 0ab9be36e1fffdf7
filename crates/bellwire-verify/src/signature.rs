//! Taking the signatures of a request apart, as its preset says they are written.

use std::borrow::Cow;

use base64::Engine;
use serde_json::Value;

use crate::algorithm::Algorithm;
use crate::check::Group;
use crate::key::LENIENT;
use crate::place::{Place, Scope, text_of};
use crate::preset::{AlgorithmRule, Content, Layout, SignatureRule};
use crate::request::Fields;
use crate::timestamp::check_age;
use crate::{Reason, Refusal};

/// Longest value that is taken apart: a hundred signatures of the longest kind.
const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Fields beside the signatures.
const FIELDS_MAX: usize = 64;

type Parts<'s> = Vec<Cow<'s, [u8]>>;
/// Fields, and the texts of the signatures beside them.
type Texts<'v> = (Fields, Vec<Cow<'v, str>>);

impl SignatureRule {
    /// All signatures that are well formed, or why there are none.
    pub(crate) fn groups(&self, scope: &Scope<'_, '_>) -> Result<Vec<Group>, Refusal> {
        let mut values = Vec::new();
        for place in &self.at {
            values.extend(place.read_all(scope)?.into_iter().filter(|value| !value.is_empty()));
        }
        let at = || self.at.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        if values.is_empty() {
            return Err(Refusal::at(Reason::SignatureMissing, at()));
        }
        let by_place = match &self.algorithm {
            AlgorithmRule::ByPlace(place, list) if !matches!(place, Place::Field(_)) => {
                let name = place.read_all(scope)?.into_iter().next().unwrap_or_default();
                let known = list.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)).map(|(_, algorithm)| *algorithm);
                Some(known.ok_or_else(|| Refusal::at(Reason::AlgorithmRefused, place.to_string()))?)
            }
            _ => None,
        };
        let mut groups = Vec::new();
        let mut count = 0;
        for value in &values {
            if value.len() > VALUE_BYTES_MAX {
                return Err(Refusal::at(Reason::SignatureMalformed, at()));
            }
            for group in self.split(value, scope)? {
                count += group.1.len();
                if count > self.most || groups.len() >= self.most {
                    return Err(Refusal::at(Reason::SignaturesTooMany, at()));
                }
                let signatures: Vec<_> = group.1.iter().filter_map(|text| self.decode(text, by_place)).collect();
                if !signatures.is_empty() {
                    groups.push(Group { fields: group.0, signatures });
                }
            }
        }
        if groups.is_empty() { Err(Refusal::at(Reason::SignatureMalformed, at())) } else { Ok(groups) }
    }

    /// Fields and texts of signatures, group by group.
    fn split<'v>(&self, value: &'v str, scope: &Scope<'_, '_>) -> Result<Vec<Texts<'v>>, Refusal> {
        let malformed = || Refusal::new(Reason::SignatureMalformed);
        match self.layout {
            Layout::Plain => {
                let texts: Vec<&str> = match &self.separator {
                    Some(separator) => value.split(separator.as_str()).map(str::trim).take(self.most + 1).collect(),
                    None => vec![value],
                };
                let texts = texts.into_iter().filter(|text| !text.is_empty()).map(Cow::Borrowed).collect();
                Ok(vec![(Vec::new(), texts)])
            }
            Layout::Pairs => {
                let wanted = self.field.render_text(scope)?;
                let groups = match &self.group_separator {
                    Some(separator) => value.split(separator.as_str()).take(self.most + 1).collect(),
                    None => vec![value],
                };
                groups.into_iter().filter(|group| !group.trim().is_empty()).map(|group| self.pairs(group, &wanted)).collect()
            }
            Layout::Base64Json => {
                let wanted = self.field.render_text(scope)?;
                let object = LENIENT.decode(value).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
                let fields = members(object.as_ref()).ok_or_else(malformed)?;
                let signature = fields.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.clone());
                Ok(vec![(fields, vec![Cow::Owned(signature.ok_or_else(malformed)?)])])
            }
            Layout::JwsDetached => {
                let (header, signature) = value.split_once("..").ok_or_else(malformed)?;
                let bytes = crate::encoding::Encoding::Base64url.decode(header).ok_or_else(malformed)?;
                let object: Option<Value> = serde_json::from_slice(&bytes).ok();
                let mut fields = members(object.as_ref()).ok_or_else(malformed)?;
                fields.retain(|(name, _)| name != RAW_HEADER);
                fields.push((RAW_HEADER.to_owned(), header.to_owned()));
                Ok(vec![(fields, vec![Cow::Borrowed(signature)])])
            }
        }
    }

    fn pairs<'v>(&self, group: &'v str, wanted: &str) -> Result<Texts<'v>, Refusal> {
        let mut fields = Fields::new();
        let mut texts = Vec::new();
        let pairs = match &self.separator {
            Some(separator) => group.split(separator.as_str()).take(self.most + FIELDS_MAX).collect(),
            None => vec![group],
        };
        for pair in pairs {
            let Some((name, value)) = pair.trim().split_once(self.assign.as_str()) else { continue };
            if name == wanted {
                texts.push(Cow::Borrowed(value));
            } else if fields.iter().any(|(known, other)| known == name && other != value) {
                // Two values for one name: whoever checks and whoever uses them might choose differently.
                if self.uses_field(name) {
                    return Err(Refusal::at(Reason::SignatureMalformed, format!("field:{name}")));
                }
            } else {
                fields.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok((fields, texts))
    }

    fn uses_field(&self, name: &str) -> bool {
        let is_it = |place: &Place| matches!(place, Place::Field(field) if field == name);
        let is_timestamp = self.timestamp.as_ref().is_some_and(|timestamp| timestamp.at.0.iter().any(is_it));
        is_timestamp
            || match &self.content {
                Content::Templates(templates) => {
                    templates.iter().flat_map(|template| template.places()).flat_map(|places| &places.0).any(is_it)
                }
                Content::Hook(_) => true,
            }
    }

    /// `None` for what can never match: another prefix, another alphabet, an impossible length.
    fn decode(&self, text: &str, by_place: Option<Algorithm>) -> Option<(Algorithm, Vec<u8>)> {
        let (algorithm, encoded) = match &self.algorithm {
            AlgorithmRule::One(algorithm) => (*algorithm, text.strip_prefix(self.prefix.as_str())?),
            AlgorithmRule::ByPrefix(list) => {
                list.iter().find_map(|(prefix, algorithm)| Some((*algorithm, text.strip_prefix(prefix.as_str())?)))?
            }
            AlgorithmRule::ByPlace(..) => (by_place?, text.strip_prefix(self.prefix.as_str())?),
        };
        let bytes = self.encoding.decode(encoded)?;
        algorithm.is_length_possible(bytes.len()).then_some((algorithm, bytes))
    }

    /// Everything that may have been signed; usually one.
    pub(crate) fn contents<'s>(&'s self, scope: &'s Scope<'_, '_>, secret: &'s str) -> Result<Vec<Parts<'s>>, Refusal> {
        match &self.content {
            Content::Templates(templates) => templates.iter().map(|template| template.render(scope, secret)).collect(),
            Content::Hook(hook) => Ok(hook.contents(scope)?.into_iter().map(|content| vec![Cow::Owned(content)]).collect()),
        }
    }

    /// Reads the timestamp and refuses it if it is too far from the clock. Where nothing limits it, it need not even be readable: what
    /// counts is that it is signed.
    pub(crate) fn check_timestamp(&self, scope: &Scope<'_, '_>, now_s: u64) -> Result<Option<i64>, Refusal> {
        let Some(rule) = &self.timestamp else { return Ok(None) };
        let text = rule.at.require(scope, Reason::TimestampMissing)?;
        let timestamp_ms = rule.unit.parse(&text);
        let own = scope.credentials.tolerance_s;
        if let Some(tolerance_s) = own.or(rule.tolerance_s) {
            let timestamp_ms = timestamp_ms.ok_or_else(|| Refusal::at(Reason::TimestampMalformed, rule.at.to_string()))?;
            check_age(timestamp_ms, now_s, tolerance_s, own.or(rule.future_s).unwrap_or(tolerance_s))?;
        }
        Ok(timestamp_ms)
    }
}

/// The field under which the encoded header of a detached JWS stands, for what is signed with it.
pub(crate) const RAW_HEADER: &str = "(header)";

fn members(object: Option<&Value>) -> Option<Fields> {
    let members = object?.as_object()?;
    Some(members.iter().take(FIELDS_MAX).filter_map(|(name, value)| Some((name.clone(), text_of(value)?.into_owned()))).collect())
}
