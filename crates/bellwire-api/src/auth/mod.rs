//! Who asks, and what they may do: `Authorization: Bearer <API key or token>`.
//!
//! A credential that was checked is remembered by its SHA-256 for a few seconds, so that a request costs one hash.

mod api_key;
pub mod scope;
pub mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use bellwire_core::{ApiKeyId, AppId, OrgId, Timestamp, TokenId, limits};
use bellwire_engine::single_flight::SingleFlight;
use http::{HeaderMap, header};
use quick_cache::sync::Cache;

pub use api_key::{
    NewApiKey, PREFIX as API_KEY_PREFIX, SECRET_BYTES as API_KEY_SECRET_BYTES, new_api_key, parse as parse_api_key,
};
pub use scope::{Scope, ScopeSet, UnknownScope};
pub use token::{PortalToken, TokenKeys, mint_app_jwt, mint_org_jwt};

use crate::ApiState;
use crate::error::{ApiError, Code};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Principal {
    pub org: OrgId,
    /// Bound to this application only.
    pub app: Option<AppId>,
    pub scopes: ScopeSet,
    pub source: Source,
    pub session_id: Option<String>,
}

impl Principal {
    /// # Errors
    /// 403 that names the scope, if it is lacking.
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.contains(scope) {
            return Ok(());
        }
        let text = format!("this credential lacks the scope {:?}; use one that has it", scope.as_str());
        Err(ApiError::new(Code::Forbidden, text))
    }
}

/// What was presented.
#[derive(Clone, Debug)]
pub enum Source {
    ApiKey(ApiKeyId),
    /// A Svix-style token.
    Jwt,
    Portal {
        token: TokenId,
        expires_at: Timestamp,
    },
}

#[derive(Clone)]
struct Session {
    principal: Arc<Principal>,
    /// Not believed after this without another look.
    fresh_until: Timestamp,
}

/// Credentials checked lately.
pub struct Sessions {
    cache: Cache<[u8; 32], Session>,
    reads: SingleFlight<(u64, [u8; 32]), Arc<Principal>>,
    /// Counts revocations: what was looked up while one happened is not remembered.
    generation: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

impl Sessions {
    pub fn new() -> Self {
        Self { cache: Cache::new(limits::SESSIONS_CACHED), reads: SingleFlight::new(), generation: AtomicU64::new(0) }
    }

    /// After a revocation or the deletion of an application: everyone is looked at anew.
    pub fn forget_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.clear();
    }
}

fn failed(detail: &'static str) -> ApiError {
    ApiError::new(Code::AuthenticationFailed, detail)
}

/// What a whole organisation's credential that is no API key may do.
fn organisation_scopes() -> ScopeSet {
    ScopeSet::ALL
}

/// What an application's own credential may do: see and manage its endpoints, not publish (as Svix has it).
fn application_scopes() -> ScopeSet {
    ScopeSet::of(&[
        Scope::ApplicationRead,
        Scope::EndpointRead,
        Scope::EndpointWrite,
        Scope::EndpointSecret,
        Scope::EndpointSecretWrite,
        Scope::MessageRead,
        Scope::AttemptRead,
        Scope::AttemptWrite,
        Scope::EventTypeRead,
    ])
}

/// The capabilities of the portal (Svix's names) as scopes.
fn capability_scopes(capability: &str) -> ScopeSet {
    match capability {
        "ManageEndpoint" => ScopeSet::of(&[Scope::EndpointWrite, Scope::EndpointSecret, Scope::EndpointSecretWrite]),
        "ViewEndpointSecret" => ScopeSet::of(&[Scope::EndpointSecret]),
        "ManageEndpointSecret" => ScopeSet::of(&[Scope::EndpointSecret, Scope::EndpointSecretWrite]),
        "CreateAttempts" => ScopeSet::of(&[Scope::AttemptWrite]),
        _ => ScopeSet::default(),
    }
}

fn portal_scopes(capabilities: &[String]) -> ScopeSet {
    let base = ScopeSet::of(&[
        Scope::ApplicationRead,
        Scope::EndpointRead,
        Scope::MessageRead,
        Scope::AttemptRead,
        Scope::EventTypeRead,
    ]);
    capabilities.iter().fold(base, |set, capability| set.union(capability_scopes(capability)))
}

/// Checks the `Authorization` header.
///
/// # Errors
/// [`Code::AuthenticationRequired`] without one, [`Code::AuthenticationFailed`], and those of the store.
pub async fn authenticate(api: &ApiState, headers: &HeaderMap) -> Result<Arc<Principal>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(ApiError::new(
            Code::AuthenticationRequired,
            "send a header `Authorization: Bearer <API key or token>`; `bellwire key create` makes a key",
        ));
    };
    let credential = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, credential)| credential.trim())
        .filter(|credential| (1..=limits::CREDENTIAL_BYTES_MAX).contains(&credential.len()))
        .ok_or_else(|| failed("the Authorization header must read `Bearer <API key or token>`"))?;
    let now = api.now();
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, credential.as_bytes()).as_ref());
    let sessions = api.sessions();
    if let Some(session) = sessions.cache.get(&key)
        && session.fresh_until > now
    {
        return Ok(session.principal);
    }
    let generation = sessions.generation.load(Ordering::Acquire);
    let read = async {
        let (principal, expires_at) = if credential.starts_with(API_KEY_PREFIX) {
            check_api_key(api, credential, now).await?
        } else {
            check_token(api, credential, now).await?
        };
        let principal = Arc::new(principal);
        let fresh_until = Timestamp(now.as_millis() + limits::SESSION_FRESH_MS);
        let fresh_until = expires_at.map_or(fresh_until, |at| at.min(fresh_until));
        if sessions.generation.load(Ordering::Acquire) == generation {
            sessions.cache.insert(key, Session { principal: principal.clone(), fresh_until });
        }
        Ok(principal)
    };
    sessions.reads.read((generation, key), read).await
}

async fn check_api_key(api: &ApiState, text: &str, now: Timestamp) -> Result<(Principal, Option<Timestamp>), ApiError> {
    const UNKNOWN: &str = "the API key is not one of this server; check that it was copied whole";
    let (id, hash) = api_key::parse(text).ok_or_else(|| failed(UNKNOWN))?;
    let record = api.store().get_api_key(id).await?.ok_or_else(|| failed(UNKNOWN))?;
    verify_slices_are_equal(&record.hash, &hash).map_err(|_| failed(UNKNOWN))?;
    if record.revoked_at.is_some() {
        return Err(failed("the API key was revoked"));
    }
    if record.expires_at.is_some_and(|at| at <= now) {
        return Err(failed("the API key has expired"));
    }
    let scopes =
        record.scopes.iter().filter_map(|name| ScopeSet::parse([name.as_str()]).ok()).fold(ScopeSet::default(), ScopeSet::union);
    if record.last_used_at.is_none_or(|at| now.as_millis() - at.as_millis() >= limits::KEY_USE_NOTED_MS) {
        let store = api.store().clone();
        // Noting the use must not delay the request, nor fail it.
        tokio::spawn(async move {
            if let Err(error) = store.touch_api_key(id, now).await {
                tracing::debug!(api_key.id = %id, %error, "use of an API key not noted");
            }
        });
    }
    let principal = Principal { org: record.org, app: None, scopes, source: Source::ApiKey(id), session_id: None };
    Ok((principal, record.expires_at))
}

async fn check_token(api: &ApiState, text: &str, now: Timestamp) -> Result<(Principal, Option<Timestamp>), ApiError> {
    let verified = api.tokens().verify(text, now).map_err(failed)?;
    let (claims, expires_at) = (verified.claims, verified.expires_at);
    if let Ok(org) = claims.sub.parse::<OrgId>() {
        if verified.is_internal {
            return Err(failed("the token's subject is not an application"));
        }
        let principal = Principal { org, app: None, scopes: organisation_scopes(), source: Source::Jwt, session_id: claims.sid };
        return Ok((principal, expires_at));
    }
    let app: AppId = claims.sub.parse().map_err(|_| failed("the token's subject (sub) is neither an org_… nor an app_… id"))?;
    let found =
        api.engine().application_by_id(app).await?.ok_or_else(|| failed("the token's application does not exist (any more)"))?;
    let org = found.application.org;
    if claims.org.is_some_and(|claimed| claimed.parse() != Ok(org)) {
        return Err(failed("the token's application belongs to another organisation"));
    }
    let portal = claims.iss.as_deref() == Some(token::PORTAL_ISSUER);
    let (scopes, source) = match (claims.jti.as_deref().map(str::parse::<TokenId>), expires_at) {
        (Some(Ok(token)), Some(expires_at)) if portal => {
            if api.store().is_token_revoked(token).await? {
                return Err(failed("the token was logged out"));
            }
            (portal_scopes(&claims.cap.unwrap_or_default()), Source::Portal { token, expires_at })
        }
        _ if portal => return Err(failed("the portal token is incomplete")),
        _ => (application_scopes(), Source::Jwt),
    };
    Ok((Principal { org, app: Some(app), scopes, source, session_id: claims.sid }, expires_at))
}
