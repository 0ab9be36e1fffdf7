//! Target about what other nodes send: a peer holds the key, but may be of another build.

use bellwire_engine::link::fuzzing;

use crate::feature;

pub fn frames() -> Vec<Vec<u8>> {
    fuzzing::frames()
}

pub fn link(bytes: &[u8]) -> u64 {
    feature(&fuzzing::frame(bytes))
}
