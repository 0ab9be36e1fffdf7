//! `[security]`: the key that secrets at rest are encrypted with.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;

pub const MASTER_KEY_BYTES: usize = 32;

/// The operator's master key. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(pub [u8; MASTER_KEY_BYTES]);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// `[security]`
#[derive(Clone, Debug)]
pub struct Security {
    /// `None`: the file `master.key` in the data folder.
    pub master_key: Option<MasterKey>,
}

pub const KEYS: &[Key; 1] = &[Key {
    path: "security.master_key",
    default: "",
    example: "",
    accepts: "32 bytes in base64, such as `openssl rand -base64 32` prints",
    about: "Encrypts the secrets in the store (signing keys, endpoint headers). Default: the file `master.key` in the data \
            folder, made at the first start and readable by its owner only. Keep a copy of it apart from the store's backups: \
            without it the secrets are lost. All nodes of a PostgreSQL database need the same one.",
    secrecy: Secrecy::Secret,
}];

impl Security {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [master_key] = KEYS;
        Ok(Self { master_key: layers.optional(master_key, parse_master_key)? })
    }
}

/// Reads the text form: base64 of 32 bytes, with or without padding.
///
/// # Errors
/// What is wrong, without the value.
pub fn parse_master_key(text: &str) -> Result<MasterKey, String> {
    let text = text.trim().trim_end_matches('=');
    let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
    let bytes = STANDARD.decode(padded).map_err(|_| "is not base64".to_owned())?;
    let count = bytes.len();
    bytes.try_into().map(MasterKey).map_err(|_| format!("is {count} bytes"))
}

/// The text form that [`parse_master_key`] reads.
pub fn master_key_text(key: &MasterKey) -> String {
    STANDARD.encode(key.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: a master key that was written to `master.key` does not open the store after a restart.
    #[test]
    fn the_master_key_reads_back_as_it_was_written() {
        let key = MasterKey([7; MASTER_KEY_BYTES]);
        let text = master_key_text(&key);
        assert_eq!(parse_master_key(&format!("{text}\n")), Ok(key.clone()));
        assert_eq!(parse_master_key(text.trim_end_matches('=')), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "[redacted]");
        for wrong in ["AAAA", "not base64!", ""] {
            assert!(parse_master_key(wrong).is_err(), "{wrong}");
        }
    }
}
