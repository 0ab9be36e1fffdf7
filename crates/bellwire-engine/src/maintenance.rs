//! Chores: retention (by one node of all: who has shard 0), idle connections.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::Shard;

use crate::Engine;

const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Retention looks around this often, and goes on at once while there is more to do.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// Whether it has become this node's business is looked at this often.
const RETAIN_LOOK: Duration = Duration::from_secs(1);
const RETAIN_STEP_PAUSE: Duration = Duration::from_millis(50);

pub async fn run_sweep(engine: Arc<Engine>) {
    while !engine.is_stopping() {
        engine.sleep(SWEEP_EVERY).await;
        engine.pools.sweep();
    }
}

pub async fn run_retention(engine: Arc<Engine>) {
    while !engine.is_stopping() {
        if !engine.shards.holds(Shard(0)) {
            engine.sleep(RETAIN_LOOK).await;
            continue;
        }
        let pause = match engine.store.retain(engine.now(), engine.config.retention).await {
            Ok(report) => {
                if report.segments_removed > 0 || report.payloads_expired > 0 {
                    tracing::info!(
                        segments = report.segments_removed,
                        payloads = report.payloads_expired,
                        bytes = report.bytes_freed,
                        "retention"
                    );
                }
                if report.more { RETAIN_STEP_PAUSE } else { RETAIN_EVERY }
            }
            Err(bellwire_store::StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "retention failed; trying again later");
                RETAIN_EVERY
            }
        };
        engine.sleep(pause).await;
    }
}
