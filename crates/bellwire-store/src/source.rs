//! Sources, and the log of what came to them without becoming a message. Tokens, secrets and handshake state are sealed at rest.

use async_trait::async_trait;
use bellwire_core::{Application, MessageId, OrgId, Page, PageQuery, ReceiptId, Secret, Source, SourceId, Timestamp};

use crate::{Cipher, IdempotencyRecord, Result, StoreError, Written, stored};

/// An entry of a source's log: a request that was refused, quarantined, or came twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub id: ReceiptId,
    pub source: SourceId,
    /// What was answered.
    pub status: u16,
    /// A stable code: `verification_failed.stale`, `duplicate`, `too_large`, `schema`, ….
    pub reason: String,
    /// For people; no secret, nothing of the body.
    pub detail: String,
    /// The message that this request repeats.
    pub duplicate_of: Option<MessageId>,
    /// Kept only of quarantined requests.
    pub payload: Option<bytes::Bytes>,
    /// Names and values, without credentials.
    pub headers: Vec<(String, String)>,
    pub at: Timestamp,
}

/// Whether a source is still as it was read, but for what handshakes leave, which is written apart, and `updated_at`.
pub(crate) fn is_still(read: &Source, stored: &Source) -> bool {
    *stored == Source { state: stored.state.clone(), updated_at: stored.updated_at, ..read.clone() }
}

/// Names of a source's state, and what they are to be.
pub type StateChange = Vec<(String, Option<Secret>)>;

#[async_trait]
pub trait SourceStore {
    /// Creates the source, and its application if `application` is given. [`crate::StoreError::Conflict`] on a taken `uid`.
    async fn create_source(
        &self,
        source: Source,
        application: Option<Application>,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<Source>>;
    /// By id or uid.
    async fn find_source(&self, org: OrgId, id_or_uid: &str) -> Result<Option<Source>>;
    /// By the token of its public URL, whoever it belongs to. Looked up by a keyed hash: neither time nor the stored form tells a token.
    async fn find_source_by_token(&self, token: &str) -> Result<Option<Source>>;
    async fn list_sources(&self, org: OrgId, page: PageQuery<SourceId>) -> Result<Page<Source>>;
    /// Of all organisations, at most [`bellwire_core::limits::CRON_SOURCES_MAX`], by id.
    async fn sources_of_kind(&self, kind: &str) -> Result<Vec<Source>>;
    /// Replaces everything but id, app, creation time and state (a new token included), if it is still as it was `read` (state
    /// apart). [`crate::StoreError::Outdated`] if somebody has changed it since: nothing is written. Conflict on a taken `uid`.
    async fn change_source(&self, read: &Source, source: Source, idem: Option<IdempotencyRecord>) -> Result<Written<Source>>;
    /// Stores names of its state, each in place of what it was (`None` deletes it), all of them or none: if `unless` is among its
    /// names already, nothing is changed and the answer is false. Of several who set a name that none may replace, one wins,
    /// whatever node they are on.
    async fn set_source_state(&self, id: SourceId, values: StateChange, unless: Option<&str>, now: Timestamp) -> Result<bool>;
    /// Deletes it, with its log, and its application if that was made for it alone. False if there was none.
    async fn delete_source(&self, org: OrgId, id: SourceId, now: Timestamp) -> Result<bool>;
    /// Adds to the log; of each source the newest [`bellwire_core::limits::SOURCE_LOG_ENTRIES_KEPT`] stay.
    async fn add_receipts(&self, receipts: Vec<Receipt>) -> Result<()>;
    /// By id.
    async fn list_receipts(&self, source: SourceId, page: PageQuery<ReceiptId>) -> Result<Page<Receipt>>;
}

/// The parts of a source that are not stored as they are.
pub struct Sealed {
    pub token_hash: Vec<u8>,
    pub token: Vec<u8>,
    pub config: Vec<u8>,
    pub state: Vec<u8>,
}

type Secrets = std::collections::BTreeMap<String, Secret>;

/// Makes the change, unless it may not be made: false.
pub fn change_state(state: &mut Secrets, values: StateChange, unless: Option<&str>) -> bool {
    if unless.is_some_and(|name| state.contains_key(name)) {
        return false;
    }
    for (name, value) in values {
        match value {
            Some(secret) => state.insert(name, secret),
            None => state.remove(&name),
        };
    }
    true
}

/// What a token is looked up by. Tokens are random and long: a plain hash gives nothing away.
pub fn token_hash(token: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

fn place(id: SourceId, column: &str) -> String {
    format!("source/{id}/{column}")
}

/// Seals names and secrets for one column of one source.
pub fn seal_secrets(cipher: &Cipher, org: OrgId, id: SourceId, column: &str, secrets: &Secrets) -> Result<Vec<u8>> {
    let plain: std::collections::BTreeMap<&str, &str> =
        secrets.iter().map(|(name, secret)| (name.as_str(), secret.expose())).collect();
    cipher.seal(&org, &place(id, column), stored::to_json(&plain)?.as_bytes())
}

/// The reverse of [`seal_secrets`].
pub fn open_secrets(cipher: &Cipher, org: OrgId, id: SourceId, column: &str, sealed: &[u8]) -> Result<Secrets> {
    let text = open_text(cipher, org, id, column, sealed)?;
    let plain: std::collections::BTreeMap<String, String> = stored::from_json(&text)?;
    Ok(plain.into_iter().map(|(name, secret)| (name, Secret::new(secret))).collect())
}

fn open_text(cipher: &Cipher, org: OrgId, id: SourceId, column: &str, sealed: &[u8]) -> Result<String> {
    let bytes = cipher.open(&org, &place(id, column), sealed)?;
    String::from_utf8(bytes).map_err(|_| StoreError::Corrupt(format!("{} is no text", place(id, column))))
}

/// Seals what a source's row holds sealed.
pub fn seal(cipher: &Cipher, source: &Source) -> Result<Sealed> {
    Ok(Sealed {
        token_hash: token_hash(source.token.expose()),
        token: cipher.seal(&source.org, &place(source.id, "token"), source.token.expose().as_bytes())?,
        config: seal_secrets(cipher, source.org, source.id, "config", &source.config)?,
        state: seal_secrets(cipher, source.org, source.id, "state", &source.state)?,
    })
}

/// A row as read: `source` with empty secrets, and what to fill them from.
pub fn open(cipher: &Cipher, mut source: Source, sealed: &Sealed) -> Result<Source> {
    source.token = Secret::new(open_text(cipher, source.org, source.id, "token", &sealed.token)?);
    source.config = open_secrets(cipher, source.org, source.id, "config", &sealed.config)?;
    source.state = open_secrets(cipher, source.org, source.id, "state", &sealed.state)?;
    Ok(source)
}
