//! The suite of all backends, each case in a database of its own.

use std::sync::Arc;
use std::time::Duration;

use bellwire_postgres_testkit::Postgres;
use bellwire_store::conformance::CASES;
use bellwire_store::{MaintenanceStore, Store};
use tokio::task::JoinSet;

use super::{database, open};

/// Cases run at a time: each has two stores at most, with their connections.
const AT_A_TIME: usize = 4;
const CASE_MAX: Duration = Duration::from_secs(240);
/// A part of a case's name: only those are run.
const ONLY_VARIABLE: &str = "BELLWIRE_TEST_CASE";

async fn run(case: &'static bellwire_store::conformance::Case) -> Result<(), String> {
    let url = database().await;
    let first = open(&url).await;
    let opener_url = url.clone();
    let opener = Arc::new(move || -> std::pin::Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>> {
        let url = opener_url.clone();
        Box::pin(async move {
            let store: Arc<dyn Store> = open(&url).await;
            store
        })
    });
    let result = tokio::spawn(tokio::time::timeout(CASE_MAX, (case.run)(first.clone(), opener))).await;
    // A case may have closed it.
    let _ = first.close().await;
    match result {
        Ok(Ok(())) => {
            Postgres::shared().drop_database(&url);
            Ok(())
        }
        Ok(Err(_)) => Err(format!("{}: did not end within {CASE_MAX:?} ({url})", case.name)),
        Err(panic) => Err(format!("{}: {panic} ({url})", case.name)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_passes_the_suite() {
    let only = std::env::var(ONLY_VARIABLE).unwrap_or_default();
    let mut cases = CASES.iter().filter(|case| case.name.contains(&only));
    let (mut running, mut failed, mut count) = (JoinSet::new(), Vec::new(), 0);
    loop {
        while running.len() < AT_A_TIME
            && let Some(case) = cases.next()
        {
            running.spawn(run(case));
        }
        let Some(result) = running.join_next().await else { break };
        count += 1;
        failed.extend(result.unwrap().err());
    }
    assert!(count > 0, "no case is called like {only:?} ({ONLY_VARIABLE})");
    assert!(failed.is_empty(), "{} of {count} cases failed:\n{}", failed.len(), failed.join("\n"));
}
