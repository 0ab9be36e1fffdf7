//! `config show`: the effective values with their origin, secrets redacted.

use serde::Serialize;

use super::keys;
use super::layer::Layers;

/// One line of `config show`.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub key: &'static str,
    /// Redacted where it is a secret; empty where nothing is set.
    pub value: String,
    pub origin: String,
}

/// All keys in the order of the reference.
pub fn effective(layers: &Layers) -> Vec<Shown> {
    keys()
        .map(|key| {
            let setting = layers.setting(key);
            Shown { key: key.path, value: key.shown(&setting.text), origin: setting.origin.to_string() }
        })
        .collect()
}
