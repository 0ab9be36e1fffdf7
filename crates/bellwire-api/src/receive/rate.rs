//! Requests a second, source by source, on this node: what is above a source's limit is told when to come again.

use std::sync::Arc;

use bellwire_core::{SourceId, limits};
use http::StatusCode;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::{Refused, Stop, Visit};

/// A bucket that holds one second's worth.
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// The buckets of the sources that have a limit.
pub struct Buckets(Cache<SourceId, Arc<Mutex<Bucket>>>);

impl Buckets {
    pub fn new() -> Self {
        Self(Cache::new(limits::SOURCES_CACHED))
    }

    /// Takes one request's place.
    pub fn take(&self, visit: &Visit<'_>) -> Result<(), Stop> {
        let Some(rate) = visit.ready.source.settings.rate_limit.filter(|rate| *rate > 0) else { return Ok(()) };
        if self.has_place(visit.id(), f64::from(rate), Instant::now()) {
            return Ok(());
        }
        let detail = format!("more than {rate} requests a second (rateLimit)");
        let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit", detail);
        Err(Refused { retry_after: Some(1), is_cut: false, ..refused }.into())
    }

    pub fn has_place(&self, source: SourceId, rate: f64, now: Instant) -> bool {
        let bucket = match self.0.get(&source) {
            Some(bucket) => bucket,
            None => {
                let fresh = Arc::new(Mutex::new(Bucket { tokens: rate, at: now }));
                let inserted = self.0.get_or_insert_with(&source, || Ok::<_, std::convert::Infallible>(fresh.clone()));
                inserted.unwrap_or(fresh)
            }
        };
        let mut bucket = bucket.lock();
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
        bucket.tokens = (bucket.tokens + gained).min(rate.max(1.0));
        bucket.at = now;
        let has_place = bucket.tokens >= 1.0;
        if has_place {
            bucket.tokens -= 1.0;
        }
        has_place
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bellwire_core::IdKind;

    use super::*;

    /// Broken: a source's limit lets a flood through, or never opens again, or one source's flood closes another.
    #[test]
    fn a_second_gives_as_many_places_as_the_limit_says() {
        let (buckets, start) = (Buckets::new(), Instant::now());
        let (one, other) = (SourceId::from_bytes([1; 20]), SourceId::from_bytes([2; 20]));
        let count = |source, at| (0..100).filter(|_| buckets.has_place(source, 10.0, at)).count();
        assert_eq!(count(one, start), 10);
        assert_eq!(count(other, start), 10);
        assert_eq!(count(one, start + Duration::from_millis(500)), 5);
        assert_eq!(count(one, start + Duration::from_secs(3_600)), 10, "what was not used is saved up");
    }
}
