//! Applications.

use std::sync::Arc;

use bellwire_core::{Application, ApplicationKind, IdKind, OrgId};

use super::world::{CHANGES, HOUR, World, contend, fresh, is_replayed, page, walk};
use crate::{ApplicationFilter, Store, StoreError, Written};

fn is_uid_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>, uid: &str) {
    match result {
        Err(StoreError::Conflict { what: "uid", value }) => assert_eq!(value, uid),
        other => panic!("expected a conflict, got {other:?}"),
    }
}

pub async fn applications_are_found_by_id_and_uid_in_their_organisation_only(w: World) {
    let mut app = w.application("a name with | and 'quotes' and é");
    app.uid = Some("customer-1".to_owned());
    app.throttle_rate = Some(500);
    app.metadata.insert("plan".to_owned(), "gold".to_owned());
    let created = fresh(w.store.create_application(app.clone(), None).await.unwrap());
    assert_eq!(created, app);
    let other = OrgId::from_bytes([1; 20]);
    for name in [app.id.to_string(), "customer-1".to_owned()] {
        assert_eq!(w.store.find_application(w.org, &name).await.unwrap().as_ref(), Some(&app));
        assert_eq!(w.store.find_application(other, &name).await.unwrap(), None, "another organisation's");
    }
    assert_eq!(w.store.get_application(app.id).await.unwrap().as_ref(), Some(&app));
    assert_eq!(w.store.find_application(w.org, "nobody").await.unwrap(), None);
    // Same key, other tail: an id that was guessed from a time is not the application.
    let guessed = bellwire_core::AppId::from_key_and_tail(app.id.key(), [0xee; 12]);
    assert_eq!(w.store.get_application(guessed).await.unwrap(), None);
    assert_eq!(w.store.find_application(w.org, &guessed.to_string()).await.unwrap(), None);
}

pub async fn uids_are_unique_among_living_applications(w: World) {
    let with_uid = |w: &World, uid: &str| Application { uid: Some(uid.to_owned()), ..w.application("x") };
    let first = fresh(w.store.create_application(with_uid(&w, "one"), None).await.unwrap());
    is_uid_conflict(w.store.create_application(with_uid(&w, "one"), None).await, "one");
    let elsewhere = Application { org: OrgId::from_bytes([1; 20]), ..with_uid(&w, "one") };
    fresh(w.store.create_application(elsewhere, None).await.unwrap());
    let read = fresh(w.store.create_application(with_uid(&w, "two"), None).await.unwrap());
    let mut second = Application { uid: Some("one".to_owned()), ..read.clone() };
    is_uid_conflict(w.store.change_application(&read, second.clone()).await, "one");
    assert!(w.store.delete_application(w.org, first.id, w.now()).await.unwrap());
    assert!(!w.store.delete_application(w.org, first.id, w.now()).await.unwrap(), "it is gone already");
    second.name = "renamed".to_owned();
    assert_eq!(w.store.change_application(&read, second.clone()).await.unwrap(), second, "the uid is free again");
    assert_eq!(w.store.find_application(w.org, "one").await.unwrap(), Some(second.clone()));
    assert!(!w.store.delete_application(OrgId::from_bytes([1; 20]), second.id, w.now()).await.unwrap(), "not theirs");
    let unknown = w.application("never created");
    assert!(matches!(w.store.change_application(&unknown, unknown.clone()).await, Err(StoreError::NotFound("application"))));
}

/// Else of two people who change an application at the same time, through two nodes, one has changed nothing.
pub async fn a_change_of_an_application_overwrites_no_other(w: World) {
    let read = w.new_application().await;
    w.pass(HOUR);
    let renamed = Application { name: "renamed".to_owned(), updated_at: w.now(), ..read.clone() };
    assert_eq!(w.store.change_application(&read, renamed.clone()).await.unwrap(), renamed);
    let slowed = |read: &Application| Application { throttle_rate: Some(5), ..read.clone() };
    let version = w.store.application_version(read.id).await.unwrap();
    let late = w.store.change_application(&read, slowed(&read)).await;
    assert!(matches!(late, Err(StoreError::Outdated("application"))), "{late:?}");
    assert_eq!(w.store.get_application(read.id).await.unwrap(), Some(renamed.clone()), "nothing is written");
    assert_eq!(w.store.application_version(read.id).await.unwrap(), version, "nor told to other nodes");
    w.store.change_application(&renamed, slowed(&renamed)).await.unwrap();
    // Its time alone is no change.
    let both = w.store.get_application(read.id).await.unwrap().unwrap();
    assert_eq!((both.name.as_str(), both.throttle_rate), ("renamed", Some(5)));
    w.store.change_application(&Application { updated_at: read.updated_at, ..both.clone() }, both.clone()).await.unwrap();
    assert!(w.store.delete_application(w.org, read.id, w.now()).await.unwrap());
    let gone = w.store.change_application(&both, both.clone()).await;
    assert!(matches!(gone, Err(StoreError::NotFound("application"))), "{gone:?}");
}

pub async fn of_many_changes_of_an_application_at_once_none_is_lost(w: World) {
    let app = w.new_application().await;
    contend(&w, async |store: Arc<dyn Store>, number: usize| {
        let read = store.get_application(app.id).await.unwrap().unwrap();
        let mut changed = read.clone();
        changed.metadata.insert(number.to_string(), String::new());
        store.change_application(&read, changed).await.map(drop)
    })
    .await;
    assert_eq!(w.store.get_application(app.id).await.unwrap().unwrap().metadata.len(), CHANGES);
}

pub async fn lists_page_in_both_directions(w: World) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(w.new_application().await.id);
    }
    let deleted = w.new_application().await;
    w.store.delete_application(w.org, deleted.id, w.now()).await.unwrap();
    walk(
        &ids,
        |app: &Application| app.id,
        async |query| w.store.list_applications(w.org, ApplicationFilter::default(), query).await.unwrap(),
    )
    .await;
    let nobody = OrgId::from_bytes([1; 20]);
    let none = w.store.list_applications(nobody, ApplicationFilter::default(), page(10)).await.unwrap();
    assert!(none.rows.is_empty() && none.done);
}

pub async fn lists_can_leave_out_applications_by_their_endpoints(w: World) {
    let empty = w.new_application().await.id;
    let [living, disabled, mixed] = [w.new_application().await.id, w.new_application().await.id, w.new_application().await.id];
    for (app, is_disabled) in [(living, false), (disabled, true), (mixed, true), (mixed, false)] {
        let endpoint = bellwire_core::Endpoint { disabled: is_disabled, ..w.endpoint(app) };
        w.store.create_endpoint(endpoint, None).await.unwrap();
    }
    let list = async |exclude_without_endpoints, exclude_with_disabled_endpoints| {
        let filter = ApplicationFilter { exclude_without_endpoints, exclude_with_disabled_endpoints };
        let page = w.store.list_applications(w.org, filter, page(10)).await.unwrap();
        page.rows.iter().map(|app| app.id).collect::<Vec<_>>()
    };
    assert_eq!(list(false, false).await, [empty, living, disabled, mixed]);
    assert_eq!(list(true, false).await, [living, disabled, mixed]);
    assert_eq!(list(false, true).await, [empty, living, mixed]);
    assert_eq!(list(true, true).await, [living, mixed]);
}

pub async fn the_operational_application_is_one_and_hidden(w: World) {
    let id = w.id();
    let app = w.store.operational_application(w.org, id, w.now()).await.unwrap();
    assert_eq!((app.id, app.kind, app.org), (id, ApplicationKind::Operational, w.org));
    assert_eq!(w.store.operational_application(w.org, w.id(), w.now()).await.unwrap().id, id);
    assert_ne!(w.store.operational_application(OrgId::from_bytes([1; 20]), w.id(), w.now()).await.unwrap().id, id);
    assert!(w.store.get_application(id).await.unwrap().is_some());
    assert_eq!(w.store.find_application(w.org, &id.to_string()).await.unwrap(), None);
    assert!(w.store.list_applications(w.org, ApplicationFilter::default(), page(9)).await.unwrap().rows.is_empty());
}

pub async fn deleting_an_application_takes_its_endpoints_along(w: World) {
    let app = w.new_application().await;
    let endpoint = w.new_endpoint(app.id).await;
    assert!(w.store.endpoint_for_delivery(endpoint.id).await.unwrap().is_some());
    assert!(w.store.delete_application(w.org, app.id, w.now()).await.unwrap());
    assert!(w.store.endpoint_for_delivery(endpoint.id).await.unwrap().is_none());
    assert!(w.store.find_endpoint(app.id, &endpoint.id.to_string()).await.unwrap().is_none());
    assert!(w.store.endpoints_of(app.id).await.unwrap().is_empty());
    assert!(matches!(w.store.create_endpoint(w.endpoint(app.id), None).await, Err(StoreError::NotFound("application"))));
}

pub async fn creating_twice_under_one_key_answers_the_same(w: World) {
    fresh(w.store.create_application(w.application("a"), Some(w.keyed(1, 1))).await.unwrap());
    let again = w.store.create_application(w.application("a"), Some(w.keyed(1, 1))).await.unwrap();
    assert!(is_replayed(&again), "{again:?}");
    let other = w.store.create_application(w.application("b"), Some(w.keyed(1, 2))).await;
    assert!(matches!(other, Err(StoreError::IdempotencyMismatch)), "{other:?}");
    let all = w.store.list_applications(w.org, ApplicationFilter::default(), page(9)).await.unwrap();
    assert_eq!(all.rows.len(), 1);
    let (status, response) = w.store.find_idempotent(&w.key(1, 1), w.now()).await.unwrap().unwrap();
    assert_eq!((status, &response[..]), (201, &b"{\"the\":\"answer\"}"[..]));
    // A write that fails leaves its key free.
    let taken = Application { uid: Some("u".to_owned()), ..w.application("c") };
    fresh(w.store.create_application(taken.clone(), None).await.unwrap());
    is_uid_conflict(w.store.create_application(Application { id: w.id(), ..taken }, Some(w.keyed(2, 1))).await, "u");
    assert!(w.store.find_idempotent(&w.key(2, 1), w.now()).await.unwrap().is_none());
    // After a day the key is new.
    w.pass(super::world::DAY + super::world::HOUR);
    fresh(w.store.create_application(w.application("a"), Some(w.keyed(1, 2))).await.unwrap());
}

pub async fn whoever_creates_at_the_same_instant_makes_one(w: World) {
    let other = if w.store.is_shared() { Some(w.another().await) } else { None };
    let other = other.as_ref().unwrap_or(&w);
    let (one, two, three, four) = tokio::join!(
        w.store.operational_application(w.org, w.id(), w.now()),
        other.store.operational_application(w.org, other.id(), w.now()),
        w.store.operational_application(w.org, w.id(), w.now()),
        other.store.operational_application(w.org, other.id(), w.now()),
    );
    let ids = [one, two, three, four].map(|app| app.unwrap().id);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let create = async |by: &World| by.store.create_application(by.application("a"), Some(by.keyed(3, 3))).await.unwrap();
    let (one, two, three) = tokio::join!(create(&w), create(other), create(&w));
    let fresh = [&one, &two, &three].into_iter().filter(|written| matches!(written, Written::Fresh(_))).count();
    let replayed = [&one, &two, &three].into_iter().filter(|written| is_replayed(written)).count();
    assert_eq!((fresh, replayed), (1, 2), "{one:?} {two:?} {three:?}");
    let all = w.store.list_applications(w.org, ApplicationFilter::default(), page(9)).await.unwrap();
    assert_eq!(all.rows.len(), 1);
}
