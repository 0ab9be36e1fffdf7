//! Keys of asymmetric schemes, in every form in which providers hand them out, and their private halves for signing.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::SigningKey;
use crate::algorithm::Algorithm;
use crate::der::{Certificate, from_pem};
use crate::encoding::from_hex;
use crate::key::LENIENT;

/// A key to verify with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// SubjectPublicKeyInfo, or the bare bytes of a point or an Ed25519 key.
    Bytes(Vec<u8>),
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl PublicKey {
    /// Reads PEM (public key or certificate), a JSON Web Key or a set of them, `whpk_`, hexadecimal, or base64.
    /// `key_id` chooses from a set; a set of one needs none.
    pub(crate) fn parse(text: &str, key_id: Option<&str>) -> Option<Self> {
        let text = text.trim();
        if text.starts_with('{') {
            return from_jwk(&serde_json::from_str(text).ok()?, key_id);
        }
        if text.starts_with("-----BEGIN CERTIFICATE") {
            return Certificate::from_pem(text).map(|certificate| Self::Bytes(certificate.public_key));
        }
        if text.starts_with("-----BEGIN RSA PUBLIC KEY") {
            return from_pem(text, "RSA PUBLIC KEY").map(Self::Bytes);
        }
        if text.starts_with("-----BEGIN") {
            return from_pem(text, "PUBLIC KEY").map(Self::Bytes);
        }
        let text = text.strip_prefix("whpk_").or_else(|| text.strip_prefix("whpk1_")).unwrap_or(text);
        if text.len() == 64
            && let Some(bytes) = from_hex(text)
        {
            return Some(Self::Bytes(bytes));
        }
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        LENIENT.decode(text).ok().filter(|bytes| bytes.len() >= 32).map(Self::Bytes)
    }

    pub(crate) fn is_signature(&self, algorithm: Algorithm, content: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { modulus, exponent } => {
                let Some(parameters) = rsa_parameters(algorithm) else { return false };
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, content, signature).is_ok()
            }
            Self::Bytes(bytes) => {
                let algorithm: &dyn lc::VerificationAlgorithm = match algorithm {
                    Algorithm::Ed25519 => &lc::ED25519,
                    Algorithm::EcdsaP256Sha1 => &lc::ECDSA_P256_SHA1_ASN1,
                    Algorithm::EcdsaP256Sha256 => &lc::ECDSA_P256_SHA256_ASN1,
                    Algorithm::EcdsaP256Sha256Fixed => &lc::ECDSA_P256_SHA256_FIXED,
                    Algorithm::EcdsaP384Sha384Fixed => &lc::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EcdsaP521Sha512Fixed => &lc::ECDSA_P521_SHA512_FIXED,
                    other => match rsa_parameters(other) {
                        Some(parameters) => parameters,
                        None => return false,
                    },
                };
                UnparsedPublicKey::new(algorithm, bytes).verify(content, signature).is_ok()
            }
        }
    }
}

/// Keys of 1024 bits are still handed out where SHA-1 still is.
fn rsa_parameters(algorithm: Algorithm) -> Option<&'static lc::RsaParameters> {
    match algorithm {
        Algorithm::RsaSha1 => Some(&lc::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
        Algorithm::RsaSha256 => Some(&lc::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RsaSha384 => Some(&lc::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RsaSha512 => Some(&lc::RSA_PKCS1_2048_8192_SHA512),
        _ => None,
    }
}

fn from_jwk(value: &Value, key_id: Option<&str>) -> Option<PublicKey> {
    if let Some(keys) = value.get("keys").and_then(Value::as_array) {
        let named = |key: &&Value| key_id.is_some_and(|id| key.get("kid").and_then(Value::as_str) == Some(id));
        let key = keys.iter().find(named).or_else(|| keys.first().filter(|_| keys.len() == 1 && key_id.is_none()))?;
        return from_jwk(key, None);
    }
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(value.get(name)?.as_str()?).ok();
    match value.get("kty")?.as_str()? {
        "RSA" => Some(PublicKey::Rsa { modulus: bytes("n")?, exponent: bytes("e")? }),
        "OKP" => bytes("x").map(PublicKey::Bytes),
        "EC" => {
            let width = match value.get("crv")?.as_str()? {
                "P-256" => 32,
                "P-384" => 48,
                "P-521" => 66,
                _ => return None,
            };
            let mut point = vec![4];
            for name in ["x", "y"] {
                let coordinate = bytes(name).filter(|bytes| bytes.len() <= width)?;
                point.extend(std::iter::repeat_n(0, width - coordinate.len()));
                point.extend(coordinate);
            }
            Some(PublicKey::Bytes(point))
        }
        _ => None,
    }
}

/// Signs with a private key: PKCS#8 as PEM, or `whsk_` for Ed25519.
pub(crate) fn sign(private: &str, algorithm: Algorithm, content: &[u8]) -> Option<Vec<u8>> {
    if private.starts_with("whsk_") && algorithm == Algorithm::Ed25519 {
        return Some(SigningKey::parse(private).ok()?.pair().ok()?.sign(content).as_ref().to_vec());
    }
    let pkcs8 = from_pem(private, "PRIVATE KEY")?;
    let random = SystemRandom::new();
    let ecdsa = |algorithm: &'static lc::EcdsaSigningAlgorithm| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8).ok()?;
        pair.sign(&random, content).ok().map(|signature| signature.as_ref().to_vec())
    };
    let rsa = |encoding: &'static lc::RsaSignatureEncoding| {
        let pair = RsaKeyPair::from_pkcs8(&pkcs8).ok()?;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &random, content, &mut signature).ok()?;
        Some(signature)
    };
    match algorithm {
        Algorithm::Ed25519 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).ok()?;
            Some(pair.sign(content).as_ref().to_vec())
        }
        Algorithm::EcdsaP256Sha256 => ecdsa(&lc::ECDSA_P256_SHA256_ASN1_SIGNING),
        Algorithm::EcdsaP256Sha256Fixed => ecdsa(&lc::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::EcdsaP384Sha384Fixed => ecdsa(&lc::ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EcdsaP521Sha512Fixed => ecdsa(&lc::ECDSA_P521_SHA512_FIXED_SIGNING),
        Algorithm::RsaSha256 => rsa(&lc::RSA_PKCS1_SHA256),
        Algorithm::RsaSha384 => rsa(&lc::RSA_PKCS1_SHA384),
        Algorithm::RsaSha512 => rsa(&lc::RSA_PKCS1_SHA512),
        // Signatures over SHA-1 are verified where a provider still makes them; making new ones is no service to anybody.
        _ => None,
    }
}
