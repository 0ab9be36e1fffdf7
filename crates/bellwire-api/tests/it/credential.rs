//! Credentials: what is taken, what is refused, and how fast a revocation is felt.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwire_api::{mint_app_jwt, mint_org_jwt};
use bellwire_core::{AppId, IdKind, OrgId, Secret, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::harness::{Harness, JWT_SECRET, text};

async fn status(h: &Harness, credential: &str, path: &str) -> u16 {
    h.call(credential, "GET", path, &[], None).await.status.as_u16()
}

fn jwt(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(JWT_SECRET.as_bytes())).unwrap()
}

fn seconds(h: &Harness) -> i64 {
    h.engine.now().as_unix_seconds()
}

/// If it fails, someone without a good credential gets in, or cannot tell why not.
#[tokio::test]
async fn missing_and_wrong_credentials_are_refused_by_name() {
    let h = Harness::start().await;
    let answer = h.call("", "GET", "/api/v1/app", &[], None).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "authentication_required"));
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    for wrong in ["nonsense", "bw_", &h.key[..h.key.len() - 1], &h.key.replace("bw_", "xx_"), "a.b.c", &"x".repeat(20_000)] {
        let answer = h.call(wrong, "GET", "/api/v1/app", &[], None).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "authentication_failed"), "{wrong:.80}");
    }
    let basic = h.call("", "GET", "/api/v1/app", &[("authorization", "Basic YTpi")], None).await;
    assert_eq!(basic.status, 401);
    let lower = format!("bearer {}", h.key);
    assert_eq!(h.call("", "GET", "/api/v1/app", &[("authorization", &lower)], None).await.status, 200);
    assert_eq!(status(&h, "", "/api/v1/health").await, 204);
}

/// If it fails, a revoked key goes on working in this process.
#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_an_expired_one_when_its_time_comes() {
    let h = Harness::start().await;
    let made = h.post("/api/v1/api-key", json!({ "name": "k" })).await.expect(201);
    let key = text(&made["key"]);
    assert_eq!(status(&h, &key, "/api/v1/app").await, 200);
    h.delete(&format!("/api/v1/api-key/{}", text(&made["id"]))).await.expect(204);
    assert_eq!(status(&h, &key, "/api/v1/app").await, 401);
    let listed = h.get("/api/v1/api-key").await.expect(200);
    assert!(!listed.to_string().contains(&key), "the list shows a secret");
    assert!(listed["data"][0]["revokedAt"].is_string());

    let expires = h.engine.now().plus(Duration::from_secs(3)).to_string();
    let made = h.post("/api/v1/api-key", json!({ "name": "k", "expiresAt": expires })).await.expect(201);
    let key = text(&made["key"]);
    assert_eq!(status(&h, &key, "/api/v1/app").await, 200);
    h.clock.turn(Duration::from_secs(4));
    assert_eq!(status(&h, &key, "/api/v1/app").await, 401, "a remembered credential outlives its expiry");
}

/// If it fails, tokens of a running Svix client stop working, or forged ones work.
#[tokio::test]
async fn svix_style_tokens_are_taken_and_forged_ones_are_not() {
    let h = Harness::start().await;
    let app = h.application("a").await;
    h.application("b").await;
    let app_id: AppId = app.parse().unwrap();
    let (now, secret) = (h.engine.now(), Secret::new(JWT_SECRET));
    let later = now.plus(Duration::from_secs(3_600));
    let org = mint_org_jwt(&secret, h.org, now, later).unwrap();
    let bound = mint_app_jwt(&secret, h.org, app_id, now, later).unwrap();
    assert_eq!(status(&h, org.expose(), "/api/v1/app").await, 200);
    assert_eq!(status(&h, bound.expose(), "/api/v1/app/a/endpoint").await, 200);
    assert_eq!(status(&h, bound.expose(), &format!("/api/v1/app/{app}/endpoint")).await, 200);
    assert_eq!(status(&h, bound.expose(), "/api/v1/app/b/endpoint").await, 404, "another application is not there");
    assert_eq!(status(&h, bound.expose(), "/api/v1/app").await, 403);
    let who = h.call(bound.expose(), "GET", "/api/v1/auth/whoami", &[], None).await.expect(200);
    assert_eq!((&who["appId"], &who["envId"]), (&json!(app), &json!(h.org.to_string())));

    let org_id = h.org.to_string();
    assert_eq!(status(&h, &jwt(&json!({ "sub": org_id })), "/api/v1/app").await, 200, "Svix tokens need not expire");
    assert_eq!(
        status(&h, &jwt(&json!({ "sub": org_id, "iss": "svix-server", "aud": "x", "exp": 4_000_000_000_u64 })), "/api/v1/app")
            .await,
        200
    );
    assert_eq!(
        status(&h, &jwt(&json!({ "sub": app })), "/api/v1/app/a").await,
        200,
        "the organisation follows from the application"
    );
    let stranger = OrgId::from_bytes([2; 20]).to_string();
    let payload = URL_SAFE_NO_PAD.encode(json!({ "sub": org_id }).to_string());
    let none = format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#));
    let other_key = EncodingKey::from_secret(b"another secret of at least thirty-two chars");
    let with_header = |header: Header, key: &EncodingKey| jsonwebtoken::encode(&header, &json!({ "sub": org_id }), key).unwrap();
    let ours = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let kid = Header { kid: Some("../../dev/null".into()), ..Header::new(Algorithm::HS256) };
    let mut tampered = org.expose().to_owned();
    tampered.pop();
    let forged = [
        ("alg none", none),
        ("another secret", with_header(Header::new(Algorithm::HS256), &other_key)),
        ("another secret with a kid", with_header(kid.clone(), &EncodingKey::from_secret(b""))),
        ("HS384 with our secret", with_header(Header::new(Algorithm::HS384), &ours)),
        ("the signature cut", tampered),
        ("expired", jwt(&json!({ "sub": org_id, "exp": seconds(&h) - 60 }))),
        ("not valid yet", jwt(&json!({ "sub": org_id, "nbf": seconds(&h) + 120 }))),
        ("no subject", jwt(&json!({ "org": org_id }))),
        ("a subject of another kind", jwt(&json!({ "sub": "user_1srOrx2ZWZBpBUvZwXKQmoEYga2" }))),
        ("an unknown application", jwt(&json!({ "sub": "app_1srOrx2ZWZBpBUvZwXKQmoEYga2" }))),
        ("another organisation's claim", jwt(&json!({ "sub": app, "org": stranger }))),
    ];
    for (what, token) in forged {
        let answer = h.call(&token, "GET", "/api/v1/auth/whoami", &[], None).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "authentication_failed"), "{what}");
    }
    // A kid changes nothing about a good token: it is not looked at.
    assert_eq!(status(&h, &with_header(kid, &ours), "/api/v1/app").await, 200);
    h.clock.turn(Duration::from_secs(3_700));
    assert_eq!(status(&h, org.expose(), "/api/v1/app").await, 401, "an expired token still works");
}

/// If it fails, the key that portal tokens are signed with opens more than a portal.
#[tokio::test]
async fn the_internal_key_signs_portal_tokens_only() {
    let h = Harness::start().await;
    let forged = Secret::new(std::str::from_utf8(&[3; 32]).unwrap());
    let token = mint_org_jwt(&forged, h.org, Timestamp(0), h.engine.now().plus(Duration::from_secs(60))).unwrap();
    assert_eq!(status(&h, token.expose(), "/api/v1/app").await, 401);
}
