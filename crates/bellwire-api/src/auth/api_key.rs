//! API keys: `bw_<id>_<secret><checksum>`. Only the SHA-256 of the secret is kept.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwire_core::{ApiKeyId, OrgId, Secret, Timestamp};
use bellwire_store::ApiKeyRecord;

use super::scope::{ScopeSet, UnknownScope};

/// 256 random bits, so that a fast hash at rest is enough.
pub const SECRET_BYTES: usize = 32;
const SECRET_CHARS: usize = 43;
/// Lets secret scanners tell a real key from a look-alike without asking the server.
const CHECKSUM_CHARS: usize = 6;
const ID_CHARS: usize = 27;
/// What every key begins with.
pub const PREFIX: &str = "bw_";

/// What a new key is made of; id and secret come from the caller's generators.
pub struct NewApiKey<'a> {
    pub id: ApiKeyId,
    pub secret: [u8; SECRET_BYTES],
    pub org: OrgId,
    pub name: &'a str,
    /// Scope names, as [`ScopeSet::parse`] reads them.
    pub scopes: &'a [String],
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// Makes a key: the text that is shown once, and the record that is kept.
///
/// # Errors
/// [`UnknownScope`].
pub fn new_api_key(new: &NewApiKey<'_>) -> Result<(Secret, ApiKeyRecord), UnknownScope> {
    ScopeSet::parse(new.scopes.iter().map(String::as_str))?;
    let id = new.id.to_string();
    let body = format!("{PREFIX}{}_{}", &id[id.len() - ID_CHARS..], URL_SAFE_NO_PAD.encode(new.secret));
    let record = ApiKeyRecord {
        id: new.id,
        org: new.org,
        name: new.name.to_owned(),
        hash: hash(&new.secret),
        scopes: new.scopes.to_vec(),
        created_at: new.created_at,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    let text = Secret::new(format!("{body}{}", checksum(&body)));
    Ok((text, record))
}

/// The id and the hashed secret of a presented key; `None` if the text is no key.
pub fn parse(text: &str) -> Option<(ApiKeyId, [u8; 32])> {
    let rest = text.strip_prefix(PREFIX)?;
    if !text.is_ascii() || rest.len() != ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS {
        return None;
    }
    let (body, check) = text.split_at(text.len() - CHECKSUM_CHARS);
    let (id, secret) = rest[..rest.len() - CHECKSUM_CHARS].split_at(ID_CHARS);
    if checksum(body) != check {
        return None;
    }
    let secret: [u8; SECRET_BYTES] = URL_SAFE_NO_PAD.decode(secret.strip_prefix('_')?).ok()?.try_into().ok()?;
    Some((format!("key_{id}").parse().ok()?, hash(&secret)))
}

fn hash(secret: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, secret).as_ref());
    out
}

fn checksum(body: &str) -> String {
    let hash = hash(body.as_bytes());
    hash[..CHECKSUM_CHARS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwire_core::IdKind;

    #[test]
    fn a_key_reads_back_and_a_mistyped_one_does_not() {
        let id = ApiKeyId::from_bytes([7; 20]);
        let scopes = ["*".to_owned()];
        let new = NewApiKey {
            id,
            secret: [9; 32],
            org: OrgId::from_bytes([1; 20]),
            name: "test",
            scopes: &scopes,
            created_at: Timestamp(0),
            expires_at: None,
        };
        let (text, record) = new_api_key(&new).unwrap();
        assert_eq!(parse(text.expose()), Some((id, record.hash)));
        assert!(!record.hash.starts_with(&[9; 4]), "the secret itself is kept");
        let mut mistyped = text.expose().to_owned();
        mistyped.replace_range(40..41, if &mistyped[40..41] == "A" { "B" } else { "A" });
        assert_eq!(parse(&mistyped), None);
        for wrong in ["", "bw_", "bw_x_y", "sk_live_1", &text.expose()[..70], &"é".repeat(40)] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
