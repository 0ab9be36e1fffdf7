//! Making signatures. The key is prepared once; one signature costs one HMAC and no allocation beyond the text it is written to.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Error, Secret, SigningKey};

/// A key prepared for signing. Cheap to share behind an `Arc`, costly enough to make that it is worth keeping.
pub struct Signer(Scheme);

enum Scheme {
    Hmac(Box<hmac::Key>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl Signer {
    /// Scheme `v1`.
    pub fn hmac(secret: &Secret) -> Self {
        Self(Scheme::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.bytes()))))
    }

    /// Scheme `v1a`.
    ///
    /// # Errors
    /// [`Error::SigningKeyMismatch`] if the library refuses the pair.
    pub fn ed25519(key: &SigningKey) -> Result<Self, Error> {
        Ok(Self(Scheme::Ed25519(Box::new(key.pair()?))))
    }

    /// One signature as it stands in the header: `v1,<base64>` or `v1a,<base64>`.
    ///
    /// `timestamp_s`: seconds since 1970, the same number as in the timestamp header. `id` must be the id header.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let mut out = String::with_capacity(96);
        self.sign_into(&mut out, id, timestamp_s, body);
        out
    }

    /// Like [`Signer::sign`], appended to `out`.
    pub fn sign_into(&self, out: &mut String, id: &str, timestamp_s: u64, body: &[u8]) {
        let mut digits = [0; DIGITS_MAX];
        let timestamp = write_decimal(timestamp_s, &mut digits);
        match &self.0 {
            Scheme::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                for part in [id.as_bytes(), b".", timestamp, b".", body] {
                    context.update(part);
                }
                out.push_str("v1,");
                STANDARD.encode_string(context.sign(), out);
            }
            Scheme::Ed25519(pair) => {
                let signature = pair.sign(&signed_content(id, timestamp, body));
                out.push_str("v1a,");
                STANDARD.encode_string(signature, out);
            }
        }
    }
}

/// Writes the whole signature header value to `out`, replacing what was there: one signature per signer, separated by spaces.
///
/// During a rotation pass the new key first and then the old ones that still sign. The string's room is reused.
pub fn sign_all<'a>(signers: impl IntoIterator<Item = &'a Signer>, id: &str, timestamp_s: u64, body: &[u8], out: &mut String) {
    out.clear();
    for signer in signers {
        if !out.is_empty() {
            out.push(' ');
        }
        signer.sign_into(out, id, timestamp_s, body);
    }
}

/// The signed bytes (`id.timestamp.body`) in one piece, for schemes that cannot take them in parts.
pub(crate) fn signed_content(id: &str, timestamp: &[u8], body: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(id.len() + timestamp.len() + body.len() + 2);
    for part in [id.as_bytes(), b".", timestamp, b".", body] {
        content.extend_from_slice(part);
    }
    content
}

/// Digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

fn write_decimal(mut number: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Scheme::Hmac(_) => "Signer(v1)",
            Scheme::Ed25519(_) => "Signer(v1a)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP_S: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const V1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const V1A: &str = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    fn signer(key: &str) -> Signer {
        Key::parse(key).unwrap().signer().unwrap()
    }

    /// Broken: receivers using the reference libraries reject what we sign (published fixtures of the specification).
    #[test]
    fn signatures_equal_the_published_fixtures() {
        let hmac = signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let pair = signer("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==");
        assert_eq!(hmac.sign(ID, TIMESTAMP_S, BODY), V1);
        assert_eq!(pair.sign(ID, TIMESTAMP_S, BODY), V1A);

        let mut header = "left over from the last message".to_owned();
        sign_all([&hmac, &pair], ID, TIMESTAMP_S, BODY, &mut header);
        assert_eq!(header, format!("{V1} {V1A}"));
    }

    /// Broken: a timestamp is signed as another number than the header shows.
    #[test]
    fn timestamps_are_written_in_decimal() {
        for number in [0, 9, 10, 1_614_265_330, u64::MAX] {
            assert_eq!(write_decimal(number, &mut [0; DIGITS_MAX]), number.to_string().as_bytes());
        }
    }
}
