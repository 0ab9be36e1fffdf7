//! `[signing]`: the keys that new endpoints get.

use bellwire_engine::config::SigningDefault;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;

/// `[signing]`
#[derive(Clone, Debug)]
pub struct Signing {
    pub default: SigningDefault,
}

pub const KEYS: &[Key; 1] = &[Key {
    path: "signing.default",
    default: "hmac-sha256",
    example: "ed25519",
    accepts: "hmac-sha256 or ed25519",
    about: "The kind of key a new endpoint gets when its creator brings none: a shared secret (scheme `v1`), or a key pair whose \
            public half is all that the receiver needs (`v1a`).",
    secrecy: Secrecy::Open,
}];

impl Signing {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [default] = KEYS;
        let parse = |text: &str| match text {
            "hmac-sha256" => Ok(SigningDefault::HmacSha256),
            "ed25519" => Ok(SigningDefault::Ed25519),
            _ => Err(format!("{text:?} is not known")),
        };
        Ok(Self { default: layers.required(default, parse)? })
    }
}
