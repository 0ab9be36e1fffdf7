//! Retention gives disk space back for real.

use std::path::Path;

use bellwire_core::Message;
use bellwire_store::conformance::world::{DAY, page};
use bellwire_store::{MaintenanceStore, MessageFilter, MessageStore, RetentionReport};
use bytes::Bytes;

use super::{open, options, until};

const MIB: u64 = 1024 * 1024;

fn noise(seed: usize, bytes: usize) -> Bytes {
    let mut state = seed as u64 * 2 + 1;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| step()).collect::<Vec<_>>().into()
}

/// Files of deleted segments that this process still holds open.
fn held_after_deletion(dir: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    open.filter(|path| path.starts_with(dir) && path.to_string_lossy().ends_with("(deleted)")).count()
}

async fn retain(store: &dyn MaintenanceStore, now: bellwire_core::Timestamp) -> RetentionReport {
    let mut sum = RetentionReport::default();
    loop {
        let report = store.retain(now, 90 * DAY).await.unwrap();
        sum.bytes_freed += report.bytes_freed;
        sum.segments_removed += report.segments_removed;
        sum.payloads_expired += report.payloads_expired;
        if !report.more {
            return sum;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_segment_takes_its_bytes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    let app = w.new_application().await.id;
    for n in 0..100 {
        w.accept(Message { payload: Some(noise(n, 60_000)), ..w.message(app) }, &[]).await.unwrap();
    }
    w.pass(100 * DAY);
    w.publish(app, &[]).await;
    // Readers have the old file open.
    let listed = store.list_messages(app, MessageFilter::default(), page(5), true).await.unwrap();
    assert_eq!(listed.rows.len(), 5);
    let before = store.report().await.unwrap();
    assert_eq!(before.segments, 2);
    assert!(before.bytes_on_disk > 5 * MIB);
    let report = retain(&*store, w.now()).await;
    assert_eq!(report.segments_removed, 1);
    assert!(report.bytes_freed > 5 * MIB);
    let after = store.report().await.unwrap();
    assert_eq!(after.segments, 1);
    assert!(after.bytes_on_disk + 5 * MIB < before.bytes_on_disk);
    until("the last reader to let go of the file", async || held_after_deletion(dir.path()) == 0).await;
    assert_eq!(store.list_messages(app, MessageFilter::default(), page(5), true).await.unwrap().rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_payloads_give_their_bytes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    let app = w.new_application().await.id;
    let secret = noise(12_345, 30_000);
    for n in 0..200 {
        let payload = if n == 7 { secret.clone() } else { noise(n, 30_000) };
        let message = Message { payload: Some(payload), payload_expires_at: w.now().plus(DAY), ..w.message(app) };
        w.accept(message, &[]).await.unwrap();
    }
    let kept = w.publish(app, &[]).await;
    let file = dir.path().join("seg-0000000000000000.db");
    // Until it is copied from the log, the file is small; the first run of retention looks at it as it is.
    retain(&*store, w.now()).await;
    let report = retain(&*store, w.now().plus(2 * DAY)).await;
    assert_eq!(report.payloads_expired, 200);
    assert!(report.bytes_freed > 4 * MIB, "{report:?}");
    until("the file to shrink", async || std::fs::metadata(&file).unwrap().len() < 2 * MIB).await;
    assert_eq!(store.load_message(kept.id).await.unwrap(), Some(kept));
    store.close().await.unwrap();
    let bytes = std::fs::read(&file).unwrap();
    assert!(!bytes.windows(64).any(|window| window == &secret[..64]), "what was deleted is overwritten");
    assert!(store.report().await.unwrap().bytes_on_disk < 3 * MIB);
}

#[tokio::test]
async fn an_idle_store_does_not_make_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    for _ in 0..20 {
        w.pass(30 * DAY);
        retain(&*store, w.now()).await;
    }
    assert_eq!(store.report().await.unwrap().segments, 1);
}
