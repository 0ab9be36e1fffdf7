//! What of a request may be kept and shown: no credentials, nothing of the connection, and no secret of the source wherever it stands
//! (some providers carry them in the URL).

use std::borrow::Cow;

use bellwire_core::header as core_header;
use http::HeaderMap;
use memchr::memmem::Finder;

/// Of the connection, or of those that it came by; never kept.
const HOP_BY_HOP: &[&str] = &[
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect", "content-length",
    "forwarded", "x-forwarded-for",
];
/// Shorter secrets would blot out half of every text, and are none.
const SECRET_BYTES_MIN: usize = 4;

/// The mask of one source, made ready for many requests.
pub struct Mask {
    /// Headers that are credentials of this source, in lower case.
    headers: Vec<String>,
    secrets: Vec<Masked>,
}

struct Masked {
    secret: String,
    finder: Finder<'static>,
}

impl Mask {
    pub fn new<'s>(headers: Vec<String>, secrets: impl Iterator<Item = &'s str>) -> Self {
        let secrets = secrets.filter(|secret| secret.len() >= SECRET_BYTES_MIN);
        let masked = |secret: &str| Masked { secret: secret.to_owned(), finder: Finder::new(secret).into_owned() };
        Self { headers, secrets: secrets.map(masked).collect() }
    }

    /// Replaces what of the source's secrets stands in a text.
    pub fn text<'t>(&self, text: impl Into<Cow<'t, str>>) -> String {
        let mut text = text.into();
        for Masked { secret, finder } in &self.secrets {
            if finder.find(text.as_bytes()).is_some() {
                text = Cow::Owned(text.replace(secret.as_str(), "[redacted]"));
            }
        }
        text.into_owned()
    }

    /// Headers as they came, without credentials and those of the connection.
    pub fn headers(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        let mut shown = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            let name = name.as_str();
            if !HOP_BY_HOP.contains(&name)
                && !core_header::is_sensitive(name)
                && !self.headers.iter().any(|secret| secret == name)
            {
                let value = value.as_bytes();
                // Nearly all of them are text, which this finds out faster than a search for what is none.
                let text = std::str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed);
                shown.push((name.to_owned(), self.text(text)));
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// As it is said: one secret after the other, wherever it stands.
    fn redacted(secrets: &[String], text: &str) -> String {
        secrets.iter().filter(|secret| secret.len() >= 4).fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
    }

    fn random(seed: &mut u64, below: usize) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize % below
    }

    fn random_text(seed: &mut u64, pieces: &[&str], most: usize) -> String {
        (0..random(seed, most + 1)).map(|_| pieces[random(seed, pieces.len())]).collect()
    }

    /// Broken: a secret of the source is stored in a header or a path, where everybody who may see the message sees it.
    #[test]
    fn no_secret_is_left_in_any_text() {
        let pieces = ["a", "b", "ab", "aab", "é", "\u{fffd}", "[redacted]", "redacted", "[", "]", "=", "sha256="];
        let (mut seed, mut found) = (7, 0);
        for round in 0..20_000 {
            let mut secrets: Vec<String> = (0..random(&mut seed, 4)).map(|_| random_text(&mut seed, &pieces, 8)).collect();
            if round % 4 == 0 {
                // As long as real ones are.
                secrets.push(random_text(&mut seed, &pieces, 8).repeat(1 + random(&mut seed, 40)));
            }
            let mask = Mask::new(Vec::new(), secrets.iter().map(String::as_str));
            let mut text = random_text(&mut seed, &pieces, 20);
            if let Some(secret) = secrets.get(random(&mut seed, 4)) {
                // Whole, overlapping itself, or with its last letter missing.
                let end = secret.char_indices().next_back().map_or(0, |(at, _)| at);
                text = match random(&mut seed, 4) {
                    0 => format!("{text}{secret}"),
                    1 => format!("{secret}{}{text}", &secret[end..]),
                    2 => format!("{text}{}", &secret[..end]),
                    _ => format!("{}{secret}{text}{secret}", &secret[..end]),
                };
            }
            let expected = redacted(&secrets, &text);
            assert_eq!(mask.text(text.as_str()), expected, "{secrets:?} in {text:?}");
            found += usize::from(expected != text);
        }
        assert!((4_000..18_000).contains(&found), "{found}");
    }

    /// Broken: the same by way of headers: bytes that are no text, a header that comes twice, and those that are never shown.
    #[test]
    fn headers_are_shown_without_secrets_and_credentials() {
        let names = [
            "x-a", "x-b", "cookie", "x-api-key", "my-token", "connection", "te", "x-forwarded-for", "x-own-credential",
            "user-agent",
        ];
        let pieces: [&[u8]; 8] =
            [b"a", b"hidden", b"hid", b"den", b"\xff", b"\xc3\xa9", b" ", b"0123456789abcdef0123456789abcdef0123"];
        let secrets = ["hidden".to_owned(), "éa".to_owned(), "\u{fffd}hid".to_owned(), "abc".to_owned(), "abcdef0123".to_owned()];
        let mask = Mask::new(vec!["x-own-credential".to_owned()], secrets.iter().map(String::as_str));
        let mut seed = 3;
        for _ in 0..5_000 {
            let mut headers = HeaderMap::new();
            for _ in 0..random(&mut seed, 12) {
                let value: Vec<u8> =
                    (0..random(&mut seed, 9)).flat_map(|_| pieces[random(&mut seed, pieces.len())]).copied().collect();
                let name = HeaderName::from_static(names[random(&mut seed, names.len())]);
                headers.append(name, HeaderValue::from_bytes(&value).unwrap());
            }
            let shown = headers.iter().filter(|(name, _)| matches!(name.as_str(), "x-a" | "x-b" | "user-agent"));
            let expected: Vec<(String, String)> = shown
                .map(|(name, value)| (name.to_string(), redacted(&secrets, &String::from_utf8_lossy(value.as_bytes()))))
                .collect();
            assert_eq!(mask.headers(&headers), expected);
        }
    }
}
