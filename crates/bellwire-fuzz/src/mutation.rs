//! Changing inputs at random, always in the same way for the same seed.

/// Longest input that is tried.
const BYTES_MAX: usize = 64 * 1024;
/// Texts that parsers trip over.
const TOKENS: [&[u8]; 40] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"=",
    b",",
    b";",
    b":",
    b".",
    b"..",
    b"|",
    b" ",
    b"%",
    b"%00",
    b"%zz",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775808",
    b"0",
    b"t=",
    b"v1=",
    b"v1,",
    b"sha256=",
    b"--x\r\n",
    b"<",
    b"</a>",
    b"<!DOCTYPE x [<!ENTITY a \"b\">]>",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"\xe2\x80\xae",
];

/// A small generator of pseudo-random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() % u64::try_from(end.max(1)).unwrap_or(u64::MAX)).unwrap_or_default()
    }

    /// A range within `length` bytes, short ones more often.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = 1 << self.below(10);
        start..(start + self.below(most)).min(length)
    }
}

/// A changed copy of `input`; pieces of `other` may get into it.
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut data = input.to_vec();
    for _ in 0..1 + random.below(4) {
        change(random, &mut data, other);
        data.truncate(BYTES_MAX);
    }
    data
}

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let length = data.len();
    match random.below(10) {
        0 if length > 0 => data[random.below(length)] ^= 1 << random.below(8),
        1 if length > 0 => data[random.below(length)] = random.draw().to_le_bytes()[0],
        2 => drop(data.drain(random.range(length))),
        3 => data.truncate(random.below(length + 1)),
        4 => {
            let piece = data[random.range(length)].to_vec();
            let (at, times) = (random.below(length + 1), 1 << random.below(8));
            data.splice(at..at, piece.repeat(times).into_iter().take(BYTES_MAX));
        }
        5 => {
            let (piece, place) = (other[random.range(other.len())].to_vec(), random.range(length));
            data.splice(place, piece);
        }
        6 => {
            // The end of another input behind the start of this one.
            let (at, from) = (random.below(length + 1), random.below(other.len() + 1));
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
        7 => {
            // Whole lines change their places, so that headers come twice or not at all.
            let mut lines: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let (from, to) = (random.below(lines.len()), random.below(lines.len()));
            let line = lines[from].clone();
            if random.below(2) == 0 {
                lines.insert(to, line)
            } else {
                lines[to] = line
            }
            *data = lines.join(&b'\n');
        }
        _ => {
            let token = TOKENS[random.below(TOKENS.len())];
            let place = random.range(length);
            let place = if random.below(2) == 0 { place.start..place.start } else { place };
            data.splice(place, token.iter().copied());
        }
    }
}
