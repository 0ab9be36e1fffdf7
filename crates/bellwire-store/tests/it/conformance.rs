//! The suite of all backends, on SQLite: with segments of the usual span, and with ones so short that nearly every message has
//! its own, which no caller may notice.

use std::sync::Arc;
use std::time::Duration;

use bellwire_store::Cipher;
use bellwire_store::conformance::CASES;
use bellwire_store::sqlite::{SqliteOptions, SqliteStore};

fn run_all(segment_span: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = Vec::new();
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteOptions { segment_span, ..SqliteOptions::new(dir.path(), Cipher::new([1; 32])) };
        let store = SqliteStore::open(options).unwrap();
        let run = (case.run)(store.clone(), Arc::new(|| unreachable!("the embedded store belongs to one process")));
        let result = runtime.block_on(async { tokio::spawn(tokio::time::timeout(Duration::from_secs(60), run)).await });
        match result {
            Ok(Ok(())) => {}
            Ok(Err(_)) => failed.push(format!("{}: did not end within a minute", case.name)),
            Err(panic) => failed.push(format!("{}: {panic}", case.name)),
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

#[test]
fn the_embedded_store_passes_the_suite() {
    run_all(Duration::from_secs(7 * 86_400));
}

#[test]
fn callers_do_not_notice_segments() {
    run_all(Duration::from_millis(1));
}
