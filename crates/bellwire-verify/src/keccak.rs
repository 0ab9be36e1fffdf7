//! Keccak-256 as Ethereum has it: SHA-3's permutation with the padding from before it was a standard, which no library here offers.

const RATE_BYTES: usize = 136;
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];
const ROTATIONS: [u32; 24] = [1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44];
const LANES: [usize; 24] = [10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1];

pub(crate) fn keccak256(message: &[u8]) -> [u8; 32] {
    let mut state = [0u64; 25];
    let mut blocks = message.chunks_exact(RATE_BYTES);
    for block in &mut blocks {
        absorb(&mut state, block);
    }
    let mut last = [0u8; RATE_BYTES];
    let rest = blocks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] ^= 0x01;
    last[RATE_BYTES - 1] ^= 0x80;
    absorb(&mut state, &last);

    let mut out = [0u8; 32];
    for (bytes, lane) in out.chunks_exact_mut(8).zip(state) {
        bytes.copy_from_slice(&lane.to_le_bytes());
    }
    out
}

fn absorb(state: &mut [u64; 25], block: &[u8]) {
    for (lane, bytes) in state.iter_mut().zip(block.chunks_exact(8)) {
        *lane ^= bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    }
    for round in ROUNDS {
        permute(state, round);
    }
}

fn permute(state: &mut [u64; 25], round: u64) {
    let mut parity = [0u64; 5];
    for x in 0..5 {
        parity[x] = (0..5).fold(0, |value, y| value ^ state[x + 5 * y]);
    }
    for x in 0..5 {
        let mixed = parity[(x + 4) % 5] ^ parity[(x + 1) % 5].rotate_left(1);
        for y in 0..5 {
            state[x + 5 * y] ^= mixed;
        }
    }
    let mut carried = state[1];
    for (lane, rotation) in LANES.into_iter().zip(ROTATIONS) {
        let next = state[lane];
        state[lane] = carried.rotate_left(rotation);
        carried = next;
    }
    for row in state.chunks_exact_mut(5) {
        let before = [row[0], row[1], row[2], row[3], row[4]];
        for x in 0..5 {
            row[x] = before[x] ^ (!before[(x + 1) % 5] & before[(x + 2) % 5]);
        }
    }
    state[0] ^= round;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::to_hex;

    /// Broken: every genuine request that is signed with Keccak-256 is refused.
    #[test]
    fn digests_equal_the_published_ones() {
        let empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        let abc = "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45";
        assert_eq!(to_hex(&keccak256(b"")), empty);
        assert_eq!(to_hex(&keccak256(b"abc")), abc);
        // Around the block's border, each message must have its own digest.
        let digests: std::collections::BTreeSet<_> = (130..280).map(|length| keccak256(&vec![7; length])).collect();
        assert_eq!(digests.len(), 150);
    }
}
