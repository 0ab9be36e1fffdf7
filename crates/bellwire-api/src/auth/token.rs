//! HS256 tokens: those of a Svix server (`sub` = `org_…` or `app_…`) and our own portal tokens.
//!
//! One algorithm is pinned, `kid` is not looked at, `iss` and `aud` are not compared (Svix servers differ in them).

use bellwire_core::{AppId, OrgId, Secret, Timestamp, TokenId, limits};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// The claims that matter here.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Claims {
    pub sub: String,
    /// The organisation of an application token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "whole")]
    pub exp: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "whole")]
    pub nbf: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "whole")]
    pub iat: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Ours only: the portal token's id, so that it can be revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Ours only: portal capabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<Vec<String>>,
    /// Ours only: the session id given when access was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
}

/// Times are read as any number and written as whole seconds, which every library takes.
fn whole<S: serde::Serializer>(seconds: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    seconds.map(|seconds| seconds as i64).serialize(serializer)
}

/// Says that a token is a portal token of ours.
pub const PORTAL_ISSUER: &str = "bellwire-portal";

/// The keys tokens are checked and signed with.
pub struct TokenKeys {
    configured: Option<DecodingKey>,
    portal: DecodingKey,
    signing: EncodingKey,
    validation: Validation,
}

/// A token whose signature holds and whose times fit.
pub struct Verified {
    pub claims: Claims,
    pub expires_at: Option<Timestamp>,
    /// Signed with the key that is ours alone: only portal tokens are.
    pub is_internal: bool,
}

impl TokenKeys {
    pub fn new(jwt_secret: Option<&Secret>, portal_secret: &[u8; 32]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        // Times are compared below with the clock we are given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let signing = jwt_secret.map_or(portal_secret.as_slice(), |secret| secret.expose().as_bytes());
        Self {
            configured: jwt_secret.map(|secret| DecodingKey::from_secret(secret.expose().as_bytes())),
            portal: DecodingKey::from_secret(portal_secret),
            signing: EncodingKey::from_secret(signing),
            validation,
        }
    }

    /// Checks signature and times. The error says which of them failed, without saying more than the caller knows.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, &'static str> {
        let decode = |key: &DecodingKey| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok();
        let (claims, is_internal) = match self.configured.as_ref().and_then(decode) {
            Some(data) => (data.claims, false),
            None => match decode(&self.portal) {
                Some(data) if data.claims.iss.as_deref() == Some(PORTAL_ISSUER) => (data.claims, true),
                _ => return Err("the token is not one of this server (wrong signature, algorithm or form)"),
            },
        };
        let seconds = now.as_unix_seconds();
        let at = |claim: f64| claim.clamp(-1e15, 1e15) as i64;
        if claims.exp.is_some_and(|exp| at(exp) + limits::TOKEN_LEEWAY_SECONDS <= seconds) {
            return Err("the token has expired");
        }
        if claims.nbf.is_some_and(|nbf| at(nbf) - limits::TOKEN_LEEWAY_SECONDS > seconds) {
            return Err("the token is not valid yet");
        }
        let expires_at = claims.exp.map(|exp| Timestamp::from_unix_seconds(at(exp)));
        Ok(Verified { claims, expires_at, is_internal })
    }

    /// A portal token for one application.
    pub fn mint_portal(&self, portal: PortalToken<'_>) -> Result<Secret, jsonwebtoken::errors::Error> {
        let claims = Claims {
            sub: portal.app.to_string(),
            org: Some(portal.org.to_string()),
            exp: Some(portal.expires_at.as_unix_seconds() as f64),
            nbf: None,
            iat: Some(portal.now.as_unix_seconds() as f64),
            iss: Some(PORTAL_ISSUER.to_owned()),
            jti: Some(portal.id.to_string()),
            cap: Some(portal.capabilities),
            sid: portal.session_id.map(str::to_owned),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).map(Secret::new)
    }
}

/// What goes into a portal token.
pub struct PortalToken<'a> {
    pub id: TokenId,
    pub org: OrgId,
    pub app: AppId,
    pub capabilities: Vec<String>,
    pub session_id: Option<&'a str>,
    pub now: Timestamp,
    pub expires_at: Timestamp,
}

/// A token of the whole organisation, as `svix-server jwt generate` makes it; for the CLI.
///
/// # Errors
/// Those of the signing library; none in practice.
pub fn mint_org_jwt(
    secret: &Secret,
    org: OrgId,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Secret, jsonwebtoken::errors::Error> {
    mint(secret, org.to_string(), None, now, expires_at)
}

/// A token of one application, as Svix servers know it.
///
/// # Errors
/// As [`mint_org_jwt`].
pub fn mint_app_jwt(
    secret: &Secret,
    org: OrgId,
    app: AppId,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Secret, jsonwebtoken::errors::Error> {
    mint(secret, app.to_string(), Some(org.to_string()), now, expires_at)
}

fn mint(
    secret: &Secret,
    sub: String,
    org: Option<String>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Secret, jsonwebtoken::errors::Error> {
    let claims = Claims {
        sub,
        org,
        exp: Some(expires_at.as_unix_seconds() as f64),
        nbf: Some(now.as_unix_seconds() as f64),
        iat: Some(now.as_unix_seconds() as f64),
        iss: Some("bellwire".to_owned()),
        ..Claims::default()
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).map(Secret::new)
}
