//! `[auth]`: credentials that are configured rather than stored.

use bellwire_core::Secret;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;

/// `[auth]`
#[derive(Clone, Debug)]
pub struct Auth {
    pub jwt_secret: Option<Secret>,
}

pub const KEYS: &[Key; 1] = &[Key {
    path: "auth.jwt_secret",
    default: "",
    example: "",
    accepts: "a text of at least 8 characters, better 32 random ones",
    about: "Secret of HS256 tokens as Svix servers take them (`sub` is an `org_…` or `app_…` id), so that running clients keep \
            theirs. Without it no such token is taken, and portal tokens are signed with a key derived from the master key.",
    secrecy: Secrecy::Secret,
}];

impl Auth {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [jwt_secret] = KEYS;
        let parse = |text: &str| {
            if text.len() < 8 { Err("is too short".to_owned()) } else { Ok(Secret::new(text)) }
        };
        Ok(Self { jwt_secret: layers.optional(jwt_secret, parse)? })
    }
}
