//! What a provider signs, as a text with holes: `v0:{header:X-Slack-Request-Timestamp}:{body}`.
//!
//! In braces stands a place (see [`crate::place`]), or `body`, `url`, `method`, `path`, `path-and-query`, `params`, `secret`; then,
//! if need be, `?` (nothing if it is missing) and `> filter`. `{{` is a brace.

use std::borrow::Cow;

use aws_lc_rs::digest;

use crate::encoding::{Encoding, percent_decode, to_hex};
use crate::place::{Places, Scope};
use crate::{Reason, Refusal};

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole { source: Source, is_optional: bool, filter: Option<Filter> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Body,
    Url,
    Method,
    Path,
    PathAndQuery,
    /// Name and value of every form field, sorted by name, without separators.
    Params,
    Secret,
    Places(Places),
}

/// What happens to a value before it is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Sha256Hex,
    Base64,
    Crc32,
    /// HubSpot's partial unescaping of a URL.
    UnescapeUrl,
    /// Everything but printable ASCII as JSON escapes, and slashes with a backslash, as Box writes JSON.
    EscapeUnicodeAndSlashes,
}

impl Template {
    /// The error is the hole that cannot be read, and what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, String)> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('{') {
                plain.push('{');
                rest = behind;
                continue;
            }
            // A place may itself hold a setting in braces: `{header:{name}}`.
            let end = if rest.starts_with("header:{") { rest.find("}}").map(|at| at + 1) } else { rest.find('}') };
            let end = end.ok_or_else(|| (rest.to_owned(), "a closing brace, or {{ for a brace itself".to_owned()))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(hole(&rest[..end]).map_err(|hint| (rest[..end].to_owned(), hint))?);
            rest = &rest[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The parts of the signed content, in order; the body is borrowed.
    pub(crate) fn render<'s>(&'s self, scope: &'s Scope<'_, '_>, secret: &'s str) -> Result<Vec<Cow<'s, [u8]>>, Refusal> {
        let parts = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
            Piece::Hole { source, is_optional, filter } => {
                let value = match source.read(scope, secret) {
                    Err(refusal) if *is_optional && refusal.reason() == Reason::ValueMissing => Cow::Borrowed(&[][..]),
                    other => other?,
                };
                Ok(match filter {
                    Some(filter) => Cow::Owned(filter.apply(&value)),
                    None => value,
                })
            }
        });
        parts.collect()
    }

    /// The same in one piece, as text; for claims and settings.
    pub(crate) fn render_text(&self, scope: &Scope<'_, '_>) -> Result<String, Refusal> {
        let bytes = self.render(scope, "")?.concat();
        String::from_utf8(bytes).map_err(|_| Refusal::new(Reason::ValueMismatch))
    }

    /// Whether the signature says anything about the body as a whole.
    pub(crate) fn covers_body(&self) -> bool {
        let is_whole = |source: &Source| matches!(source, Source::Body | Source::Params);
        self.0.iter().any(|piece| matches!(piece, Piece::Hole { source, .. } if is_whole(source)))
    }

    /// The places that it reads, for signing: what is missing there must be put there first.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Places> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Hole { source: Source::Places(places), is_optional: false, .. } => Some(places),
            _ => None,
        })
    }
}

fn hole(text: &str) -> Result<Piece, String> {
    let (source, filter) = match text.split_once('>') {
        Some((source, filter)) => (source, Some(Filter::parse(filter.trim())?)),
        None => (text, None),
    };
    let source = source.trim();
    let (source, is_optional) = source.strip_suffix('?').map_or((source, false), |source| (source, true));
    let source = match source {
        "body" => Source::Body,
        "url" => Source::Url,
        "method" => Source::Method,
        "path" => Source::Path,
        "path-and-query" => Source::PathAndQuery,
        "params" => Source::Params,
        "secret" => Source::Secret,
        place => Source::Places(
            Places::parse(place).map_err(|hint| format!("body, url, method, path, path-and-query, params, secret, or {hint}"))?,
        ),
    };
    Ok(Piece::Hole { source, is_optional, filter })
}

impl Source {
    fn read<'s>(&'s self, scope: &'s Scope<'_, '_>, secret: &'s str) -> Result<Cow<'s, [u8]>, Refusal> {
        let request = &scope.view.request;
        Ok(match self {
            Self::Body => Cow::Borrowed(request.body),
            Self::Url => Cow::Borrowed(request.url.as_bytes()),
            Self::Method => Cow::Borrowed(request.method.as_bytes()),
            Self::Path => Cow::Borrowed(request.path().as_bytes()),
            Self::PathAndQuery => Cow::Borrowed(request.path_and_query().as_bytes()),
            Self::Params => Cow::Owned(crate::hook::params::joined(scope.view, false)?.into_bytes()),
            Self::Secret => Cow::Borrowed(secret.as_bytes()),
            Self::Places(places) => match places.require(scope, Reason::ValueMissing)? {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
        })
    }
}

impl Filter {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "sha256-hex" => Ok(Self::Sha256Hex),
            "base64" => Ok(Self::Base64),
            "crc32" => Ok(Self::Crc32),
            "unescape-url" => Ok(Self::UnescapeUrl),
            "escape-unicode-and-slashes" => Ok(Self::EscapeUnicodeAndSlashes),
            _ => Err("one of the filters sha256-hex, base64, crc32, unescape-url, escape-unicode-and-slashes".to_owned()),
        }
    }

    fn apply(self, value: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256Hex => to_hex(digest::digest(&digest::SHA256, value).as_ref()).into_bytes(),
            Self::Base64 => Encoding::Base64.encode(value).into_bytes(),
            Self::Crc32 => crc32(value).to_string().into_bytes(),
            Self::UnescapeUrl => unescape_url(value),
            Self::EscapeUnicodeAndSlashes => escape_unicode_and_slashes(value),
        }
    }
}

/// CRC-32 as in zip files: PayPal signs it instead of the body.
fn crc32(bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 256] {
        let mut table = [0u32; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    }
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0u32, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// The escapes that HubSpot undoes before it signs a URL.
fn unescape_url(url: &[u8]) -> Vec<u8> {
    const ESCAPES: [&str; 12] = ["%3A", "%2F", "%3F", "%40", "%21", "%24", "%27", "%28", "%29", "%2A", "%2C", "%3B"];
    let mut out = Vec::with_capacity(url.len());
    let mut rest = url;
    while let Some((first, behind)) = rest.split_first() {
        let escape = rest.get(..3).and_then(|three| std::str::from_utf8(three).ok());
        match escape.filter(|escape| ESCAPES.iter().any(|known| known.eq_ignore_ascii_case(escape))) {
            Some(escape) => {
                out.extend(percent_decode(escape, false).unwrap_or_default().into_bytes());
                rest = &rest[3..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

/// Bytes that are not UTF-8 stay as they are: nobody has signed them so.
fn escape_unicode_and_slashes(value: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(value) else { return value.to_vec() };
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '/' && !out.ends_with('\\') {
            out.push_str("\\/");
        } else if character < '\u{7f}' {
            out.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: Box's requests with names in other alphabets are refused.
    #[test]
    fn characters_outside_of_ascii_become_json_escapes() {
        assert_eq!(escape_unicode_and_slashes("{\"a\":\"é🎉\"}".as_bytes()), br#"{"a":"\u00e9\ud83c\udf89"}"#);
        assert_eq!(escape_unicode_and_slashes(br"a/b\/c"), br"a\/b\/c");
        assert_eq!(escape_unicode_and_slashes(b"\xff"), b"\xff");
    }

    /// Broken: PayPal's checksum comes out wrong, or as a negative number.
    #[test]
    fn checksums_equal_the_published_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    /// Broken: a literal question mark or an unlisted escape in a URL changes before it is hashed.
    #[test]
    fn only_the_listed_escapes_are_undone() {
        assert_eq!(unescape_url(b"https://a.test/x%3Ay%20z?b=%2f%3F%25%"), b"https://a.test/x:y%20z?b=/?%25%");
    }

    /// Broken: a typo in a template is signed as text.
    #[test]
    fn holes_are_read_strictly() {
        assert_eq!(Template::parse("{{a}").unwrap(), Template(vec![Piece::Text("{a}".into())]));
        for bad in ["{", "{}", "{bdy}", "{body > md5}", "{header:}", "v0:{body"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        assert!(Template::parse("{header:{name}}.{body > base64}{json:/a?}").is_ok());
    }
}
