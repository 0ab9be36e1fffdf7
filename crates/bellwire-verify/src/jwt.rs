//! JSON Web Tokens as providers send them: one token, algorithms pinned by the preset, claims that tie it to this request.

use aws_lc_rs::digest;
use serde_json::Value;

use crate::algorithm::{Algorithm, is_equal};
use crate::check::Verified;
use crate::encoding::{Encoding, to_hex};
use crate::key_format::KeyFormat;
use crate::place::Scope;
use crate::preset::{ClaimForm, ClaimRule, JwtRule, Preset};
use crate::public_key::PublicKey;
use crate::{Reason, Refusal};

/// Longest token that is looked at; a token that is the whole body may be longer than one in a header.
const TOKEN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How far ahead of ours a sender's clock may be for `nbf` and `iat`. `exp` has no such room.
const SKEW_S: i64 = 60;

pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HmacSha256,
        "HS384" => Algorithm::HmacSha384,
        "HS512" => Algorithm::HmacSha512,
        "RS256" => Algorithm::RsaSha256,
        "RS384" => Algorithm::RsaSha384,
        "RS512" => Algorithm::RsaSha512,
        "ES256" => Algorithm::EcdsaP256Sha256Fixed,
        "EdDSA" => Algorithm::Ed25519,
        _ => return None,
    })
}

impl Preset {
    /// The token, without the scheme's word before it.
    pub(crate) fn jwt_text(&self, rule: &JwtRule, scope: &Scope<'_, '_>) -> Result<String, Refusal> {
        let text = rule.at.read_first(scope)?.unwrap_or_default();
        let text = text.trim();
        if text.is_empty() {
            return Err(Refusal::at(Reason::SignatureMissing, rule.at.to_string()));
        }
        let text = text.strip_prefix(rule.prefix.as_str()).map(str::trim);
        let is_shaped = |text: &&str| text.len() <= TOKEN_BYTES_MAX && text.bytes().filter(|c| *c == b'.').count() == 2;
        text.filter(is_shaped).map(str::to_owned).ok_or_else(|| Refusal::at(Reason::SignatureMalformed, rule.at.to_string()))
    }

    pub(crate) fn check_jwt(&self, rule: &JwtRule, scope: &Scope<'_, '_>, now_s: u64) -> Result<Verified, Refusal> {
        let malformed = || Refusal::at(Reason::SignatureMalformed, rule.at.to_string());
        let token = self.jwt_text(rule, scope)?;
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let json = |text: &str| Encoding::Base64url.decode(text).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let header = json(header).filter(Value::is_object).ok_or_else(malformed)?;
        let signature = Encoding::Base64url.decode(signature).ok_or_else(malformed)?;

        let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        let is_allowed = rule.algorithms.iter().any(|allowed| allowed == name);
        // "crit" names extensions that must be understood; we understand none.
        let algorithm = algorithm(name).filter(|_| is_allowed && header.get("crit").is_none());
        let algorithm = algorithm.ok_or_else(|| Refusal::at(Reason::AlgorithmRefused, rule.at.to_string()))?;
        if !algorithm.is_length_possible(signature.len()) {
            return Err(malformed());
        }
        let key_id = header.get("kid").and_then(Value::as_str);
        let secrets = scope.credentials.secrets.iter();
        let fits = |secret: &String| self.is_token_signed(algorithm, secret, key_id, signed.as_bytes(), &signature);
        let index = secrets.map(fits).position(|is_signed| is_signed).ok_or_else(|| Refusal::new(Reason::NoMatch))?;

        let claims = json(claims).filter(Value::is_object).ok_or_else(malformed)?;
        let timestamp_ms = check_times(rule, scope, &claims, now_s)?;
        check_names(rule, scope, &claims)?;
        for claim in &rule.claims {
            check_claim(claim, scope, &claims)?;
        }
        Ok(Verified { secret: Some(index), timestamp_ms })
    }

    /// The kind of the key decides which algorithms it can be used with: a public key is never an HMAC secret.
    fn is_token_signed(&self, algorithm: Algorithm, secret: &str, key_id: Option<&str>, signed: &[u8], signature: &[u8]) -> bool {
        let is_public = self.key == KeyFormat::PublicKey || is_public_text(secret);
        if is_public {
            return algorithm.is_public()
                && PublicKey::parse(secret, key_id).is_some_and(|key| key.is_signature(algorithm, signed, signature));
        }
        let expected = self.key.bytes(secret).ok().filter(|_| algorithm.is_hmac());
        expected.and_then(|key| algorithm.compute(&key, &[signed.into()])).is_some_and(|expected| is_equal(&expected, signature))
    }
}

fn is_public_text(secret: &str) -> bool {
    let text = secret.trim_start();
    text.starts_with("-----BEGIN") || text.starts_with('{')
}

fn check_times(rule: &JwtRule, scope: &Scope<'_, '_>, claims: &Value, now_s: u64) -> Result<Option<i64>, Refusal> {
    let now = i64::try_from(now_s).unwrap_or(i64::MAX);
    let seconds = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
            // Some senders write fractions; a whole second is fine enough.
            Some(number) => Ok(Some(number as i64)),
            None => Err(Refusal::at(Reason::TimestampMalformed, format!("claim:{name}"))),
        },
    };
    for name in &rule.required {
        if claims.get(name).is_none() {
            return Err(Refusal::at(Reason::ClaimMismatch, format!("claim:{name}")));
        }
    }
    if seconds("exp")?.is_some_and(|expires| now >= expires) {
        return Err(Refusal::at(Reason::TimestampTooOld, "claim:exp"));
    }
    if seconds("nbf")?.is_some_and(|begins| begins > now.saturating_add(SKEW_S)) {
        return Err(Refusal::at(Reason::TimestampTooNew, "claim:nbf"));
    }
    let issued = seconds("iat")?;
    let max_age = scope.credentials.tolerance_s.or(rule.max_age_s).map(|age| i64::try_from(age).unwrap_or(i64::MAX));
    if let Some(max_age) = max_age {
        match issued {
            Some(issued) if now.saturating_sub(issued) > max_age => {
                return Err(Refusal::at(Reason::TimestampTooOld, "claim:iat"));
            }
            Some(issued) if issued.saturating_sub(now) > max_age.max(SKEW_S) => {
                return Err(Refusal::at(Reason::TimestampTooNew, "claim:iat"));
            }
            None if rule.max_age_s.is_some() => return Err(Refusal::at(Reason::TimestampMissing, "claim:iat")),
            _ => {}
        }
    }
    Ok(issued.and_then(|issued| issued.checked_mul(1000)))
}

fn check_names(rule: &JwtRule, scope: &Scope<'_, '_>, claims: &Value) -> Result<(), Refusal> {
    // An issuer that is a setting is checked when the setting is there.
    let issuers: Vec<String> = rule.issuers.iter().filter_map(|issuer| issuer.render_text(scope).ok()).collect();
    let issuer = claims.get("iss").and_then(Value::as_str);
    if !issuers.is_empty() && !issuers.iter().any(|known| Some(known.as_str()) == issuer) {
        return Err(Refusal::at(Reason::ClaimMismatch, "claim:iss"));
    }
    if let Some(audience) = rule.audience.as_ref().and_then(|audience| audience.render_text(scope).ok()) {
        let is_meant = match claims.get("aud") {
            Some(Value::String(one)) => *one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(&audience)),
            _ => false,
        };
        if !is_meant {
            return Err(Refusal::at(Reason::ClaimMismatch, "claim:aud"));
        }
    }
    Ok(())
}

fn check_claim(rule: &ClaimRule, scope: &Scope<'_, '_>, claims: &Value) -> Result<(), Refusal> {
    let mismatch = || Refusal::at(Reason::ClaimMismatch, format!("claim:{}", rule.name));
    let content = match rule.of.render(scope, "") {
        // A claim about a setting is checked when the setting is there.
        Err(refusal) if refusal.reason() == Reason::ValueMissing => return Ok(()),
        other => other?.concat(),
    };
    let given = match claims.get(&rule.name) {
        Some(Value::String(given)) => given.as_str(),
        None if rule.is_optional_when_empty && content.is_empty() => return Ok(()),
        _ => return Err(mismatch()),
    };
    let expected = rule.form.write(&content);
    let given = if rule.form == ClaimForm::Sha256Base64url { given.trim_end_matches('=') } else { given };
    if is_equal(expected.as_bytes(), given.as_bytes()) { Ok(()) } else { Err(mismatch()) }
}

impl ClaimForm {
    pub(crate) fn write(self, content: &[u8]) -> String {
        let digest = digest::digest(&digest::SHA256, content);
        match self {
            Self::Text => String::from_utf8_lossy(content).into_owned(),
            Self::Sha256Hex => to_hex(digest.as_ref()),
            Self::Sha256Base64 => Encoding::Base64.encode(digest.as_ref()),
            Self::Sha256Base64url => Encoding::Base64url.encode(digest.as_ref()),
        }
    }
}
