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
/// Deliveries of the healthy ones must be there this long after the last message.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Runs `rounds` pairs of rounds of `duration` each.
///
/// # Errors
/// The server failed.
pub async fn measure(
    target: &Target,
    receiver: &Receiver,
    tag: &str,
    rounds: usize,
    duration: Duration,
) -> anyhow::Result<Isolation> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..rounds.max(1) {
        // Which of the two comes first takes turns too.
        for hanging in [round % 2 == 1, round % 2 == 0] {
            let quantiles = one_round(target, receiver, &format!("{tag}-{round}-{hanging}"), hanging, duration).await?;
            report::note(&format!(
                "isolation, round {}, {}: p50 {:.2} ms, p99 {:.2} ms",
                round + 1,
                if hanging { "one of 100 hanging" } else { "all healthy" },
                quantiles.p50_ms,
                quantiles.p99_ms
            ));
            if hanging { &mut with } else { &mut without }.push(quantiles);
        }
    }
    let ratios = with.iter().zip(&without).map(|(with, without)| ratio(with.p99_ms, without.p99_ms));
    Ok(Isolation {
        endpoints: ENDPOINTS,
        per_second: PER_SECOND,
        rounds: rounds.max(1),
        p99_ratio: median(ratios),
        without: Quantiles::median(&without),
        with_one_hanging: Quantiles::median(&with),
    })
}

async fn one_round(
    target: &Target,
    receiver: &Receiver,
    tag: &str,
    hanging: bool,
    duration: Duration,
) -> anyhow::Result<Quantiles> {
    let prefix = format!("/p/{tag}-isolation/");
    let mut apps = Vec::with_capacity(ENDPOINTS);
    for n in 0..ENDPOINTS {
        // The one that may hang is never counted, so that both rounds compare the same ninety-nine.
        let path = match (n, hanging) {
            (0, true) => format!("/hang/{tag}"),
            (0, false) => format!("/p/{tag}-other"),
            _ => format!("{prefix}{n}"),
        };
        apps.push(target.set_up("isolation", &[receiver.url(&path)]).await?.0);
    }
    let progress = Arc::new(Progress::default());
    let loaded = OpenLoop { per_second: PER_SECOND, duration }.run(target, &apps, &progress).await?;
    let total = loaded.acknowledged;
    let expected = total - total.div_ceil(ENDPOINTS as u64);
    let deadline = tokio::time::Instant::now() + ARRIVAL_TIMEOUT;
    while receiver.count(&prefix).await?.unique < expected {
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "deliveries of healthy endpoints are missing after {ARRIVAL_TIMEOUT:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(receiver.stats(&prefix).await?.latency)
}
