//! The clock a lease is counted on: it goes on while the whole system is suspended, as the other nodes' clocks do. A node that
//! wakes up on one that stood still would take itself for alive.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// From the system's start, sleep included.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
/// Elsewhere the monotonic clock is the best there is everywhere; on some systems it counts sleep as well.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

#[derive(Debug)]
pub struct LeaseClock {
    started: Duration,
}

impl LeaseClock {
    pub fn start() -> Self {
        Self { started: read() }
    }

    /// Since its start.
    pub fn now(&self) -> Duration {
        read().saturating_sub(self.started)
    }
}

fn read() -> Duration {
    let time = clock_gettime(CLOCK);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_the_seconds_of_this_machine_from_its_start() {
        let clock = LeaseClock::start();
        let other = std::time::Instant::now();
        assert!(clock.now() < Duration::from_secs(1));
        while other.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        assert!(clock.now() >= Duration::from_millis(20));
    }
}
