//! One hanging endpoint among many: by how much does it move the others? Rounds without and with it take turns, so that a
//! machine that drifts drifts for both.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gentle::OpenLoop;
use super::latency::{Quantiles, median, ratio};
use super::load::Progress;
use super::receive::Receiver;
use super::report;
use super::target::Target;

const ENDPOINTS: usize = 100;
/// All endpoints together: each gets a few messages a second.
const PER_SECOND: u32 = 500;
/// Before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// Deliveries of the healthy ones must be there this long after the last message.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether the first endpoint hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hanging {
    None,
    One,
}

impl Hanging {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "all healthy",
            Self::One => "one of 100 hanging",
        }
    }
}

/// The healthy endpoints' latencies, published to arrived.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Isolation {
    pub endpoints: usize,
    pub per_second: u32,
    pub rounds: usize,
    /// Medians over the rounds.
    pub without: Quantiles,
    pub with_one_hanging: Quantiles,
    /// Median of each round's p99 with, over its p99 without.
    pub p99_ratio: f64,
}

impl Isolation {
    /// Puts the rounds together: (without, with one hanging), pair by pair.
    pub fn of(pairs: &[(Quantiles, Quantiles)]) -> Self {
        let (without, with): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        Self {
            endpoints: ENDPOINTS,
            per_second: PER_SECOND,
            rounds: pairs.len(),
            p99_ratio: median(pairs.iter().map(|(without, with)| ratio(with.p99_ms, without.p99_ms))),
            without: Quantiles::median(&without),
            with_one_hanging: Quantiles::median(&with),
        }
    }
}

/// One round on a server without load: the healthy endpoints' latencies while all get messages.
///
/// # Errors
/// The server failed.
pub async fn one_round(
    target: &Target,
    receiver: &Receiver,
    tag: &str,
    hanging: Hanging,
    duration: Duration,
) -> anyhow::Result<Quantiles> {
    let prefix = format!("/p/{tag}-isolation/");
    let mut apps = Vec::with_capacity(ENDPOINTS);
    for n in 0..ENDPOINTS {
        // The one that may hang is never counted, so that both rounds compare the same ninety-nine.
        let path = match (n, hanging) {
            (0, Hanging::One) => format!("/hang/{tag}"),
            (0, Hanging::None) => format!("/p/{tag}-other"),
            _ => format!("{prefix}{n}"),
        };
        apps.push(target.set_up("isolation", &[receiver.url(&path)]).await?.0);
    }
    // Connections are opened and caches filled before anything counts; the hanging one shows itself only after that.
    publish(target, receiver, &apps[1..], &prefix, WARM_UP, 0).await?;
    receiver.clear(&prefix).await?;
    publish(target, receiver, &apps, &prefix, duration, 1).await?;
    let quantiles = receiver.stats(&prefix).await?.latency;
    report::note(&format!("{}: p50 {:.2} ms, p99 {:.2} ms", hanging.as_str(), quantiles.p50_ms, quantiles.p99_ms));
    Ok(quantiles)
}

/// Publishes to `apps` in turn and waits for the deliveries below `prefix`; each round through all of them has `uncounted`
/// messages that go elsewhere.
async fn publish(
    target: &Target,
    receiver: &Receiver,
    apps: &[String],
    prefix: &str,
    duration: Duration,
    uncounted: u64,
) -> anyhow::Result<()> {
    let progress = Arc::new(Progress::default());
    let loaded = OpenLoop { per_second: PER_SECOND, duration }.run(std::slice::from_ref(target), apps, &progress).await?;
    let total = loaded.acknowledged;
    let expected = total - uncounted * total.div_ceil(apps.len() as u64);
    let deadline = tokio::time::Instant::now() + ARRIVAL_TIMEOUT;
    while receiver.count(prefix).await?.unique < expected {
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "deliveries of healthy endpoints are missing after {ARRIVAL_TIMEOUT:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
