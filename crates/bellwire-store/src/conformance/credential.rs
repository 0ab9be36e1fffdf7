//! API keys, revoked tokens, stored answers.

use bellwire_core::{ApiKeyId, IdKind, OrgId, Timestamp};

use super::world::{DAY, HOUR, World, fresh, is_replayed};
use crate::{ApiKeyRecord, StoreError};

fn api_key(w: &World, org: OrgId) -> ApiKeyRecord {
    ApiKeyRecord {
        id: w.id(),
        org,
        name: "ci".to_owned(),
        hash: [7; 32],
        scopes: vec!["message:write".to_owned(), "app:read".to_owned()],
        created_at: w.now(),
        expires_at: Some(w.now().plus(DAY)),
        revoked_at: None,
        last_used_at: None,
    }
}

fn shape(key: &ApiKeyRecord) -> impl PartialEq + std::fmt::Debug {
    let times = (key.created_at, key.expires_at, key.revoked_at, key.last_used_at);
    (key.id, key.org, key.name.clone(), key.hash, key.scopes.clone(), times)
}

pub async fn api_keys_live_until_revoked(w: World) {
    let other = OrgId::from_bytes([1; 20]);
    let mut first = fresh(w.store.create_api_key(api_key(&w, w.org), Some(w.keyed(1, 1))).await.unwrap());
    assert!(is_replayed(&w.store.create_api_key(api_key(&w, w.org), Some(w.keyed(1, 1))).await.unwrap()));
    let second = fresh(w.store.create_api_key(api_key(&w, other), None).await.unwrap());
    let found = w.store.get_api_key(first.id).await.unwrap().unwrap();
    assert_eq!(shape(&found), shape(&first));
    let guessed = ApiKeyId::from_key_and_tail(first.id.key(), [0xee; 12]);
    assert!(w.store.get_api_key(guessed).await.unwrap().is_none());
    let ids = |keys: Vec<ApiKeyRecord>| keys.iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(w.store.list_api_keys(None).await.unwrap()), [second.id, first.id], "newest first");
    assert_eq!(ids(w.store.list_api_keys(Some(w.org)).await.unwrap()), [first.id]);
    w.pass(HOUR + std::time::Duration::from_secs(25));
    w.store.touch_api_key(first.id, w.now()).await.unwrap();
    let minute = Timestamp(w.now().as_millis() / 60_000 * 60_000);
    first.last_used_at = Some(minute);
    assert_eq!(shape(&w.store.get_api_key(first.id).await.unwrap().unwrap()), shape(&first), "to the minute");
    assert!(!w.store.revoke_api_key(Some(other), first.id, w.now()).await.unwrap(), "not theirs");
    assert!(w.store.revoke_api_key(Some(w.org), first.id, w.now()).await.unwrap());
    let revoked_at = w.now();
    w.pass(HOUR);
    w.store.revoke_api_key(None, first.id, w.now()).await.unwrap();
    assert_eq!(w.store.get_api_key(first.id).await.unwrap().unwrap().revoked_at, Some(revoked_at), "since the first time");
    assert!(w.store.get_api_key(second.id).await.unwrap().unwrap().revoked_at.is_none());
    assert!(!w.store.revoke_api_key(None, w.id(), w.now()).await.unwrap());
}

pub async fn revoked_tokens_are_remembered(w: World) {
    let app = w.new_application().await.id;
    let [token, other] = [w.id(), w.id()];
    w.store.revoke_token(token, app, w.now().plus(DAY)).await.unwrap();
    w.store.revoke_token(token, app, w.now().plus(DAY)).await.unwrap();
    assert!(w.store.is_token_revoked(token).await.unwrap());
    assert!(!w.store.is_token_revoked(other).await.unwrap());
    w.store.retain(w.now().plus(HOUR), 90 * DAY).await.unwrap();
    assert!(w.store.is_token_revoked(token).await.unwrap(), "it would still be valid");
}

pub async fn answers_are_replayed_for_a_day(w: World) {
    assert!(w.store.find_idempotent(&w.key(1, 1), w.now()).await.unwrap().is_none());
    fresh(w.store.store_idempotent(w.keyed(1, 1)).await.unwrap());
    assert!(is_replayed(&w.store.store_idempotent(w.keyed(1, 1)).await.unwrap()));
    let mismatch = w.store.find_idempotent(&w.key(1, 2), w.now()).await;
    assert!(matches!(mismatch, Err(StoreError::IdempotencyMismatch)), "{mismatch:?}");
    let mismatch = w.store.store_idempotent(w.keyed(1, 2)).await;
    assert!(matches!(mismatch, Err(StoreError::IdempotencyMismatch)), "{mismatch:?}");
    let before_the_end = w.now().plus(DAY - HOUR);
    assert!(w.store.find_idempotent(&w.key(1, 1), before_the_end).await.unwrap().is_some());
    assert!(w.store.find_idempotent(&w.key(1, 1), w.now().plus(DAY)).await.unwrap().is_none());
}
