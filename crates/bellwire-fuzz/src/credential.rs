//! Target about who asks: API keys, tokens, basic credentials.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwire_api::auth::token::Claims;
use bellwire_api::auth::{NewApiKey, PortalToken, TokenKeys, mint_app_jwt, mint_org_jwt, new_api_key};
use bellwire_api::fuzzing::{basic_credentials, parse_api_key};
use bellwire_core::{ApiKeyId, AppId, IdKind, OrgId, Secret, Timestamp, TokenId};

use crate::feature;

const NOW: Timestamp = Timestamp(1_767_225_600_000);
const LATER: Timestamp = Timestamp(1_767_312_000_000);

struct Server {
    tokens: TokenKeys,
    /// Everything that it has signed.
    minted: Vec<String>,
    key: String,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let secret = Secret::new("the-secret-of-the-tokens-0123456789".to_owned());
    let tokens = TokenKeys::new(Some(&secret), &[7; 32]);
    let (org, app) = (OrgId::from_bytes([1; 20]), AppId::from_bytes([2; 20]));
    let portal = |session_id| PortalToken {
        id: TokenId::from_bytes([3; 20]),
        org,
        app,
        capabilities: vec!["ViewBase".to_owned()],
        session_id,
        now: NOW,
        expires_at: LATER,
    };
    let minted = [
        mint_org_jwt(&secret, org, NOW, LATER),
        mint_app_jwt(&secret, org, app, NOW, LATER),
        tokens.mint_portal(portal(None)),
        tokens.mint_portal(portal(Some("session"))),
        // Signed with the key for portal tokens, as a server without a secret of the operator's does.
        TokenKeys::new(None, &[7; 32]).mint_portal(portal(None)),
        mint_org_jwt(&secret, org, NOW, Timestamp(1)),
    ];
    let minted = minted.map(|token| token.expect("a token").expose().to_owned()).to_vec();
    let scopes = ["*".to_owned()];
    let id = ApiKeyId::from_bytes([5; 20]);
    let new = NewApiKey { id, secret: [9; 32], org, name: "n", scopes: &scopes, created_at: NOW, expires_at: None };
    let key = new_api_key(&new).expect("known scopes").0.expose().to_owned();
    Server { tokens, minted, key }
});

pub fn credentials() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = SERVER.minted.iter().map(|token| token.clone().into_bytes()).collect();
    seeds.push(SERVER.key.clone().into_bytes());
    let claims = URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"{}\",\"exp\":1e300}}", OrgId::from_bytes([1; 20])));
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"alg":"RS256","kid":"../../x"}"#] {
        seeds.push(format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header)).into_bytes());
    }
    seeds.push(b"Basic dXNlcjpwYXNzd29yZA==".to_vec());
    seeds.push(br#"{"sub":"app_0ujtsYcgvSTl8PAuAdqWYSMnLOv","exp":1767312000,"nbf":-1e400,"cap":["ViewBase"]}"#.to_vec());
    seeds
}

/// Nobody gets in with what this server has not signed, letter for letter; a key is written in one way only.
pub fn credential(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let verified = SERVER.tokens.verify(&text, NOW);
    assert!(verified.is_err() || SERVER.minted.contains(&text.into_owned()), "a token that nobody signed is taken");
    let text = String::from_utf8_lossy(data);
    // As the signature is out of reach of chance, claims are also read without one.
    let claims =
        serde_json::from_slice::<Claims>(data).map(|claims| (claims.exp.is_some(), claims.cap.map(|cap| cap.len().min(4))));
    let key = parse_api_key(&text);
    let with_checksum = format!("{}{}", text.get(..text.len().saturating_sub(6)).unwrap_or_default(), checksum(&text));
    let repaired = parse_api_key(&with_checksum);
    if let Some((id, hash)) = repaired {
        let (id, secret) = (id.to_string(), with_checksum.get(31..74).unwrap_or_default());
        let bytes = URL_SAFE_NO_PAD.decode(secret).expect("a key's secret is base64");
        assert_eq!(digest(&SHA256, &bytes).as_ref(), hash);
        let again = format!("bw_{}_{}", &id["key_".len()..], URL_SAFE_NO_PAD.encode(bytes));
        assert_eq!(again, with_checksum[..with_checksum.len() - 6], "one key is written in two ways");
    }
    let basic = basic_credentials(data);
    assert!(basic.as_ref().is_none_or(|basic| basic.len() <= data.len()));
    let basic = basic.map(|basic| (basic.contains(&b':'), std::str::from_utf8(&basic).is_ok()));
    feature(&(
        verified.map(|token| token.claims.sub).ok(),
        claims.ok(),
        key.is_some(),
        repaired.is_some(),
        basic,
        text.len().min(80),
    ))
}

/// The checksum that would fit, so that changed keys come past it.
fn checksum(text: &str) -> String {
    let body = text.get(..text.len().saturating_sub(6)).unwrap_or_default();
    digest(&SHA256, body.as_bytes()).as_ref()[..3].iter().map(|byte| format!("{byte:02x}")).collect()
}
