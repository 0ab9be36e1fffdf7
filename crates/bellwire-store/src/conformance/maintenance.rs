//! Retention, health, closing.

use std::time::Duration;

use bellwire_core::{IdKind, Message, Timestamp};

use super::world::{DAY, HOUR, World};
use crate::{ApiKeyRecord, DeliveryNext, RetentionReport, StoreError};

/// Retention until there is nothing more to do.
pub async fn retain(w: &World, now: Timestamp, retention: Duration) -> RetentionReport {
    let mut sum = RetentionReport::default();
    for _ in 0..1_000 {
        let report = w.store.retain(now, retention).await.unwrap();
        sum.segments_removed += report.segments_removed;
        sum.bytes_freed += report.bytes_freed;
        sum.payloads_expired += report.payloads_expired;
        if !report.more {
            return sum;
        }
    }
    panic!("retention does not come to an end");
}

pub async fn the_last_key_is_above_all(w: World) {
    assert_eq!(w.store.last_key().await.unwrap(), 0, "an empty store");
    let app = w.new_application().await.id;
    assert_eq!(w.store.last_key().await.unwrap(), app.key());
    let endpoint = w.new_endpoint(app).await.id;
    assert_eq!(w.store.last_key().await.unwrap(), endpoint.key());
    let message = w.publish(app, &[endpoint]).await;
    assert_eq!(w.store.last_key().await.unwrap(), message.id.key());
    let attempt = w.record(&message, endpoint, 200, DeliveryNext::Delivered, true).await;
    assert_eq!(w.store.last_key().await.unwrap(), attempt.id.key());
    let key = ApiKeyRecord {
        id: w.id(),
        org: w.org,
        name: String::new(),
        hash: [0; 32],
        scopes: vec![],
        created_at: w.now(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    };
    w.store.create_api_key(key.clone(), None).await.unwrap();
    assert_eq!(w.store.last_key().await.unwrap(), key.id.key());
}

/// Broken: the first message of a new store, or after a long pause, waits for tables that are made for it.
pub async fn what_is_prepared_takes_messages_as_it_is(w: World) {
    let app = w.new_application().await.id;
    for pause in [Duration::ZERO, 50 * DAY] {
        w.pass(pause);
        w.store.prepare(w.now()).await.unwrap();
        let prepared = w.store.report().await.unwrap().segments;
        w.publish(app, &[]).await;
        assert_eq!(w.store.report().await.unwrap().segments, prepared, "after a pause of {pause:?}");
        // Nothing is left to do the second time.
        w.store.prepare(w.now()).await.unwrap();
        assert_eq!(w.store.report().await.unwrap().segments, prepared);
    }
}

pub async fn retention_drops_what_is_old_and_finished(w: World) {
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let old = w.publish(app, &[endpoint]).await;
    let attempt = w.record(&old, endpoint, 200, DeliveryNext::Delivered, true).await;
    w.pass(50 * DAY);
    let unfinished = w.publish(app, &[endpoint]).await;
    w.pass(50 * DAY);
    let young = w.publish(app, &[endpoint]).await;
    w.record(&young, endpoint, 200, DeliveryNext::Delivered, true).await;
    w.pass(HOUR);
    retain(&w, w.now(), 90 * DAY).await;
    assert!(w.store.load_message(old.id).await.unwrap().is_none());
    assert!(w.store.get_attempt(app, old.id, attempt.id).await.unwrap().is_none());
    assert!(w.store.load_message(unfinished.id).await.unwrap().is_some());
    assert!(w.store.load_message(young.id).await.unwrap().is_some());
    w.pass(45 * DAY);
    retain(&w, w.now(), 90 * DAY).await;
    assert!(w.store.load_message(unfinished.id).await.unwrap().is_some(), "an acknowledged delivery never disappears");
    assert_eq!(w.queued().await, [(unfinished.id, endpoint)]);
    w.record(&unfinished, endpoint, 200, DeliveryNext::Delivered, true).await;
    retain(&w, w.now(), 90 * DAY).await;
    assert!(w.store.load_message(unfinished.id).await.unwrap().is_none());
    assert!(w.store.load_message(young.id).await.unwrap().is_some());
    // Also when no message comes any more.
    w.pass(200 * DAY);
    retain(&w, w.now(), 90 * DAY).await;
    assert!(w.store.load_message(young.id).await.unwrap().is_none());
    assert!(w.store.get_application(app).await.unwrap().is_some(), "what is no message stays");
    let still = w.publish(app, &[endpoint]).await;
    assert!(w.store.load_message(still.id).await.unwrap().is_some());
}

pub async fn payloads_go_when_they_expire(w: World) {
    let app = w.new_application().await.id;
    let short = Message { payload_expires_at: w.now().plus(5 * DAY), ..w.message(app) };
    w.accept(short.clone(), &[]).await.unwrap();
    let long = w.publish(app, &[]).await;
    retain(&w, w.now().plus(4 * DAY), 90 * DAY).await;
    assert_eq!(w.store.load_message(short.id).await.unwrap().as_ref(), Some(&short));
    let report = retain(&w, w.now().plus(6 * DAY), 90 * DAY).await;
    assert_eq!(report.payloads_expired, 1);
    assert_eq!(w.store.load_message(short.id).await.unwrap(), Some(Message { payload: None, ..short }));
    assert_eq!(w.store.load_message(long.id).await.unwrap(), Some(long));
    assert_eq!(retain(&w, w.now().plus(6 * DAY), 90 * DAY).await.payloads_expired, 0, "once");
}

pub async fn a_store_reports_on_itself(w: World) {
    w.store.ping().await.unwrap();
    let app = w.new_application().await.id;
    let before = w.store.report().await.unwrap();
    for _ in 0..10 {
        w.publish(app, &[]).await;
    }
    let after = w.store.report().await.unwrap();
    assert!(after.bytes_on_disk > 0 && !after.notes.is_empty() && !after.is_full);
    assert!(after.commits_total > before.commits_total);
    assert!(after.commit_items_total >= before.commit_items_total + 10);
    assert!(after.commit_seconds_total > 0.0);
    assert_eq!(w.store.check().await.unwrap(), Vec::<String>::new(), "a sound store");
}

pub async fn a_closed_store_answers_so(w: World) {
    let app = w.new_application().await.id;
    w.publish(app, &[]).await;
    w.store.close().await.unwrap();
    w.store.close().await.unwrap();
    assert!(matches!(w.accept(w.message(app), &[]).await, Err(StoreError::Closed)));
    assert!(matches!(w.store.get_application(app).await, Err(StoreError::Closed)));
    assert!(matches!(w.store.ping().await, Err(StoreError::Closed)));
    assert!(matches!(w.store.create_application(w.application("x"), None).await, Err(StoreError::Closed)));
}
