//! `[egress]`: the operator's exceptions to the rule that requests go to the public internet only.

use bellwire_core::egress::EgressPolicy;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;
use super::parse_bool;

/// `[egress]`
#[derive(Clone, Debug)]
pub struct Egress {
    /// Without our own listeners, which are known later.
    pub policy: EgressPolicy,
}

pub const KEYS: &[Key; 3] = &[
    Key {
        path: "egress.allow",
        default: "",
        example: "10.1.0.0/16,hooks.internal",
        accepts: "networks (10.1.0.0/16), addresses and host names, separated by commas; .example.internal is every name below it",
        about: "Destinations that are allowed although they are private, loopback or otherwise special. Everyone who may create an \
                endpoint can then make Bellwire send requests there.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "egress.https_only",
        default: "false",
        example: "true",
        accepts: "true or false",
        about: "Refuse endpoints with http URLs.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "egress.allow_metadata",
        default: "false",
        example: "false",
        accepts: "true or false",
        about: "Let `egress.allow` cover cloud metadata addresses (169.254.169.254 and their like) too, which hand out the \
                machine's credentials. Leave it off.",
        secrecy: Secrecy::Open,
    },
];

impl Egress {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [allow, https_only, allow_metadata] = KEYS;
        let mut policy = EgressPolicy {
            https_only: layers.required(https_only, parse_bool)?,
            allow_metadata: layers.required(allow_metadata, parse_bool)?,
            ..EgressPolicy::default()
        };
        layers.optional(allow, |text| policy.allow_entries(text.split(',')))?;
        Ok(Self { policy })
    }
}
