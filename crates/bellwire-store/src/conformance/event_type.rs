//! Event types.

use std::sync::Arc;

use bellwire_core::{EventType, IdKind, OrgId};

use super::world::{CHANGES, HOUR, World, contend, fresh, is_replayed, page, walk};
use crate::{Store, StoreError};

fn event_type(w: &World, name: &str) -> EventType {
    EventType {
        org: w.org,
        name: name.to_owned(),
        description: "what happened".to_owned(),
        archived: false,
        deprecated: true,
        schemas: Some("{\"1\":{\"type\":\"object\"}}".to_owned()),
        feature_flags: Some(vec!["beta".to_owned()]),
        group_name: Some("billing".to_owned()),
        created_at: w.now(),
        updated_at: w.now(),
    }
}

pub async fn event_types_are_created_once_and_revived(w: World) {
    let first = event_type(&w, "invoice.paid");
    assert_eq!(fresh(w.store.create_event_type(first.clone(), Some(w.keyed(1, 1))).await.unwrap()), first);
    assert!(is_replayed(&w.store.create_event_type(first.clone(), Some(w.keyed(1, 1))).await.unwrap()));
    let taken = w.store.create_event_type(first.clone(), None).await;
    assert!(
        matches!(&taken, Err(StoreError::Conflict { what: "event type name", value }) if value == "invoice.paid"),
        "{taken:?}"
    );
    assert_eq!(w.store.get_event_type(w.org, "invoice.paid").await.unwrap(), Some(first.clone()));
    assert_eq!(w.store.get_event_type(OrgId::from_bytes([1; 20]), "invoice.paid").await.unwrap(), None);
    let archived = EventType { archived: true, ..first.clone() };
    w.store.put_event_type(archived.clone()).await.unwrap();
    assert_eq!(w.store.get_event_type(w.org, "invoice.paid").await.unwrap(), Some(archived));
    w.pass(HOUR);
    let revived = EventType { description: "anew".to_owned(), ..event_type(&w, "invoice.paid") };
    fresh(w.store.create_event_type(revived.clone(), None).await.unwrap());
    let found = w.store.get_event_type(w.org, "invoice.paid").await.unwrap().unwrap();
    assert!(!found.archived && found.description == "anew");
}

pub async fn lists_page_by_name(w: World) {
    let names: Vec<String> = ["a", "a.b", "b", "c", "d"].map(ToOwned::to_owned).to_vec();
    for name in ["c", "a.b", "d", "a", "b"] {
        w.store.put_event_type(event_type(&w, name)).await.unwrap();
    }
    w.store.put_event_type(EventType { archived: true, ..event_type(&w, "bb") }).await.unwrap();
    w.store.put_event_type(EventType { org: OrgId::from_bytes([1; 20]), ..event_type(&w, "aa") }).await.unwrap();
    walk(
        &names,
        |found: &EventType| found.name.clone(),
        async |query| w.store.list_event_types(w.org, false, query).await.unwrap(),
    )
    .await;
    assert_eq!(w.store.list_event_types(w.org, true, page(10)).await.unwrap().rows.len(), 6);
}

pub async fn putting_and_expunging(w: World) {
    let first = event_type(&w, "a");
    let (_, is_created) = w.store.put_event_type(first.clone()).await.unwrap();
    assert!(is_created);
    w.pass(HOUR);
    let (put, is_created) = w.store.put_event_type(EventType { schemas: None, ..event_type(&w, "a") }).await.unwrap();
    assert!(!is_created);
    assert_eq!((put.created_at, put.updated_at), (first.created_at, w.now()));
    assert_eq!(w.store.get_event_type(w.org, "a").await.unwrap(), Some(put));
    assert!(!w.store.expunge_event_type(OrgId::from_bytes([1; 20]), "a").await.unwrap());
    assert!(w.store.expunge_event_type(w.org, "a").await.unwrap());
    assert!(!w.store.expunge_event_type(w.org, "a").await.unwrap());
    assert_eq!(w.store.get_event_type(w.org, "a").await.unwrap(), None);
}

/// Else of two people who change an event type at the same time, through two nodes, one has changed nothing, or one that was removed is
/// back.
pub async fn a_change_of_an_event_type_overwrites_no_other(w: World) {
    let (read, _) = w.store.put_event_type(event_type(&w, "a")).await.unwrap();
    w.pass(HOUR);
    let archived = EventType { archived: true, created_at: w.now(), updated_at: w.now(), ..read.clone() };
    let stored = w.store.change_event_type(&read, archived).await.unwrap();
    assert_eq!(stored, EventType { archived: true, updated_at: w.now(), ..read.clone() });
    let late = w.store.change_event_type(&read, EventType { description: "late".to_owned(), ..read.clone() }).await;
    assert!(matches!(late, Err(StoreError::Outdated("event type"))), "{late:?}");
    assert_eq!(w.store.get_event_type(w.org, "a").await.unwrap().as_ref(), Some(&stored), "nothing is written");
    assert!(w.store.expunge_event_type(w.org, "a").await.unwrap());
    let gone = w.store.change_event_type(&stored, read).await;
    assert!(matches!(gone, Err(StoreError::NotFound("event type"))), "{gone:?}");
    assert_eq!(w.store.get_event_type(w.org, "a").await.unwrap(), None);
}

pub async fn of_many_changes_of_an_event_type_at_once_none_is_lost(w: World) {
    w.store.put_event_type(EventType { feature_flags: None, ..event_type(&w, "a") }).await.unwrap();
    contend(&w, async |store: Arc<dyn Store>, number: usize| {
        let read = store.get_event_type(w.org, "a").await?.unwrap();
        let mut changed = read.clone();
        changed.feature_flags.get_or_insert_default().push(format!("flag-{number}"));
        store.change_event_type(&read, changed).await.map(drop)
    })
    .await;
    let flags = w.store.get_event_type(w.org, "a").await.unwrap().unwrap().feature_flags.unwrap();
    assert_eq!(flags.len(), CHANGES);
}
