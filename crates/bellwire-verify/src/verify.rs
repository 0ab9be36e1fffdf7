//! Checking signatures: everything malformed is refused before any comparison, and every comparison takes constant time.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::sign::signed_content;
use crate::{Error, Secret, VerifyingKey};

/// Signatures in one header: a rotation has two or three; sixteen bounds the work that an attacker can ask for.
pub const SIGNATURES_MAX: usize = 16;
/// How far a timestamp may be from the receiver's clock, in either direction: five minutes, as the specification advises.
pub const TOLERANCE_SECONDS: u64 = 300;
/// Longest message id: room for any sender's ids, and a bound on what is hashed before the body.
const ID_BYTES_MAX: usize = 256;
const HMAC_SHA256_BYTES: usize = 32;
const ED25519_SIGNATURE_BYTES: usize = 64;

/// A key prepared for verifying.
#[derive(Clone)]
pub struct Verifier(Scheme);

#[derive(Clone)]
enum Scheme {
    Hmac(Box<hmac::Key>),
    Ed25519(VerifyingKey),
}

impl Verifier {
    /// Checks `v1` signatures.
    pub fn hmac(secret: &Secret) -> Self {
        Self(Scheme::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.bytes()))))
    }

    /// Checks `v1a` signatures.
    pub fn ed25519(key: &VerifyingKey) -> Self {
        Self(Scheme::Ed25519(*key))
    }

    fn is_match(&self, id: &str, timestamp: &[u8], body: &[u8], signatures: &[Signature]) -> bool {
        match &self.0 {
            Scheme::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                for part in [id.as_bytes(), b".", timestamp, b".", body] {
                    context.update(part);
                }
                let expected = context.sign();
                signatures.iter().any(|signature| {
                    matches!(signature, Signature::V1(given) if verify_slices_are_equal(expected.as_ref(), given).is_ok())
                })
            }
            Scheme::Ed25519(key) => {
                if !signatures.iter().any(|signature| matches!(signature, Signature::V1a(_))) {
                    return false;
                }
                let content = signed_content(id, timestamp, body);
                let key = UnparsedPublicKey::new(&ED25519, key.bytes());
                signatures
                    .iter()
                    .any(|signature| matches!(signature, Signature::V1a(given) if key.verify(&content, given).is_ok()))
            }
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Scheme::Hmac(_) => f.write_str("Verifier(v1)"),
            Scheme::Ed25519(key) => write!(f, "Verifier(v1a, {key})"),
        }
    }
}

/// The three headers of a signed request, each as it came, or `None` when it did not come.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignedHeaders<'a> {
    pub id: Option<&'a str>,
    pub timestamp: Option<&'a str>,
    pub signature: Option<&'a str>,
}

impl<'a> SignedHeaders<'a> {
    /// Reads the headers through `header`, which must find names in any letter case: `webhook-id`, `webhook-timestamp`
    /// and `webhook-signature`, or, when there is no `webhook-signature`, the `svix-` three. The two sets are never mixed.
    pub fn read(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let (id, timestamp, signature) = if header("webhook-signature").is_some() || header("svix-signature").is_none() {
            ("webhook-id", "webhook-timestamp", "webhook-signature")
        } else {
            ("svix-id", "svix-timestamp", "svix-signature")
        };
        Self { id: header(id), timestamp: header(timestamp), signature: header(signature) }
    }
}

/// One well-formed signature of a known scheme.
enum Signature {
    V1([u8; HMAC_SHA256_BYTES]),
    V1a([u8; ED25519_SIGNATURE_BYTES]),
}

impl Signature {
    /// `None`: another scheme, not base64, or a wrong length; such an entry can never match.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(',')? {
            ("v1", encoded) => decode_exact(encoded).map(Self::V1),
            ("v1a", encoded) => decode_exact(encoded).map(Self::V1a),
            _ => None,
        }
    }
}

/// Decodes padded base64 that holds exactly `N` bytes.
fn decode_exact<const N: usize>(encoded: &str) -> Option<[u8; N]> {
    if encoded.len() != N.div_ceil(3) * 4 {
        return None;
    }
    let mut bytes = [0; N];
    // The estimate of `decode_slice` is rounded up to whole groups, so it needs a little more room than `N`.
    let mut room = [0; ED25519_SIGNATURE_BYTES + 2];
    let count = STANDARD.decode_slice(encoded, &mut room).ok()?;
    bytes.copy_from_slice(room.get(..count).filter(|decoded| decoded.len() == N)?);
    Some(bytes)
}

/// Checks a signed request: any of its signatures under any of `verifiers` will do, in any order.
///
/// `body`: the raw bytes as received. `now_s`: seconds since 1970 from the receiver's clock. `tolerance_s`: usually
/// [`TOLERANCE_SECONDS`]. Change no state before this has returned `Ok`.
///
/// # Errors
/// [`Error::NoSecret`] when there is nothing to verify with (never a pass), [`Error::HeaderMissing`], [`Error::IdInvalid`],
/// [`Error::TimestampInvalid`], [`Error::TimestampTooOld`], [`Error::TimestampTooNew`], [`Error::TooManySignatures`], and
/// [`Error::NoMatch`] for everything that is wrong with the signatures themselves.
pub fn verify(
    headers: &SignedHeaders<'_>,
    body: &[u8],
    verifiers: &[Verifier],
    now_s: u64,
    tolerance_s: u64,
) -> Result<(), Error> {
    if verifiers.is_empty() {
        return Err(Error::NoSecret);
    }
    let id = required(headers.id, "id")?;
    let timestamp = required(headers.timestamp, "timestamp")?;
    let signature = required(headers.signature, "signature")?;

    // A full stop in the id would let the border between id, timestamp and body move while the signed bytes stay the same.
    if id.len() > ID_BYTES_MAX || id.bytes().any(|c| c == b'.' || !c.is_ascii_graphic()) {
        return Err(Error::IdInvalid);
    }
    check_timestamp(timestamp, now_s, tolerance_s)?;

    let mut entries = signature.split(' ').filter(|entry| !entry.is_empty());
    let signatures: Vec<Signature> = entries.by_ref().take(SIGNATURES_MAX).filter_map(Signature::parse).collect();
    if entries.next().is_some() {
        return Err(Error::TooManySignatures { max: SIGNATURES_MAX });
    }
    if signatures.is_empty() {
        return Err(Error::NoMatch);
    }
    let matched = verifiers.iter().any(|verifier| verifier.is_match(id, timestamp.as_bytes(), body, &signatures));
    if matched { Ok(()) } else { Err(Error::NoMatch) }
}

fn required<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, Error> {
    value.filter(|text| !text.is_empty()).ok_or(Error::HeaderMissing(name))
}

fn check_timestamp(text: &str, now_s: u64, tolerance_s: u64) -> Result<(), Error> {
    if !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Error::TimestampInvalid);
    }
    let timestamp_s: u64 = text.parse().map_err(|_| Error::TimestampInvalid)?;
    if timestamp_s < now_s.saturating_sub(tolerance_s) {
        Err(Error::TimestampTooOld)
    } else if timestamp_s > now_s.saturating_add(tolerance_s) {
        Err(Error::TimestampTooNew)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, SigningKey};

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: &str = "1614265330";
    const NOW_S: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn secret(fill: u8) -> Secret {
        Secret::from_bytes(&[fill; 32]).unwrap()
    }

    fn check(signature: Option<&str>, verifiers: &[Verifier]) -> Result<(), Error> {
        let headers = SignedHeaders { id: Some(ID), timestamp: Some(TIMESTAMP), signature };
        verify(&headers, BODY, verifiers, NOW_S, TOLERANCE_SECONDS)
    }

    fn v1(secret: &Secret) -> String {
        crate::Signer::hmac(secret).sign(ID, NOW_S, BODY)
    }

    /// Broken: a forged request passes with a short, long, empty or repeated signature, or makes us panic (T1, T2).
    #[test]
    fn malformed_signatures_are_refused_without_a_panic() {
        let key = secret(1);
        let good = v1(&key);
        let digest = STANDARD.decode(&good[3..]).unwrap();
        let of_bytes = |bytes: &[u8]| format!("v1,{}", STANDARD.encode(bytes));
        let mut longer = digest.clone();
        longer.push(0);
        let cases = [
            " ".to_owned(),
            "v1,".into(),
            "v1".into(),
            ",".into(),
            "v1,,".into(),
            of_bytes(&digest[..1]),
            of_bytes(&digest[..31]),
            of_bytes(&longer),
            of_bytes(&[digest.as_slice(), digest.as_slice()].concat()),
            good[3..].to_owned(),
            good.trim_end_matches('=').to_owned(),
            good.replacen("v1,", "v1a,", 1),
            good.replacen("v1,", "V1,", 1),
            good.replacen("v1,", "v2,", 1),
            good.replacen(',', "=", 1),
            format!("v1,{}", "A".repeat(1_000_000)),
            "v1,é".into(),
        ];
        for case in &cases {
            assert_eq!(check(Some(case), &[Verifier::hmac(&key)]), Err(Error::NoMatch), "{:.40}", case);
        }
        assert_eq!(check(Some(""), &[Verifier::hmac(&key)]), Err(Error::HeaderMissing("signature")));
        let many = vec![good.as_str(); 10_000].join(" ");
        assert_eq!(check(Some(&many), &[Verifier::hmac(&key)]), Err(Error::TooManySignatures { max: 16 }));
        let commas = vec!["v1,"; 10_000].join(" ");
        assert_eq!(check(Some(&commas), &[Verifier::hmac(&key)]), Err(Error::TooManySignatures { max: 16 }));
    }

    /// Broken: leaving the header away, or configuring no secret, turns verification off (T4, T6).
    #[test]
    fn nothing_passes_without_a_signature_or_without_a_secret() {
        let key = secret(1);
        assert_eq!(check(None, &[Verifier::hmac(&key)]), Err(Error::HeaderMissing("signature")));
        assert_eq!(check(Some(&v1(&key)), &[]), Err(Error::NoSecret));
        let headers = SignedHeaders { id: None, timestamp: Some(TIMESTAMP), signature: Some("v1,x") };
        assert_eq!(verify(&headers, BODY, &[Verifier::hmac(&key)], NOW_S, 300), Err(Error::HeaderMissing("id")));
        let headers = SignedHeaders { id: Some(ID), timestamp: None, signature: Some("v1,x") };
        assert_eq!(verify(&headers, BODY, &[Verifier::hmac(&key)], NOW_S, 300), Err(Error::HeaderMissing("timestamp")));
    }

    /// Broken: deliveries fail while a key is being rotated (T9).
    #[test]
    fn any_signature_under_any_secret_passes_in_any_order_up_to_sixteen() {
        let (old, new, other) = (secret(1), secret(2), secret(3));
        let both = format!("{} {}", v1(&old), v1(&new));
        let turned = format!("{}  {}", v1(&new), v1(&old));
        for header in [&both, &turned] {
            assert_eq!(check(Some(header), &[Verifier::hmac(&old)]), Ok(()));
            assert_eq!(check(Some(header), &[Verifier::hmac(&other), Verifier::hmac(&new)]), Ok(()));
            assert_eq!(check(Some(header), &[Verifier::hmac(&other)]), Err(Error::NoMatch));
        }
        let fifteen_wrong = vec![v1(&other); 15].join(" ");
        assert_eq!(check(Some(&format!("{fifteen_wrong} {}", v1(&new))), &[Verifier::hmac(&new)]), Ok(()));

        let pair = SigningKey::generate([7; 32]).unwrap();
        let v1a = Key::Signing(pair.clone()).signer().unwrap().sign(ID, NOW_S, BODY);
        let mixed = format!("{} {v1a}", v1(&other));
        assert_eq!(check(Some(&mixed), &[Verifier::ed25519(&pair.verifying_key())]), Ok(()));
        assert_eq!(check(Some(&v1(&other)), &[Verifier::ed25519(&pair.verifying_key())]), Err(Error::NoMatch));
    }

    /// Broken: a recorded request can be replayed later, or a lenient number parser lets one through.
    #[test]
    fn timestamps_are_strict_and_bounded_on_both_sides() {
        let text = |seconds: u64| seconds.to_string();
        assert_eq!(check_timestamp(&text(NOW_S - 300), NOW_S, 300), Ok(()));
        assert_eq!(check_timestamp(&text(NOW_S + 300), NOW_S, 300), Ok(()));
        assert_eq!(check_timestamp(&text(NOW_S - 301), NOW_S, 300), Err(Error::TimestampTooOld));
        assert_eq!(check_timestamp(&text(NOW_S + 301), NOW_S, 300), Err(Error::TimestampTooNew));
        for bad in ["abc", "1614265330abc", "-1", "+1614265330", " 1614265330", "1.6e9", "0x10", "99999999999999999999999"] {
            assert_eq!(check_timestamp(bad, NOW_S, 300), Err(Error::TimestampInvalid), "{bad}");
        }
    }

    /// Broken: an attacker moves bytes between id, timestamp and body under one signature.
    #[test]
    fn ids_with_a_full_stop_or_unprintable_characters_are_refused() {
        for id in ["msg.1", "msg 1", "msg\n1", "é", &"m".repeat(257)] {
            let headers = SignedHeaders { id: Some(id), timestamp: Some(TIMESTAMP), signature: Some("v1,x") };
            assert_eq!(verify(&headers, BODY, &[Verifier::hmac(&secret(1))], NOW_S, 300), Err(Error::IdInvalid), "{id:?}");
        }
    }
}
