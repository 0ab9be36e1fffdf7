//! Playing the provider in tests: keys of every kind, made once, and certificates that hold them.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwire_verify::{Credentials, Preset, Refusal, Request, Signed, Verified};

pub(crate) const NOW_S: u64 = 1_767_225_600;
/// Good as text, as hexadecimal and as base64 alike, so that one secret serves every provider.
const SECRET: &str = "8f3a1c5d7e9b0246813579bdf0246813579bdf02468ace13579bdf02468ace13";
const OTHER: &str = "1f3a1c5d7e9b0246813579bdf0246813579bdf02468ace13579bdf02468ace14";

/// A private key as the provider has it and the public key as it hands it out, both in PEM.
pub(crate) struct Pair {
    pub(crate) private: String,
    pub(crate) public: String,
    spki: Vec<u8>,
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn pair(private: &[u8], spki: &[u8]) -> Pair {
    Pair { private: pem("PRIVATE KEY", private), public: pem("PUBLIC KEY", spki), spki: spki.to_vec() }
}

fn make_pairs() -> Vec<Pair> {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let mut pairs = vec![
        pair(
            AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap().as_ref(),
            AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap().as_ref(),
        ),
        pair(
            AsDer::<Pkcs8V1Der<'_>>::as_der(&ed25519).unwrap().as_ref(),
            AsDer::<PublicKeyX509Der<'_>>::as_der(ed25519.public_key()).unwrap().as_ref(),
        ),
    ];
    for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P521_SHA512_FIXED_SIGNING] {
        let ecdsa = EcdsaKeyPair::generate(algorithm).unwrap();
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(ecdsa.public_key()).unwrap();
        pairs.push(pair(ecdsa.to_pkcs8v1().unwrap().as_ref(), spki.as_ref()));
    }
    pairs
}

/// RSA, Ed25519, P-256 and P-521, two of each: the provider's and a stranger's.
pub(crate) fn pairs(is_stranger: bool) -> &'static [Pair] {
    static OWN: OnceLock<Vec<Pair>> = OnceLock::new();
    static STRANGERS: OnceLock<Vec<Pair>> = OnceLock::new();
    if is_stranger { STRANGERS.get_or_init(make_pairs) } else { OWN.get_or_init(make_pairs) }
}

/// One DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        out.push(0x82);
        out.extend((length as u16).to_be_bytes());
    }
    out.extend_from_slice(content);
    out
}

/// The first and the last second of certificates: `NOW_S` and ten years later.
pub(crate) const DATES: [&str; 2] = ["260101000000Z", "360101000000Z"];

/// A certificate with the one name and the one key; nobody follows its chain, so nobody signs it.
pub(crate) fn certificate(common_name: &str, pair: &Pair, dates: [&str; 2]) -> String {
    let algorithm = der(0x30, &der(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]));
    let name_pair = [der(0x06, &[0x55, 0x04, 0x03]), der(0x0c, common_name.as_bytes())].concat();
    let name = der(0x30, &der(0x31, &der(0x30, &name_pair)));
    let validity = der(0x30, &dates.map(|date| der(0x17, date.as_bytes())).concat());
    let version = der(0xa0, &der(0x02, &[2]));
    let parts = [version, der(0x02, &[1]), algorithm.clone(), name.clone(), validity, name, pair.spki.clone()];
    let whole = [der(0x30, &parts.concat()), algorithm, der(0x03, &[0, 1, 2, 3])].concat();
    pem("CERTIFICATE", &der(0x30, &whole))
}

/// A provider, or a stranger who plays it.
pub(crate) struct Provider<'a> {
    pub(crate) preset: &'a Preset,
    signing: String,
    verifying: String,
    common_name: Option<String>,
}

impl<'a> Provider<'a> {
    /// `None` for the presets whose algorithms only verify.
    pub(crate) fn of(preset: &'a Preset, is_stranger: bool) -> Option<Self> {
        if !preset.is_asymmetric() {
            let secret = if is_stranger { OTHER } else { SECRET };
            let is_basic = preset.signature_places() == ["basic"];
            let secret = if is_basic { format!("user:{secret}") } else { secret.to_owned() };
            return Some(Self { preset, signing: secret.clone(), verifying: secret, common_name: None });
        }
        let settings = settings(preset, Credentials::none());
        let fits = |pair: &&Pair| {
            let credentials = settings.clone().and_secret(&pair.private);
            preset.example().with_request(|request| preset.sign(request, &credentials, NOW_S)).is_ok()
        };
        let pair = pairs(is_stranger).iter().find(fits)?;
        let name = match preset.id() {
            "aws-sns" => "sns.amazonaws.com",
            _ => "messageverificationcerts.paypal.com",
        };
        let common_name = (preset.family() == "certificate").then(|| certificate(name, pair, DATES));
        Some(Self { preset, signing: pair.private.clone(), verifying: pair.public.clone(), common_name })
    }

    /// What a receiver of this provider holds.
    pub(crate) fn receiver(&self) -> Credentials {
        self.and_receiver(Credentials::none())
    }

    /// One more secret, or another certificate, for somebody who already holds some.
    pub(crate) fn and_receiver(&self, credentials: Credentials) -> Credentials {
        let credentials = settings(self.preset, credentials);
        match &self.common_name {
            Some(certificate) => {
                let url = self.preset.example().with_request(|request| self.preset.certificate_url(request)).unwrap().unwrap();
                credentials.certificate(url, certificate)
            }
            None => credentials.and_secret(&self.verifying),
        }
    }

    /// The example, signed at `now_s`.
    pub(crate) fn sign(&self, now_s: u64) -> Signed {
        let credentials = settings(self.preset, Credentials::none()).and_secret(&self.signing);
        let signed = self.preset.example().with_request(|request| self.preset.sign(request, &credentials, now_s));
        signed.unwrap_or_else(|refusal| panic!("{}: {refusal}", self.preset.id()))
    }

    pub(crate) fn verify(&self, signed: &Signed, now_s: u64) -> Result<Verified, Refusal> {
        signed.with_request(|request: &Request<'_>| self.preset.verify(request, &self.receiver(), now_s))
    }
}

fn settings(preset: &Preset, credentials: Credentials) -> Credentials {
    preset.example().settings.iter().fold(credentials, |all, (name, value)| all.setting(name, value))
}
