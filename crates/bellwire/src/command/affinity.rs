//! Where the threads that serve run. On two processors each gets its own: Linux looks for an idle processor to wake a thread on only while
//! they are half idle, and leaves a thread that ran a moment ago where it is. Seen with `perf sched`: one of two processors idle for 40 % of the
//! time while threads that could run waited for the other (docs/adr/0013).
//!
//! Not with more processors, where it looks; and not beside a database, whose processes want to run where these threads are.

use tokio::runtime::Builder;

/// So many threads have a processor each, if there are as many.
#[cfg(target_os = "linux")]
const PROCESSORS: usize = 2;

/// Gives each worker of a runtime with one for each processor its own, where that is worth it.
#[cfg(target_os = "linux")]
pub fn spread(runtime: &mut Builder) {
    // With a quota of less than two processors there is one worker, wherever it may run.
    let has_both = std::thread::available_parallelism().is_ok_and(|workers| workers.get() == PROCESSORS);
    match rustix::thread::sched_getaffinity(None) {
        Ok(allowed) if has_both && allowed.count() as usize == PROCESSORS => pin(runtime, allowed),
        _ => {}
    }
}

#[cfg(not(target_os = "linux"))]
pub fn spread(_: &mut Builder) {}

/// One worker for each allowed processor.
#[cfg(target_os = "linux")]
fn pin(runtime: &mut Builder, allowed: rustix::thread::CpuSet) {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::thread::{CpuSet, sched_setaffinity};

    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect();
    let started = AtomicUsize::new(0);
    runtime.worker_threads(processors.len());
    // The runtime starts its workers first. Later threads are for what blocks; whoever starts one of those hands on his own place.
    runtime.on_thread_start(move || {
        let place = processors.get(started.fetch_add(1, Ordering::Relaxed)).map_or(allowed, |processor| {
            let mut own = CpuSet::new();
            own.set(*processor);
            own
        });
        if let Err(error) = sched_setaffinity(None, &place) {
            tracing::debug!(%error, "a thread runs where the system puts it");
        }
    });
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Barrier};

    use rustix::thread::{CpuSet, sched_getaffinity};

    use super::*;

    fn places() -> Vec<usize> {
        let allowed = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect()
    }

    /// Broken: workers share a processor, or what blocks, and what it starts, is kept on one.
    #[test]
    fn each_worker_has_its_own_processor_and_what_blocks_may_run_anywhere() {
        let all = places();
        let mut runtime = Builder::new_multi_thread();
        pin(&mut runtime, sched_getaffinity(None).unwrap());
        let runtime = runtime.build().unwrap();
        // As many tasks as workers, each of which waits for the others on its own.
        let together = Arc::new(Barrier::new(all.len()));
        let tasks: Vec<_> = all
            .iter()
            .map(|_| {
                let together = together.clone();
                runtime.spawn(async move {
                    together.wait();
                    let own = places();
                    let blocking = tokio::task::spawn_blocking(places).await.unwrap();
                    (own, blocking)
                })
            })
            .collect();
        let mut taken = BTreeSet::new();
        for task in tasks {
            let (own, blocking) = runtime.block_on(task).unwrap();
            assert_eq!(own.len(), 1);
            taken.extend(own);
            assert_eq!(blocking, all);
        }
        assert_eq!(taken.into_iter().collect::<Vec<_>>(), all);
    }
}
