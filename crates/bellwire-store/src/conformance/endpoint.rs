//! Endpoints.

use std::sync::Arc;

use bellwire_core::{Endpoint, EndpointHealth, EndpointId, HeaderSet, IdKind, Secret, Timestamp};

use super::world::{CHANGES, HOUR, World, contend, fresh, is_replayed, page, walk};
use crate::{Store, StoreError};

pub async fn endpoints_read_back_whole(w: World) {
    let app = w.new_application().await;
    let mut endpoint = w.endpoint(app.id);
    endpoint.uid = Some("hook".to_owned());
    endpoint.description = "für | alle".to_owned();
    endpoint.event_types = Some(vec!["a.b".to_owned(), "c".to_owned()]);
    endpoint.channels = Some(vec!["project_1".to_owned()]);
    endpoint.throttle_rate = Some(10);
    endpoint.metadata.insert("k".to_owned(), "v".to_owned());
    endpoint.headers =
        HeaderSet(vec![("authorization".to_owned(), Secret::new("Bearer x")), ("x-team".to_owned(), Secret::new("pay"))]);
    endpoint.secret.rotate(Secret::new("whsec_bmV3"), w.now(), w.now().plus(HOUR), 10);
    endpoint.health = EndpointHealth { failing_since: Some(Timestamp(5)) };
    assert_eq!(fresh(w.store.create_endpoint(endpoint.clone(), Some(w.keyed(1, 1))).await.unwrap()), endpoint);
    assert!(is_replayed(&w.store.create_endpoint(w.endpoint(app.id), Some(w.keyed(1, 1))).await.unwrap()));
    for name in [endpoint.id.to_string(), "hook".to_owned()] {
        assert_eq!(w.store.find_endpoint(app.id, &name).await.unwrap().as_ref(), Some(&endpoint));
        assert_eq!(w.store.find_endpoint(w.id(), &name).await.unwrap(), None, "another application's");
    }
    assert_eq!(w.store.endpoint_for_delivery(endpoint.id).await.unwrap(), Some((app.clone(), endpoint.clone())));
    assert_eq!(w.store.endpoints_of(app.id).await.unwrap(), std::slice::from_ref(&endpoint));
    assert_eq!(w.store.list_endpoints(app.id, page(5)).await.unwrap().rows, [endpoint.clone()]);
    let guessed = EndpointId::from_key_and_tail(endpoint.id.key(), [0xee; 12]);
    assert_eq!(w.store.endpoint_for_delivery(guessed).await.unwrap(), None);
}

pub async fn uids_are_unique_in_their_application(w: World) {
    let [one, two] = [w.new_application().await.id, w.new_application().await.id];
    let with_uid = |app| Endpoint { uid: Some("hook".to_owned()), ..w.endpoint(app) };
    let first = fresh(w.store.create_endpoint(with_uid(one), None).await.unwrap());
    let taken = w.store.create_endpoint(with_uid(one), None).await;
    assert!(matches!(taken, Err(StoreError::Conflict { what: "uid", .. })), "{taken:?}");
    fresh(w.store.create_endpoint(with_uid(two), None).await.unwrap());
    let read = w.new_endpoint(one).await;
    let second = Endpoint { uid: Some("hook".to_owned()), ..read.clone() };
    let taken = w.store.change_endpoint(&read, second.clone(), None).await;
    assert!(matches!(taken, Err(StoreError::Conflict { what: "uid", .. })), "{taken:?}");
    w.store.delete_endpoint(one, first.id, w.now()).await.unwrap();
    fresh(w.store.change_endpoint(&read, second, None).await.unwrap());
}

pub async fn changing_replaces_all_but_identity(w: World) {
    let app = w.new_application().await.id;
    let before = w.new_endpoint(app).await;
    w.pass(HOUR);
    let mut changed = before.clone();
    changed.url = "https://elsewhere.example/".to_owned();
    changed.event_types = Some(vec![]);
    changed.disabled = true;
    changed.secret.rotate(Secret::new("whsec_bmV3"), w.now(), w.now().plus(HOUR), 10);
    changed.updated_at = w.now();
    let sent = Endpoint { created_at: w.now(), ..changed.clone() };
    fresh(w.store.change_endpoint(&before, sent.clone(), Some(w.keyed(1, 1))).await.unwrap());
    assert!(is_replayed(&w.store.change_endpoint(&before, sent, Some(w.keyed(1, 1))).await.unwrap()));
    assert_eq!(w.store.find_endpoint(app, &before.id.to_string()).await.unwrap(), Some(changed));
    let unknown = w.endpoint(app);
    let unknown = w.store.change_endpoint(&unknown, unknown.clone(), None).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("endpoint"))), "{unknown:?}");
}

pub async fn health_never_overwrites_a_change_made_meanwhile(w: World) {
    let app = w.new_application().await.id;
    let read = w.new_endpoint(app).await;
    let endpoint = Endpoint { url: "https://changed.example/".to_owned(), ..read.clone() };
    fresh(w.store.change_endpoint(&read, endpoint.clone(), None).await.unwrap());
    let failing = EndpointHealth { failing_since: Some(w.now()) };
    assert!(!w.store.set_endpoint_health(endpoint.id, failing, false, w.now()).await.unwrap());
    let found = w.store.find_endpoint(app, &endpoint.id.to_string()).await.unwrap().unwrap();
    assert_eq!(found, Endpoint { health: failing, ..endpoint.clone() });
    w.pass(HOUR);
    assert!(w.store.set_endpoint_health(endpoint.id, failing, true, w.now()).await.unwrap(), "disabled by this call");
    assert!(!w.store.set_endpoint_health(endpoint.id, failing, true, w.now()).await.unwrap(), "it was disabled already");
    assert!(w.store.find_endpoint(app, &endpoint.id.to_string()).await.unwrap().unwrap().disabled);
    let healthy = EndpointHealth::default();
    assert!(!w.store.set_endpoint_health(endpoint.id, healthy, false, w.now()).await.unwrap());
    let found = w.store.find_endpoint(app, &endpoint.id.to_string()).await.unwrap().unwrap();
    assert!(found.disabled && found.health == healthy, "recovering does not enable");
}

/// Else a change of the URL silently enables what has been disabled a moment before, or forgets that it fails.
pub async fn a_change_never_overwrites_health(w: World) {
    let app = w.new_application().await.id;
    let read = w.new_endpoint(app).await;
    let failing = EndpointHealth { failing_since: Some(w.now()) };
    assert!(!w.store.set_endpoint_health(read.id, failing, false, w.now()).await.unwrap());
    let changed = Endpoint { url: "https://changed.example/".to_owned(), ..read.clone() };
    let stored = fresh(w.store.change_endpoint(&read, changed.clone(), None).await.unwrap());
    assert_eq!(stored, Endpoint { health: failing, ..changed.clone() }, "health is not its business");
    assert!(w.store.set_endpoint_health(read.id, failing, true, w.now()).await.unwrap());
    let again = Endpoint { description: "again".to_owned(), ..changed.clone() };
    let late = w.store.change_endpoint(&changed, again.clone(), Some(w.keyed(1, 1))).await;
    assert!(matches!(late, Err(StoreError::Outdated("endpoint"))), "it was disabled after the read: {late:?}");
    let read = w.store.find_endpoint(app, &read.id.to_string()).await.unwrap().unwrap();
    assert_eq!(read, Endpoint { disabled: true, health: failing, ..changed });
    let again = Endpoint { disabled: true, ..again };
    let stored = fresh(w.store.change_endpoint(&read, again.clone(), Some(w.keyed(1, 1))).await.unwrap());
    assert_eq!(stored, Endpoint { health: failing, ..again.clone() }, "its key was not used up by what was refused");
    assert!(is_replayed(&w.store.change_endpoint(&read, again, Some(w.keyed(1, 1))).await.unwrap()));
}

/// Else of two people who change an endpoint at the same time, through two nodes, one has changed nothing.
pub async fn a_change_of_an_endpoint_overwrites_no_other(w: World) {
    let app = w.new_application().await.id;
    let read = w.new_endpoint(app).await;
    w.pass(HOUR);
    let header = |name: &str| HeaderSet(vec![(name.to_owned(), Secret::new("v"))]);
    let rotated = |read: &Endpoint, key: &str| {
        let mut endpoint = Endpoint { updated_at: w.now(), ..read.clone() };
        endpoint.secret.rotate(Secret::new(key), w.now(), w.now().plus(HOUR), 10);
        endpoint
    };
    // Every part of it counts, those that are sealed too.
    let changes = [
        Endpoint { uid: Some("u".to_owned()), ..read.clone() },
        Endpoint { url: "https://changed.example/".to_owned(), ..read.clone() },
        Endpoint { event_types: Some(vec![]), ..read.clone() },
        Endpoint { channels: Some(vec!["c".to_owned()]), ..read.clone() },
        Endpoint { throttle_rate: Some(1), ..read.clone() },
        Endpoint { disabled: true, ..read.clone() },
        Endpoint { metadata: [("k".to_owned(), "v".to_owned())].into(), ..read.clone() },
        Endpoint { headers: header("x-a"), ..read.clone() },
        rotated(&read, "whsec_b25l"),
    ];
    for change in changes {
        let stored = fresh(w.store.change_endpoint(&read, change, None).await.unwrap());
        let late = w.store.change_endpoint(&read, Endpoint { description: "late".to_owned(), ..read.clone() }, None).await;
        assert!(matches!(late, Err(StoreError::Outdated("endpoint"))), "{late:?}");
        assert_eq!(w.store.find_endpoint(app, &read.id.to_string()).await.unwrap().as_ref(), Some(&stored), "nothing is written");
        fresh(w.store.change_endpoint(&stored, read.clone(), None).await.unwrap());
    }
    let gone = fresh(w.store.change_endpoint(&read, rotated(&read, "whsec_b25l"), None).await.unwrap());
    assert!(w.store.delete_endpoint(app, read.id, w.now()).await.unwrap());
    let late = w.store.change_endpoint(&gone, read, None).await;
    assert!(matches!(late, Err(StoreError::NotFound("endpoint"))), "{late:?}");
}

pub async fn of_many_changes_of_an_endpoint_at_once_none_is_lost(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await;
    contend(&w, async |store: Arc<dyn Store>, number: usize| {
        let read = store.find_endpoint(app, &endpoint.id.to_string()).await?.unwrap();
        let mut changed = read.clone();
        changed.headers.0.push((format!("x-{number}"), Secret::new("v")));
        changed.secret.rotate(Secret::new(format!("whsec_{number}")), w.now(), w.now().plus(HOUR), CHANGES);
        store.change_endpoint(&read, changed, None).await.map(drop)
    })
    .await;
    let stored = w.store.find_endpoint(app, &endpoint.id.to_string()).await.unwrap().unwrap();
    assert_eq!((stored.headers.0.len(), stored.secret.old.len()), (CHANGES, CHANGES));
}

/// Else an endpoint that its owner has enabled is disabled again at its first failure.
pub async fn enabling_begins_its_health_anew(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await;
    let old = EndpointHealth { failing_since: Some(w.now()) };
    w.pass(HOUR);
    assert!(w.store.set_endpoint_health(endpoint.id, old, true, w.now()).await.unwrap());
    w.pass(HOUR);
    let read = Endpoint { disabled: true, ..endpoint.clone() };
    // As it was read, but enabled.
    let enabled = Endpoint { disabled: false, health: old, updated_at: w.now(), ..endpoint.clone() };
    let stored = fresh(w.store.change_endpoint(&read, enabled.clone(), None).await.unwrap());
    let expected = Endpoint { health: EndpointHealth::default(), ..enabled };
    assert_eq!(stored, expected);
    w.pass(HOUR);
    assert!(!w.store.set_endpoint_health(endpoint.id, old, true, w.now()).await.unwrap(), "news from before it was enabled");
    assert_eq!(w.store.find_endpoint(app, &endpoint.id.to_string()).await.unwrap(), Some(expected));
    let new = EndpointHealth { failing_since: Some(w.now()) };
    assert!(w.store.set_endpoint_health(endpoint.id, new, true, w.now()).await.unwrap(), "it can be disabled again");
}

pub async fn deleted_endpoints_are_gone(w: World) {
    let [app, other] = [w.new_application().await.id, w.new_application().await.id];
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(w.new_endpoint(app).await.id);
    }
    let disabled = Endpoint { disabled: true, ..w.endpoint(app) };
    ids.push(fresh(w.store.create_endpoint(disabled, None).await.unwrap()).id);
    let deleted = w.new_endpoint(app).await.id;
    w.new_endpoint(other).await;
    assert!(!w.store.delete_endpoint(other, deleted, w.now()).await.unwrap(), "not in that application");
    assert!(w.store.delete_endpoint(app, deleted, w.now()).await.unwrap());
    assert!(!w.store.delete_endpoint(app, deleted, w.now()).await.unwrap());
    assert_eq!(w.store.endpoint_for_delivery(deleted).await.unwrap(), None);
    assert_eq!(w.store.find_endpoint(app, &deleted.to_string()).await.unwrap(), None);
    let all: Vec<_> = w.store.endpoints_of(app).await.unwrap().iter().map(|endpoint| endpoint.id).collect();
    assert_eq!(all, ids, "disabled ones are in it, deleted ones are not");
    walk(&ids, |endpoint: &Endpoint| endpoint.id, async |query| w.store.list_endpoints(app, query).await.unwrap()).await;
}
