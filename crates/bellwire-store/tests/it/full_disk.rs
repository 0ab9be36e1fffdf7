//! A full disk: refusals at once, nothing lost, and on without a restart when there is space again.

use std::time::{Duration, Instant};

use bellwire_core::{IdKind, Message};
use bellwire_store::sqlite::SqliteOptions;
use bellwire_store::{AttemptRecord, DeliveryNext, DeliveryStore, MaintenanceStore, MessageStore, StoreError};

use super::{open, options, until};

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> bytes::Bytes {
    let mut state = seed | 1;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| step()).collect::<Vec<_>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_goes_on_by_itself_once_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    // 200 pages of 8 KiB stand for the disk.
    let (store, w) = open(SqliteOptions { pages_max: Some(200), ..options(dir.path()) });
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let mut accepted: Vec<Message> = Vec::new();
    let refused = loop {
        let message = Message { payload: Some(noise(accepted.len() as u64, 20_000)), ..w.message(app) };
        match w.accept(message.clone(), &[endpoint]).await {
            Ok(_) => accepted.push(message),
            Err(StoreError::Full) => break message,
            Err(other) => panic!("{other}"),
        }
        assert!(accepted.len() < 200, "the quota was never reached");
    };
    assert!(accepted.len() > 20);
    until("the store to say that it is full", async || store.report().await.unwrap().is_full).await;
    // Refusals come at once, for messages and for other writes; reading goes on.
    let started = Instant::now();
    for _ in 0..50 {
        assert!(matches!(w.accept(w.message(app), &[endpoint]).await, Err(StoreError::Full)));
    }
    assert!(matches!(w.store.create_application(w.application("x"), None).await, Err(StoreError::Full)));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(store.ping().await, Err(StoreError::Full)));
    assert_eq!(store.load_message(refused.id).await.unwrap(), None);
    for message in &accepted {
        assert_eq!(store.load_message(message.id).await.unwrap().as_ref(), Some(message));
    }
    // Completed attempts are kept meanwhile.
    for message in &accepted[..10] {
        store.record_attempt(AttemptRecord {
            message: message.id,
            endpoint,
            app,
            attempt: Some(w.attempt(message.id, endpoint, 200)),
            next: DeliveryNext::Delivered,
            is_first_try: true,
            epoch: 0,
        });
    }
    // Not a wait for something to happen but the time in which nothing may: two of the writer's looks for space.
    tokio::time::sleep(2 * Duration::from_millis(bellwire_core::limits::FULL_PROBE_MS) + Duration::from_millis(100)).await;
    assert!(w.told.recorded.lock().is_empty() && store.report().await.unwrap().is_full, "there is no space yet");
    // Deleting is allowed, and makes space.
    for message in &accepted[..20] {
        assert!(store.expunge_message_content(app, message.id).await.unwrap());
    }
    w.wait_for_records(10).await;
    until("the store to take messages again", async || w.accept(w.message(app), &[]).await.is_ok()).await;
    store.ping().await.unwrap();
    assert_eq!(w.accept(refused.clone(), &[endpoint]).await.unwrap(), bellwire_store::Accepted::Fresh);
    let queued: Vec<_> = w.queued().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(queued.len(), accepted.len() - 10 + 1);
    assert!(accepted[..10].iter().all(|message| !queued.contains(&message.id)));
    assert!(store.check().await.unwrap().is_empty());
    assert_eq!(queued.iter().map(|id| id.key()).max(), Some(refused.id.key()));
}
