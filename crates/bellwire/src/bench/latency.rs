//! Latencies and their quantiles, medians of runs: the arithmetic of the bench.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Microseconds, three significant digits, growing with the largest value seen.
pub type Latencies = Histogram<u64>;

/// Longest latency told apart, in microseconds: ten minutes. Phases end before.
const LATENCY_MICROS_MAX: u64 = 600_000_000;

/// An empty histogram.
///
/// # Errors
/// None in practice: the library refuses more than five digits.
pub fn latencies() -> anyhow::Result<Latencies> {
    Ok(Histogram::new(3)?)
}

/// Records one latency.
pub fn record(latencies: &mut Latencies, micros: u64) {
    // It grows by itself; only memory could run out, and that ends the process anyway.
    let _ = latencies.record(micros.min(LATENCY_MICROS_MAX));
}

/// Quantiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Quantiles {
    pub samples: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Quantiles {
    pub fn of(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            samples: latencies.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: latencies.max() as f64 / 1_000.0,
        }
    }

    /// Each quantile's median over runs.
    pub fn median(runs: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(runs.iter().map(field));
        Self {
            samples: runs.iter().map(|run| run.samples).sum::<u64>() / (runs.len() as u64).max(1),
            p50_ms: of(|run| run.p50_ms),
            p99_ms: of(|run| run.p99_ms),
            p999_ms: of(|run| run.p999_ms),
            max_ms: of(|run| run.max_ms),
        }
    }
}

/// The middle value; the mean of the two middle ones for an even number; 0 for none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

/// `a / b`, 0 where there is nothing to divide by.
pub fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// Ratios that were measured again and again: their geometric mean, and the interval in which it lies with 95 %. An endless interval says that
/// there are too few of them.
pub fn relation(ratios: impl IntoIterator<Item = f64>) -> (f64, f64, f64) {
    let logs: Vec<f64> = ratios.into_iter().filter(|ratio| *ratio > 0.0 && ratio.is_finite()).map(f64::ln).collect();
    let count = logs.len() as f64;
    if logs.is_empty() {
        return (0.0, 0.0, f64::INFINITY);
    }
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = student(logs.len() - 1) * (variance / count).sqrt();
    if half.is_finite() { (mean.exp(), (mean - half).exp(), (mean + half).exp()) } else { (mean.exp(), 0.0, f64::INFINITY) }
}

/// What cuts off 2.5 % at either end of Student's distribution; from the tables.
fn student(freedom: usize) -> f64 {
    const OF: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    match freedom {
        0 => f64::INFINITY,
        1..=10 => OF[freedom - 1],
        // Its expansion at the normal distribution; off by less than 0.01.
        _ => 1.96 + 2.372 / freedom as f64 + 2.823 / (freedom as f64).powi(2),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: the bench reports the mean, or the wrong one of the middle values.
    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([5.0, 1.0, 9.0]), 5.0);
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), 3.0);
        assert_eq!(median([f64::NAN, 7.0]), 7.0);
        assert_eq!((median([]), ratio(1.0, 0.0)), (0.0, 0.0));
    }

    /// Broken: quantiles are off by more than the histogram's three digits, or in another unit.
    #[test]
    fn quantiles_are_in_milliseconds_and_exact_to_three_digits() {
        let mut all = latencies().unwrap();
        for micros in 1..=100_000 {
            record(&mut all, micros);
        }
        let quantiles = Quantiles::of(&all);
        assert_eq!(quantiles.samples, 100_000);
        for (value, wanted) in
            [(quantiles.p50_ms, 50.0), (quantiles.p99_ms, 99.0), (quantiles.p999_ms, 99.9), (quantiles.max_ms, 100.0)]
        {
            assert!((value - wanted).abs() / wanted < 0.002, "{value} is not {wanted}");
        }
        record(&mut all, u64::MAX);
        assert!(Quantiles::of(&all).max_ms > 500_000.0);
    }

    /// Broken: a difference within the noise is reported as one, or one beyond it as noise.
    #[test]
    fn a_relation_says_how_far_it_may_be_off() {
        let near = |a: f64, b: f64| (a - b).abs() < 0.001;
        let (mean, from, to) = relation([0.8, 1.25]);
        assert!(near(mean, 1.0) && from < 0.1 && to > 10.0, "{mean} {from} {to}");
        // ln: mean 0, deviation 0.1 * sqrt(10 / 9), over sqrt(10), times 2.262
        let turns = [(-0.1f64).exp(), 0.1f64.exp()].repeat(5);
        let (mean, from, to) = relation(turns);
        assert!(near(mean, 1.0) && near(from, (-0.0754f64).exp()) && near(to, 0.0754f64.exp()), "{mean} {from} {to}");
        assert_eq!(relation([2.0]), (2.0, 0.0, f64::INFINITY));
        assert_eq!(relation([0.0, f64::NAN]), (0.0, 0.0, f64::INFINITY));
        for (freedom, of) in [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.0)] {
            assert!((student(freedom) - of).abs() < 0.01, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn quantiles_of_runs_are_taken_one_by_one() {
        let run = |p50_ms, p99_ms| Quantiles { samples: 10, p50_ms, p99_ms, ..Quantiles::default() };
        let middle = Quantiles::median(&[run(1.0, 30.0), run(2.0, 10.0), run(3.0, 20.0)]);
        assert_eq!((middle.p50_ms, middle.p99_ms, middle.samples), (2.0, 20.0, 10));
    }
}
