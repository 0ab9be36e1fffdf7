//! A received request, as raw as it came, and the few views of it that presets need: headers, query, JSON, form, multipart.
//!
//! The content type decides which parser may look at a body, and no field of a body ever names anything outside of it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use serde_json::Value;

use crate::encoding::percent_decode;
use crate::{Reason, Refusal};

/// Fields of one form and parts of one multipart body: far more than any provider sends, and a bound on what is kept.
const FIELDS_MAX: usize = 4096;
const FORM: &str = "application/x-www-form-urlencoded";

/// A received request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As sent, upper-case (`POST`).
    pub method: &'a str,
    /// The full public URL with its query, exactly as it is configured at the provider: some providers sign it.
    pub url: &'a str,
    /// All headers in any letter case, each line by itself; values as raw bytes.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The raw bytes, before anything decompresses, decodes or parses them.
    pub body: &'a [u8],
    /// Who sent it, after trusted proxies; only presets that know their provider's addresses look at it.
    pub peer: Option<IpAddr>,
}

impl<'a> Request<'a> {
    /// The path of the URL and its query, as sent.
    pub(crate) fn path_and_query(&self) -> &'a str {
        let behind_scheme = self.url.split_once("://").map_or(self.url, |(_, rest)| rest);
        let behind_scheme = behind_scheme.split('#').next().unwrap_or_default();
        behind_scheme.find(['/', '?']).map_or("/", |at| &behind_scheme[at..])
    }

    pub(crate) fn path(&self) -> &'a str {
        self.path_and_query().split('?').next().unwrap_or_default()
    }

    pub(crate) fn query(&self) -> &'a str {
        self.path_and_query().split_once('?').map_or("", |(_, query)| query)
    }

    /// Everything before the query.
    pub(crate) fn url_without_query(&self) -> &'a str {
        self.url.split('?').next().unwrap_or_default()
    }
}

/// One header renamed, for providers that send the same headers under two names.
pub(crate) type Alias<'a> = (&'a str, &'a str);

/// A request while it is judged: parsed at most once, and only when a preset asks.
pub(crate) struct View<'a> {
    pub(crate) request: Request<'a>,
    alias: Option<Alias<'a>>,
    json: OnceCell<Option<Value>>,
    form: OnceCell<Option<Fields>>,
    multipart: OnceCell<Option<Fields>>,
    /// Single texts are wanted of a JSON body, and nothing that anybody is believed for.
    is_plucked: bool,
}

pub(crate) type Fields = Vec<(String, String)>;

impl<'a> View<'a> {
    pub(crate) fn new(request: Request<'a>, alias: Option<Alias<'a>>) -> Self {
        Self { request, alias, json: OnceCell::new(), form: OnceCell::new(), multipart: OnceCell::new(), is_plucked: false }
    }

    /// The same for who wants to know what a request is about, and has verified it: JSON is searched, not parsed.
    pub(crate) fn plucked(self) -> Self {
        Self { is_plucked: true, ..self }
    }

    /// The value of a header that must not be repeated; `None` when it is absent.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let name = self.renamed(name);
        let mut found = self.request.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(&name));
        let Some((_, value)) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(Refusal::at(Reason::HeaderRepeated, format!("header:{name}")));
        }
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
            Err(_) => Err(Refusal::at(Reason::HeaderMalformed, format!("header:{name}"))),
        }
    }

    fn renamed<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match self.alias {
            Some((from, to)) if starts_with_ignore_case(name, from) => Cow::Owned(format!("{to}{}", &name[from.len()..])),
            _ => Cow::Borrowed(name),
        }
    }

    /// Names of the headers that begin so, in the order of the request.
    pub(crate) fn header_names(&self, prefix: &str) -> Vec<&'a str> {
        let prefix = self.renamed(prefix);
        self.request.headers.iter().map(|(name, _)| *name).filter(|name| starts_with_ignore_case(name, &prefix)).collect()
    }

    /// The media type without parameters, in whatever letter case it came; empty when there is none.
    fn media_type(&self) -> &'a str {
        let value = self.header("content-type").ok().flatten().unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }

    /// The body as JSON. Forms and multipart bodies are never tried: a body must not pose as another kind.
    pub(crate) fn json(&self) -> Option<&Value> {
        let parsed =
            self.json.get_or_init(|| if self.may_be_json() { serde_json::from_slice(self.request.body).ok() } else { None });
        parsed.as_ref()
    }

    fn may_be_json(&self) -> bool {
        let media_type = self.media_type();
        !media_type.eq_ignore_ascii_case(FORM) && !starts_with_ignore_case(media_type, "multipart/")
    }

    /// The text at these tokens of a JSON body; an outer `None`: ask [`View::json`].
    pub(crate) fn pluck(&self, tokens: &[String]) -> Option<Option<String>> {
        let is_one = !tokens.iter().any(|token| token == "*");
        (self.is_plucked && is_one)
            .then(|| if self.may_be_json() { crate::pluck::text_at(self.request.body, tokens) } else { None })
    }

    /// The body as an URL-encoded form.
    pub(crate) fn form(&self) -> Option<&Fields> {
        let parsed = self.form.get_or_init(|| {
            let media_type = self.media_type();
            if !media_type.is_empty() && !media_type.eq_ignore_ascii_case(FORM) {
                return None;
            }
            parse_form(std::str::from_utf8(self.request.body).ok()?)
        });
        parsed.as_ref()
    }

    /// The text parts of a multipart body, by name. Files are passed over.
    pub(crate) fn multipart(&self) -> Option<&Fields> {
        let parsed = self.multipart.get_or_init(|| {
            if !self.media_type().eq_ignore_ascii_case("multipart/form-data") {
                return None;
            }
            let header = self.header("content-type").ok().flatten()?;
            parse_multipart(self.request.body, parameter(header, "boundary")?)
        });
        parsed.as_ref()
    }
}

pub(crate) fn starts_with_ignore_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Name and value pairs of a form or a query; `None` when an escape is broken or there are too many.
pub(crate) fn parse_form(text: &str) -> Option<Fields> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(FIELDS_MAX + 1).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decode(name, true)?, percent_decode(value, true)?))
    });
    let fields: Option<Fields> = pairs.collect();
    fields.filter(|fields| fields.len() <= FIELDS_MAX)
}

/// A parameter of a header such as `multipart/form-data; boundary="x"`.
fn parameter<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    let mut parameters = header.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(key, _)| key.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"')).filter(|value| !value.is_empty())
}

fn parse_multipart(body: &[u8], boundary: &str) -> Option<Fields> {
    let marker = format!("--{boundary}");
    let text = String::from_utf8_lossy(body);
    let mut fields = Fields::new();
    for part in text.split(marker.as_str()).skip(1) {
        if part.starts_with("--") {
            return Some(fields);
        }
        let (head, value) = part.strip_prefix("\r\n")?.split_once("\r\n\r\n")?;
        let value = value.strip_suffix("\r\n")?;
        let disposition = head
            .split("\r\n")
            .find_map(|line| line.split_once(':').filter(|(k, _)| k.eq_ignore_ascii_case("content-disposition")));
        let (_, disposition) = disposition?;
        if parameter(disposition, "filename").is_none() {
            fields.push((parameter(disposition, "name")?.to_owned(), value.to_owned()));
        }
        if fields.len() > FIELDS_MAX {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(url: &'a str, headers: &'a [(&'a str, &'a [u8])], body: &'a [u8]) -> Request<'a> {
        Request { method: "POST", url, headers, body, peer: None }
    }

    /// Broken: a JSON body posing as a form (or the reverse) reaches the wrong parser (T10).
    #[test]
    fn the_content_type_decides_the_parser() {
        let json = br#"{"a":"1"}"#;
        let view =
            |media: &'static [(&'static str, &'static [u8])], body: &'static [u8]| View::new(request("/", media, body), None);
        assert!(view(&[("Content-Type", b"application/json")], json).json().is_some());
        assert!(view(&[("Content-Type", b"text/plain; charset=UTF-8")], json).json().is_some());
        assert!(view(&[("Content-Type", b"multipart/form-data; boundary=x")], json).json().is_none());
        assert!(view(&[("Content-Type", b"application/x-www-form-urlencoded")], json).json().is_none());
        assert!(view(&[("Content-Type", b"application/json")], b"a=1").form().is_none());
        assert!(view(&[("Content-Type", b"application/json")], b"--x\r\n").multipart().is_none());
    }

    /// Broken: an uploaded file is taken for the signed field, or a torn body panics (T10, T23).
    #[test]
    fn multipart_gives_text_fields_only_and_survives_torn_bodies() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{}\r\n--x\r\nContent-Disposition: form-data; \
                    name=\"json\"; filename=\"/etc/passwd\"\r\n\r\nfile\r\n--x--\r\n";
        assert_eq!(parse_multipart(body.as_bytes(), "x"), Some(vec![("json".to_owned(), "{}".to_owned())]));
        for end in 0..body.len() - 4 {
            assert!(parse_multipart(&body.as_bytes()[..end], "x").is_none_or(|fields| fields.len() <= 1));
        }
    }

    /// Broken: URLs with odd shapes panic or lose their query.
    #[test]
    fn parts_of_urls_are_found() {
        for (url, path, query) in [
            ("https://a.test/in/x?b=1&c=2", "/in/x", "b=1&c=2"),
            ("https://a.test", "/", ""),
            ("https://a.test?b=1", "", "b=1"),
            ("/in?b#c", "/in", "b"),
            ("", "/", ""),
        ] {
            let request = request(url, &[], b"");
            assert_eq!((request.path(), request.query()), (path, query), "{url}");
        }
    }
}
