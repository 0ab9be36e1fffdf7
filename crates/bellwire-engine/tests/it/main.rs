//! The engine's integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod line;
mod link;
mod pipeline;
mod transport;

use std::time::Duration;

/// Makes a test on each store of every `async fn(Backend)` named.
macro_rules! on_both_stores {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name(bellwire_testkit::Backend::Sqlite).await })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() { super::$name(bellwire_testkit::Backend::Postgres).await })*
        }
    };
}
pub(crate) use on_both_stores;

async fn wait_until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "did not happen within twenty seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
