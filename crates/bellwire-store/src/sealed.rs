//! What stands sealed in rows, in every backend alike: signing keys and header values of endpoints, answers kept under
//! idempotency keys.

use bellwire_core::{AppId, Endpoint, EndpointHealth, EndpointId, HeaderSet, OrgId, Secret, SigningSecret, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::stored::{from_json, to_json};
use crate::{Cipher, Idempotency, IdempotencyRecord, Result, StoreError};

/// An endpoint's row before its secrets are opened (which needs the organisation).
pub struct SealedEndpoint {
    pub id: EndpointId,
    pub uid: Option<String>,
    pub url: String,
    pub description: String,
    /// JSON, as `channels` and `metadata`.
    pub event_types: Option<String>,
    pub channels: Option<String>,
    pub throttle_rate: Option<u16>,
    pub disabled: bool,
    pub metadata: String,
    pub headers: Option<Vec<u8>>,
    pub secret: Option<Vec<u8>>,
    pub failing_since: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The signing keys inside the seal.
#[derive(Serialize, Deserialize)]
struct Keys {
    current: String,
    old: Vec<(String, i64)>,
}

fn place(id: EndpointId, column: &str) -> String {
    format!("endpoint/{id}/{column}")
}

/// The columns `headers` and `secret`.
///
/// # Errors
/// [`StoreError::Cipher`] if sealing fails.
pub fn seal_endpoint(cipher: &Cipher, org: OrgId, endpoint: &Endpoint) -> Result<(Vec<u8>, Vec<u8>)> {
    let headers: Vec<(&str, &str)> = endpoint.headers.0.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    let keys = Keys {
        current: endpoint.secret.current.expose().to_owned(),
        old: endpoint.secret.old.iter().map(|(key, until)| (key.expose().to_owned(), until.as_millis())).collect(),
    };
    Ok((
        cipher.seal(&org, &place(endpoint.id, "headers"), to_json(&headers)?.as_bytes())?,
        cipher.seal(&org, &place(endpoint.id, "secret"), to_json(&keys)?.as_bytes())?,
    ))
}

impl SealedEndpoint {
    /// # Errors
    /// [`StoreError::Cipher`] if it was sealed with another key, [`StoreError::Corrupt`] if it cannot be read.
    pub fn open(self, cipher: &Cipher, org: OrgId, app: AppId) -> Result<Endpoint> {
        let text = |column: &str, sealed: Option<Vec<u8>>| -> Result<String> {
            let sealed = sealed.ok_or_else(|| StoreError::Corrupt(format!("{} is missing", place(self.id, column))))?;
            let opened = cipher.open(&org, &place(self.id, column), &sealed)?;
            String::from_utf8(opened).map_err(|error| StoreError::Corrupt(error.to_string()))
        };
        let list = |text: Option<String>| text.as_deref().map(from_json).transpose();
        let headers: Vec<(String, String)> = from_json(&text("headers", self.headers)?)?;
        let keys: Keys = from_json(&text("secret", self.secret)?)?;
        Ok(Endpoint {
            id: self.id,
            app,
            uid: self.uid,
            url: self.url,
            description: self.description,
            event_types: list(self.event_types)?,
            channels: list(self.channels)?,
            throttle_rate: self.throttle_rate,
            disabled: self.disabled,
            metadata: from_json(&self.metadata)?,
            headers: HeaderSet(headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()),
            secret: SigningSecret {
                current: Secret::new(keys.current),
                old: keys.old.into_iter().map(|(key, until)| (Secret::new(key), Timestamp(until))).collect(),
            },
            health: EndpointHealth { failing_since: self.failing_since },
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

fn answer_place(key: &[u8; 16]) -> String {
    format!("idempotency/{:032x}/response", u128::from_be_bytes(*key))
}

/// The column `response`.
///
/// # Errors
/// [`StoreError::Cipher`] if sealing fails.
pub fn seal_answer(cipher: &Cipher, record: &IdempotencyRecord) -> Result<Vec<u8>> {
    cipher.seal(&record.org, &answer_place(&record.idempotency.key), &record.response)
}

/// # Errors
/// [`StoreError::Cipher`] if it was sealed with another key or for another place.
pub fn open_answer(cipher: &Cipher, org: OrgId, key: &Idempotency, sealed: &[u8]) -> Result<Bytes> {
    Ok(cipher.open(&org, &answer_place(&key.key), sealed)?.into())
}
