//! Randomness: the operating system's for secrets; a quick generator seeded from it for id tails and jitter, which need to be
//! spread, not secret.

use std::cell::Cell;

/// Bytes for keys and tokens. A process that cannot get randomness must not go on.
pub fn secret_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::error!("the system's random generator failed; stopping");
        std::process::abort();
    }
    bytes
}

thread_local! {
    static STATE: Cell<[u64; 2]> = const { Cell::new([0, 0]) };
}

/// xoroshiro128+ (Blackman and Vigna, 2018), one state a thread.
pub fn quick_u64() -> u64 {
    STATE.with(|state| {
        let [mut a, mut b] = state.get();
        if a == 0 && b == 0 {
            let seed: [u8; 16] = secret_bytes();
            let (high, low) = seed.split_at(8);
            let word = |half: &[u8]| half.iter().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
            (a, b) = (word(high) | 1, word(low));
        }
        let result = a.wrapping_add(b);
        let mixed = a ^ b;
        state.set([a.rotate_left(24) ^ mixed ^ (mixed << 16), mixed.rotate_left(37)]);
        result
    })
}

/// The random tail of an id.
pub fn id_tail() -> [u8; 12] {
    let mut tail = [0; 12];
    tail[..8].copy_from_slice(&quick_u64().to_be_bytes());
    tail[8..].copy_from_slice(&quick_u64().to_be_bytes()[..4]);
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_tails_differ() {
        let tails: std::collections::HashSet<_> = (0..1_000).map(|_| id_tail()).collect();
        assert_eq!(tails.len(), 1_000);
    }
}
