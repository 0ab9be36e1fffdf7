//! The allocator of the whole program, C code included, and the one thing it is told. All of `unsafe` is here (docs/adr/0015).

use std::ffi::{c_int, c_long};
use std::time::Duration;

use mimalloc::MiMalloc;

/// Many small allocations live and die on different threads (a message comes in on one and leaves on another): the system's
/// allocator costs an eighth of the throughput there.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Memory that has been free for this long goes back to the system. By default it does after a second, also from under a steady load,
/// and is then cleared page by page as it is touched again: a tenth of the throughput, and huge pages of which one takes up to 10 ms.
const KEPT: Duration = Duration::from_secs(10);

/// `mi_option_purge_delay` of mimalloc 3: milliseconds.
const PURGE_DELAY: c_int = 15;

#[allow(unsafe_code, reason = "functions of mimalloc that take and give numbers, and are safe to call with any")]
mod ffi {
    use super::{c_int, c_long};

    // SAFETY: declared as in `mimalloc.h`, which the crate `mimalloc` compiles and links. They look at a table of options, with a check of
    // the bounds; the write is meant to come before there are other threads, and a plain number anyway.
    unsafe extern "C" {
        #[cfg(test)]
        pub safe fn mi_option_get(option: c_int) -> c_long;
        pub safe fn mi_option_set_default(option: c_int, value: c_long);
    }
}

/// Keeps free memory for [`KEPT`], unless the environment says otherwise (`MIMALLOC_PURGE_DELAY`). To be called first of all.
pub fn configure() {
    if let Ok(ms) = c_long::try_from(KEPT.as_millis()) {
        ffi::mi_option_set_default(PURGE_DELAY, ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_kept_for_a_while() {
        // Another version of mimalloc may number its options otherwise: this one's default is a second.
        assert_eq!(ffi::mi_option_get(PURGE_DELAY), 1_000);
        configure();
        assert_eq!(ffi::mi_option_get(PURGE_DELAY), 10_000);
    }
}
