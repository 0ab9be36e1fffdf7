//! Secrets at rest: AES-256-GCM-SIV under a key derived per organisation, bound to the place where the value stands.
//!
//! A blob is `version (1) | nonce (12) | ciphertext and tag`. The place (table, row id, column) is authenticated with it, so a
//! value copied into another row does not open. GCM-SIV (RFC 8452) stays safe should a nonce ever repeat.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf;
use bellwire_core::{IdKind, OrgId};

use crate::{Result, StoreError};

/// The blob format and key this binary writes; the first byte of every blob.
const VERSION: u8 = 1;
const SALT: &[u8] = b"bellwire store secrets v1";

/// Seals and opens secrets. One per process, from the operator's master key.
#[derive(Clone)]
pub struct Cipher {
    master: hkdf::Prk,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher([redacted])")
    }
}

impl Cipher {
    pub fn new(master_key: [u8; 32]) -> Self {
        Self { master: hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&master_key) }
    }

    /// Encrypts for one place of one organisation. Fails only if the system's random generator does.
    pub fn seal(&self, org: &OrgId, place: &str, plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = plaintext.to_vec();
        let nonce = self
            .key(org)?
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| StoreError::Cipher(format!("sealing {place} failed")))?;
        let mut blob = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        blob.push(VERSION);
        blob.extend_from_slice(nonce.as_ref());
        blob.extend_from_slice(&sealed);
        Ok(blob)
    }

    /// Decrypts what [`Cipher::seal`] made for the same organisation and place.
    pub fn open(&self, org: &OrgId, place: &str, blob: &[u8]) -> Result<Vec<u8>> {
        let Some((&version, rest)) = blob.split_first() else {
            return Err(StoreError::Cipher(format!("{place} is empty")));
        };
        if version != VERSION {
            return Err(StoreError::Cipher(format!(
                "{place} was sealed with key or format {version}, which this binary does not know"
            )));
        }
        let Some((nonce, sealed)) = rest.split_first_chunk::<NONCE_LEN>() else {
            return Err(StoreError::Cipher(format!("{place} is cut short")));
        };
        let mut sealed = sealed.to_vec();
        let opened = self
            .key(org)?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| {
                StoreError::Cipher(format!("{place} does not open: wrong master key, or the value was altered or moved"))
            })?;
        Ok(opened.to_vec())
    }

    fn key(&self, org: &OrgId) -> Result<RandomizedNonceKey> {
        let wrong = |_| StoreError::Cipher("the key could not be derived".to_owned());
        let mut raw = [0; 32];
        self.master.expand(&[b"org", org.as_bytes()], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut raw)).map_err(wrong)?;
        RandomizedNonceKey::new(&AES_256_GCM_SIV, &raw).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(n: u8) -> OrgId {
        OrgId::from_bytes([n; 20])
    }

    #[test]
    fn a_value_opens_only_where_it_was_sealed() {
        let cipher = Cipher::new([7; 32]);
        let blob = cipher.seal(&org(1), "endpoint/1/secret", b"whsec_x").unwrap();
        assert_eq!(cipher.open(&org(1), "endpoint/1/secret", &blob).unwrap(), b"whsec_x");
        assert!(cipher.open(&org(1), "endpoint/2/secret", &blob).is_err(), "another row");
        assert!(cipher.open(&org(1), "endpoint/1/headers", &blob).is_err(), "another column");
        assert!(cipher.open(&org(2), "endpoint/1/secret", &blob).is_err(), "another organisation");
        assert!(Cipher::new([8; 32]).open(&org(1), "endpoint/1/secret", &blob).is_err(), "another master key");
    }

    #[test]
    fn damage_is_noticed_at_every_byte() {
        let cipher = Cipher::new([7; 32]);
        let blob = cipher.seal(&org(1), "p", b"secret").unwrap();
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1;
            assert!(cipher.open(&org(1), "p", &damaged).is_err(), "byte {at}");
            assert!(cipher.open(&org(1), "p", &blob[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn neither_the_plaintext_nor_equality_shows() {
        let cipher = Cipher::new([7; 32]);
        let [a, b] = [0, 1].map(|_| cipher.seal(&org(1), "p", b"whsec_secret").unwrap());
        assert_ne!(a, b);
        assert!(!a.windows(6).any(|w| w == b"whsec_"));
        assert!(!format!("{cipher:?}").contains('7'));
    }
}
