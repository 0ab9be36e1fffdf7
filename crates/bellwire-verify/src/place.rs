//! Where something stands in a request: `header:X`, `query:x`, `json:/a/b`, `form:x`, … and how it is read from there.

use std::borrow::Cow;

use serde_json::Value;

use crate::credentials::Credentials;
use crate::request::{View, parse_form};
use crate::{Reason, Refusal};

/// Elements that one `*` of a pointer may stand for: a bound on the work that one request can ask for.
const ELEMENTS_MAX: usize = 1000;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A header; a name that ends with `*` stands for all headers that begin so; `{name}` is a setting that holds the name.
    Header(String),
    Query(String),
    Json(Pointer),
    /// The text of a member of the top-level JSON object, byte for byte.
    RawJson(String),
    Form(String, Option<Pointer>),
    Multipart(String, Option<Pointer>),
    /// The text of the first XML element of that local name.
    Xml(String),
    /// A named part of the signature header.
    Field(String),
    Setting(String),
    /// `Authorization: Bearer …`
    Bearer,
    /// `Authorization: Basic …`, decoded to `user:password`.
    Basic,
    /// Every segment of the path and every value of the query.
    Url,
    /// The whole body as text.
    Body,
}

/// Alternatives: the first one that is there counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places(pub(crate) Vec<Place>);

/// A JSON pointer in which `*` stands for every element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

/// What places are read from, besides the request itself.
pub(crate) struct Scope<'s, 'a> {
    pub(crate) view: &'s View<'a>,
    pub(crate) credentials: &'s Credentials,
    pub(crate) defaults: &'s [(String, String)],
    pub(crate) fields: &'s [(String, String)],
}

impl Scope<'_, '_> {
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        let default = || self.defaults.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        self.credentials.settings.get(name).or_else(default).map(String::as_str)
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Pointer {
    fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix('/')?.split('/');
        Some(Self(tokens.map(|token| token.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// All values that it stands for; `None` where one is missing.
    fn read<'v>(&self, value: &'v Value) -> Vec<Option<&'v Value>> {
        let mut found = vec![Some(value)];
        for token in &self.0 {
            let mut next = Vec::with_capacity(found.len());
            for value in found {
                match value {
                    Some(Value::Array(elements)) if token == "*" => next.extend(elements.iter().take(ELEMENTS_MAX).map(Some)),
                    Some(Value::Array(elements)) => next.push(token.parse::<usize>().ok().and_then(|at| elements.get(at))),
                    Some(Value::Object(members)) => next.push(members.get(token)),
                    _ => next.push(None),
                }
            }
            next.truncate(ELEMENTS_MAX);
            found = next;
        }
        found
    }

    pub(crate) fn tokens(&self) -> &[String] {
        &self.0
    }
}

/// Text of a JSON value that is not a container: strings as they are, numbers and booleans as JSON writes them.
pub(crate) fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(_) | Value::Bool(_) => Some(Cow::Owned(value.to_string())),
        _ => None,
    }
}

impl Place {
    /// Reads `kind:name`; the error is what a person should write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text {
            "bearer" => return Ok(Self::Bearer),
            "basic" => return Ok(Self::Basic),
            "url" => return Ok(Self::Url),
            "body" => return Ok(Self::Body),
            _ => {}
        }
        let unknown = || {
            "one of header:NAME, query:NAME, json:/POINTER, raw-json:MEMBER, form:NAME, multipart:NAME, xml:NAME, field:NAME, \
             setting:NAME, bearer, basic, url, body"
                .to_owned()
        };
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(unknown)?;
        let pointer =
            |text: &str| Pointer::parse(text).ok_or_else(|| "a JSON pointer that begins with /, such as /data/id".to_owned());
        let with_pointer = |name: &str| match name.split_once('#') {
            Some((name, rest)) => Ok((name.to_owned(), Some(pointer(rest)?))),
            None => Ok((name.to_owned(), None)),
        };
        match kind {
            "header" => Ok(Self::Header(name.to_owned())),
            "query" => Ok(Self::Query(name.to_owned())),
            "json" => pointer(name).map(Self::Json),
            "raw-json" => Ok(Self::RawJson(name.to_owned())),
            "form" => with_pointer(name).map(|(name, pointer)| Self::Form(name, pointer)),
            "multipart" => with_pointer(name).map(|(name, pointer)| Self::Multipart(name, pointer)),
            "xml" => Ok(Self::Xml(name.to_owned())),
            "field" => Ok(Self::Field(name.to_owned())),
            "setting" => Ok(Self::Setting(name.to_owned())),
            _ => Err(unknown()),
        }
    }

    /// All texts at this place. Empty: nothing there. For pointers with `*`, one that is missing makes the whole place missing.
    pub(crate) fn read_all<'s>(&self, scope: &'s Scope<'_, '_>) -> Result<Vec<Cow<'s, str>>, Refusal> {
        let view = scope.view;
        let one = |text: Option<&'s str>| text.map(Cow::Borrowed).into_iter().collect();
        Ok(match self {
            Self::Header(name) => match name.strip_suffix('*') {
                Some(prefix) => {
                    let values = view.header_names(prefix).into_iter().map(|name| view.header(name));
                    values.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(Cow::Borrowed).collect()
                }
                None => one(view.header(self.header_name(scope).unwrap_or_default())?),
            },
            Self::Query(name) => named(&parse_form(view.request.query()).unwrap_or_default(), name),
            Self::Json(pointer) => match view.pluck(pointer.tokens()) {
                Some(text) => text.map(Cow::Owned).into_iter().collect(),
                None => view.json().map_or_else(Vec::new, |json| texts(pointer, json)),
            },
            Self::RawJson(member) => one(raw_member(view.request.body, member)),
            Self::Form(name, pointer) => self.fields(view.form(), name, pointer.as_ref())?,
            Self::Multipart(name, pointer) => self.fields(view.multipart(), name, pointer.as_ref())?,
            Self::Xml(name) => xml_texts(view.request.body, name),
            Self::Field(name) => one(scope.field(name)),
            Self::Setting(name) => one(scope.setting(name)),
            Self::Bearer => one(view.header("authorization")?.and_then(|value| authorization(value, "bearer"))),
            Self::Basic => {
                let value = view.header("authorization")?.and_then(|value| authorization(value, "basic"));
                let bytes = value.and_then(|value| crate::encoding::Encoding::Base64.decode(value));
                bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(Cow::Owned).into_iter().collect()
            }
            Self::Url => {
                let segments = view.request.path().split('/').filter(|segment| !segment.is_empty());
                let segments = segments.filter_map(|segment| crate::encoding::percent_decode(segment, false));
                let values = parse_form(view.request.query()).unwrap_or_default().into_iter().map(|(_, value)| value);
                segments.chain(values).map(Cow::Owned).collect()
            }
            Self::Body => one(std::str::from_utf8(view.request.body).ok()),
        })
    }

    /// The first of [`Place::read_all`]; of a header, as most are, without a list of one.
    pub(crate) fn read_first<'s>(&self, scope: &'s Scope<'_, '_>) -> Result<Option<Cow<'s, str>>, Refusal> {
        match self {
            Self::Header(name) if !name.ends_with('*') => {
                Ok(scope.view.header(self.header_name(scope).unwrap_or_default())?.map(Cow::Borrowed))
            }
            _ => Ok(self.read_all(scope)?.into_iter().next()),
        }
    }

    /// A field that is there twice is refused, as headers are: one of the two would be verified and perhaps the other one used.
    fn fields<'s>(
        &self,
        fields: Option<&crate::request::Fields>,
        name: &str,
        pointer: Option<&Pointer>,
    ) -> Result<Vec<Cow<'s, str>>, Refusal> {
        let values = named(fields.map_or(&[], Vec::as_slice), name);
        if values.len() > 1 {
            return Err(Refusal::at(Reason::FieldRepeated, self.to_string()));
        }
        let Some(pointer) = pointer else { return Ok(values) };
        let json = values.first().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let found = json.map(|json| texts(pointer, &json).into_iter().map(|text| Cow::Owned(text.into_owned())).collect());
        Ok(found.unwrap_or_default())
    }

    /// Whether anything at all stands there, containers included.
    pub(crate) fn is_there(&self, scope: &Scope<'_, '_>) -> Result<bool, Refusal> {
        match self {
            Self::Json(pointer) => Ok(scope.view.json().is_some_and(|json| pointer.read(json).iter().any(Option::is_some))),
            _ => Ok(self.read_first(scope)?.is_some()),
        }
    }

    /// The header that it is, with a setting put in.
    pub(crate) fn header_name<'s>(&'s self, scope: &'s Scope<'_, '_>) -> Option<&'s str> {
        let Self::Header(name) = self else { return None };
        match name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(setting) => scope.setting(setting),
            None => Some(name),
        }
    }

    /// Whether it can be read before the body has arrived.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Query(_) | Self::Setting(_) | Self::Bearer | Self::Basic | Self::Url)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pointer =
            |pointer: &Option<Pointer>| pointer.as_ref().map_or_else(String::new, |pointer| format!("#/{}", pointer.0.join("/")));
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Json(pointer) => write!(f, "json:/{}", pointer.0.join("/")),
            Self::RawJson(name) => write!(f, "raw-json:{name}"),
            Self::Form(name, rest) => write!(f, "form:{name}{}", pointer(rest)),
            Self::Multipart(name, rest) => write!(f, "multipart:{name}{}", pointer(rest)),
            Self::Xml(name) => write!(f, "xml:{name}"),
            Self::Field(name) => write!(f, "field:{name}"),
            Self::Setting(name) => write!(f, "setting:{name}"),
            Self::Bearer => f.write_str("bearer"),
            Self::Basic => f.write_str("basic"),
            Self::Url => f.write_str("url"),
            Self::Body => f.write_str("body"),
        }
    }
}

impl Places {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.split('|').map(Place::parse).collect::<Result<_, _>>().map(Self)
    }

    /// The first text of the first place that has one. Unlike a signature's places, these never choose what is accepted.
    pub(crate) fn read<'s>(&self, scope: &'s Scope<'_, '_>) -> Result<Option<Cow<'s, str>>, Refusal> {
        for place in &self.0 {
            if let Some(text) = place.read_first(scope)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    pub(crate) fn require<'s>(&self, scope: &'s Scope<'_, '_>, reason: Reason) -> Result<Cow<'s, str>, Refusal> {
        self.read(scope)?.ok_or_else(|| Refusal::at(reason, self.to_string()))
    }
}

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, place) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            place.fmt(f)?;
        }
        Ok(())
    }
}

fn texts<'v>(pointer: &Pointer, json: &'v Value) -> Vec<Cow<'v, str>> {
    pointer.read(json).into_iter().map(|value| value.and_then(text_of)).collect::<Option<_>>().unwrap_or_default()
}

fn named<'s>(fields: &[(String, String)], name: &str) -> Vec<Cow<'s, str>> {
    fields.iter().filter(|(key, _)| key == name).map(|(_, value)| Cow::Owned(value.clone())).collect()
}

/// The value behind `scheme` in an `Authorization` header.
fn authorization<'h>(value: &'h str, scheme: &str) -> Option<&'h str> {
    let (given, rest) = value.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn raw_member<'b>(body: &'b [u8], member: &str) -> Option<&'b str> {
    use std::collections::HashMap;
    let members: HashMap<String, &'b serde_json::value::RawValue> = serde_json::from_slice(body).ok()?;
    members.get(member).map(|value| value.get())
}

/// The texts of all elements of one local name that hold only text. Documents with a DTD are refused: entities could say anything.
fn xml_texts<'s>(body: &[u8], name: &str) -> Vec<Cow<'s, str>> {
    let Ok(text) = std::str::from_utf8(body) else { return Vec::new() };
    if text.contains("<!") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('<').filter(|_| found.len() < ELEMENTS_MAX) {
        rest = &rest[open + 1..];
        let Some(close) = rest.find('>') else { break };
        let tag = rest[..close].split_ascii_whitespace().next().unwrap_or_default();
        let local = tag.rsplit(':').next().unwrap_or_default();
        rest = &rest[close + 1..];
        if local == name && !tag.starts_with('/') {
            let content = &rest[..rest.find('<').unwrap_or(rest.len())];
            found.push(Cow::Owned(content.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: a list in which one element lacks its token passes because the others have it.
    #[test]
    fn a_star_needs_every_element() {
        let json: Value = serde_json::from_str(r#"{"value":[{"s":"a"},{"s":"b"},{}],"n":[1,true,null]}"#).unwrap();
        let read = |text: &str| texts(&Pointer::parse(text).unwrap(), &json);
        assert_eq!(read("/value/0/s"), ["a"]);
        assert!(read("/value/*/s").is_empty() && read("/n/*").is_empty() && read("/value/-1/s").is_empty());
        assert_eq!(read("/n/1"), ["true"]);
    }

    /// Broken: an entity or a comment in an unsigned XML body says something else than the provider did.
    #[test]
    fn xml_is_read_without_entities_and_without_panics() {
        let body = b"<s:a xmlns=\"x\"><OrganizationId>00D</OrganizationId><n:OrganizationId >1</n:OrganizationId></s:a>";
        assert_eq!(xml_texts(body, "OrganizationId"), ["00D", "1"]);
        assert!(xml_texts(b"<!DOCTYPE a [<!ENTITY x \"1\">]><a>&x;</a>", "a").is_empty());
        for end in 0..body.len() {
            xml_texts(&body[..end], "OrganizationId");
        }
    }

    /// Broken: a typo in a user's preset is taken for a place that is never there.
    #[test]
    fn places_are_read_strictly_and_written_back() {
        for text in ["header:X-A", "header:{header}", "json:/a/*/b", "form:p#/a", "multipart:json#/e", "field:t", "basic", "url"]
        {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "header", "header:", "json:a", "cookie:x", "form:a#b", "X-Signature"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
