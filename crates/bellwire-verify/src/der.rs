//! Just enough DER to take the public key, the common name and the dates out of an X.509 certificate, and PEM around it.
//!
//! Chains are not followed, see [`crate::certificate`].

use base64::Engine;

use crate::key::LENIENT;
use crate::timestamp::unix_s;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What presets need of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// SubjectPublicKeyInfo, as it stands in the certificate.
    pub(crate) public_key: Vec<u8>,
    pub(crate) common_name: Option<String>,
    /// Seconds since 1970.
    pub(crate) not_before_s: i64,
    /// Seconds since 1970; this second still counts.
    pub(crate) not_after_s: i64,
}

/// One element: its tag, its content, the whole of it, and what follows.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
    rest: &'a [u8],
}

fn element(input: &[u8]) -> Option<Element<'_>> {
    let (&tag, behind) = input.split_first()?;
    let (&first, behind) = behind.split_first()?;
    let (length, behind) = if first < 0x80 {
        (usize::from(first), behind)
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) || behind.len() < count {
            return None;
        }
        let length = behind[..count].iter().fold(0usize, |value, byte| value << 8 | usize::from(*byte));
        (length, &behind[count..])
    };
    let content = behind.get(..length)?;
    let rest = &behind[length..];
    Some(Element { tag, content, whole: &input[..input.len() - rest.len()], rest })
}

fn sequence(input: &[u8]) -> Option<Element<'_>> {
    element(input).filter(|element| element.tag == SEQUENCE)
}

impl Certificate {
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let to_be_signed = sequence(sequence(der)?.content)?.content;
        let first = element(to_be_signed)?;
        // The version is there from v2 on, as an explicit [0].
        let serial = if first.tag == 0xa0 { element(first.rest)? } else { first };
        let algorithm = sequence(serial.rest)?;
        let issuer = sequence(algorithm.rest)?;
        let validity = sequence(issuer.rest)?;
        let subject = sequence(validity.rest)?;
        let public_key = sequence(subject.rest)?.whole.to_vec();
        let not_before = element(validity.content)?;
        let not_after = element(not_before.rest)?;
        Some(Self {
            public_key,
            common_name: common_name(subject.content),
            not_before_s: time_s(&not_before)?,
            not_after_s: time_s(&not_after)?,
        })
    }

    pub(crate) fn from_pem(pem: &str) -> Option<Self> {
        Self::parse(&from_pem(pem, "CERTIFICATE")?)
    }
}

/// RFC 5280, 4.1.2.5: both forms with seconds, in UTC, without fractions; years of two digits are those from 1950 to 2049.
fn time_s(time: &Element<'_>) -> Option<i64> {
    let text = time.content.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let number = |digits: &[u8]| digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (time.tag, text.len()) {
        (UTC_TIME, 12) => {
            let year = number(&text[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&text[..4]), &text[4..]),
        _ => return None,
    };
    let part = |index: usize| number(&rest[index * 2..index * 2 + 2]);
    unix_s([year, part(0), part(1)], [part(2), part(3), part(4)])
}

fn common_name(mut names: &[u8]) -> Option<String> {
    while let Some(set) = element(names) {
        names = set.rest;
        let Some(pair) = sequence(set.content) else { continue };
        let Some(kind) = element(pair.content).filter(|kind| kind.tag == OBJECT_ID && kind.content == COMMON_NAME) else {
            continue;
        };
        return element(kind.rest).and_then(|value| String::from_utf8(value.content.to_vec()).ok());
    }
    None
}

/// The bytes of the first block of that label.
pub(crate) fn from_pem(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, behind) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (text, _) = behind.split_once(&format!("-----END {label}-----"))?;
    // Keys that travelled through environment variables often hold the two characters \n.
    let text: String = text.replace("\\n", "").chars().filter(|c| !c.is_ascii_whitespace()).collect();
    LENIENT.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: a torn or hostile certificate panics, or is read past its end (T23).
    #[test]
    fn torn_certificates_are_refused() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("../tests/data/vectors.json")).unwrap();
        let pem = cases.iter().find_map(|case| case["config"]["certificates"].as_object()?.values().next()?.as_str()).unwrap();
        let der = from_pem(pem, "CERTIFICATE").unwrap();
        assert_eq!(Certificate::parse(&der).unwrap().common_name.as_deref(), Some("sns.amazonaws.com"));
        for end in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..end]), None);
        }
        for at in 0..der.len().min(300) {
            let mut damaged = der.clone();
            damaged[at] ^= 0xff;
            Certificate::parse(&damaged);
        }
        assert!(element(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_none() && element(&[0x30, 0x80]).is_none());
    }

    /// Broken: a certificate is taken for valid or expired because its dates were read wrongly, or an odd date panics.
    #[test]
    fn dates_are_read_in_both_forms_and_strictly() {
        let read = |tag, text: &[u8]| time_s(&Element { tag, content: text, whole: text, rest: b"" });
        for (tag, text, expected) in [
            (UTC_TIME, b"260101000000Z".as_slice(), 1_767_225_600),
            (UTC_TIME, b"491231235959Z", 2_524_607_999),
            (UTC_TIME, b"700101000000Z", 0),
            (UTC_TIME, b"500101000000Z", -631_152_000),
            (GENERALIZED_TIME, b"20500101000000Z", 2_524_608_000),
            (GENERALIZED_TIME, b"99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(read(tag, text), Some(expected), "{}", String::from_utf8_lossy(text));
        }
        for (tag, text) in [
            (UTC_TIME, b"2601010000Z".as_slice()),
            (UTC_TIME, b"260101000000"),
            (UTC_TIME, b"260101000000+0100"),
            (UTC_TIME, b"20260101000000Z"),
            (UTC_TIME, b"260230000000Z"),
            (UTC_TIME, b"260101240000Z"),
            (UTC_TIME, b"26010100000/Z"),
            (GENERALIZED_TIME, b"260101000000Z"),
            (GENERALIZED_TIME, b"20260101000000.5Z"),
            (OBJECT_ID, b"260101000000Z"),
            (UTC_TIME, b"Z"),
            (UTC_TIME, b""),
        ] {
            assert_eq!(read(tag, text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
