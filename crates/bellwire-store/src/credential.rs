//! API keys (hashed) and revoked tokens.

use async_trait::async_trait;
use bellwire_core::{ApiKeyId, AppId, OrgId, Timestamp, TokenId};

use crate::{IdempotencyRecord, Result, Written};

/// An API key as kept: only the SHA-256 of its secret half.
#[derive(Clone, Debug)]
pub struct ApiKeyRecord {
    pub id: ApiKeyId,
    pub org: OrgId,
    pub name: String,
    pub hash: [u8; 32],
    /// Scope names, such as `message:write`; `*` is all.
    pub scopes: Vec<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
}

#[async_trait]
pub trait CredentialStore {
    async fn create_api_key(&self, key: ApiKeyRecord, idem: Option<IdempotencyRecord>) -> Result<Written<ApiKeyRecord>>;
    /// Revoked and expired ones too: the caller judges.
    async fn get_api_key(&self, id: ApiKeyId) -> Result<Option<ApiKeyRecord>>;
    /// Of one organisation or of all, newest first, at most 1,000.
    async fn list_api_keys(&self, org: Option<OrgId>) -> Result<Vec<ApiKeyRecord>>;
    /// False if there was none (of that organisation, if given).
    async fn revoke_api_key(&self, org: Option<OrgId>, id: ApiKeyId, now: Timestamp) -> Result<bool>;
    async fn touch_api_key(&self, id: ApiKeyId, now: Timestamp) -> Result<()>;
    /// Remembers a token as revoked until it would have expired anyway.
    async fn revoke_token(&self, token: TokenId, app: AppId, expires_at: Timestamp) -> Result<()>;
    async fn is_token_revoked(&self, token: TokenId) -> Result<bool>;
    /// The answer stored under an idempotency key, if it has not expired. Mismatch is an error.
    async fn find_idempotent(&self, key: &crate::Idempotency, now: Timestamp) -> Result<Option<(u16, bytes::Bytes)>>;
    /// Stores an answer that changed nothing else (portal tokens). Replayed if it was there.
    async fn store_idempotent(&self, record: IdempotencyRecord) -> Result<Written<()>>;
}
