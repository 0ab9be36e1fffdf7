//! Just enough DER to take the public key and the common name out of an X.509 certificate, and PEM around it.
//!
//! Chains are not followed: presets trust a certificate because it was fetched over https from the provider's own host.

use base64::Engine;

use crate::key::LENIENT;

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What presets need of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// SubjectPublicKeyInfo, as it stands in the certificate.
    pub(crate) public_key: Vec<u8>,
    pub(crate) common_name: Option<String>,
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
        Some(Self { public_key, common_name: common_name(subject.content) })
    }

    pub(crate) fn from_pem(pem: &str) -> Option<Self> {
        Self::parse(&from_pem(pem, "CERTIFICATE")?)
    }
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
}
