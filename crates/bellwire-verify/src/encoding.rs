//! The text forms of signatures. Decoding is strict: one text for one value, so that nothing malformed reaches a comparison.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Upper-case hexadecimal.
    HexUpper,
    /// Hexadecimal of either case, for providers whose libraries decode before they compare.
    HexAny,
    /// Base64 with padding.
    Base64,
    /// The URL-safe alphabet without padding.
    Base64url,
    /// Base64 of the lower-case hexadecimal text.
    Base64Hex,
}

impl Encoding {
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => from_hex(text).filter(|_| !text.bytes().any(|c| c.is_ascii_uppercase())),
            Self::HexUpper => from_hex(text).filter(|_| !text.bytes().any(|c| c.is_ascii_lowercase())),
            Self::HexAny => from_hex(text),
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64url => URL_SAFE_NO_PAD.decode(text).ok(),
            Self::Base64Hex => Self::Hex.decode(std::str::from_utf8(&STANDARD.decode(text).ok()?).ok()?),
        }
    }

    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex | Self::HexAny => to_hex(bytes),
            Self::HexUpper => to_hex(bytes).to_ascii_uppercase(),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64url => URL_SAFE_NO_PAD.encode(bytes),
            Self::Base64Hex => STANDARD.encode(to_hex(bytes)),
        }
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Larger than every digit, and so is what it is combined with.
const NO_DIGIT: u8 = 0x80;

/// What each byte stands for as a hexadecimal digit.
const fn values() -> [u8; 256] {
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    // A table: digits and letters alternate at random, and a branch between them is guessed wrong half of the time.
    const VALUES: [u8; 256] = values();
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 2);
    for pair in bytes.chunks_exact(2) {
        let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
        if high | low >= NO_DIGIT {
            return None;
        }
        out.push(high << 4 | low);
    }
    Some(out)
}

/// The text between percent signs and plus signs, as forms have it; `None` when it is not UTF-8 or an escape is broken.
pub(crate) fn percent_decode(text: &str, is_plus_space: bool) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let pair = text.get(at + 1..at + 3)?;
                out.extend(from_hex(pair)?);
                at += 3;
                continue;
            }
            b'+' if is_plus_space => out.push(b' '),
            c => out.push(c),
        }
        at += 1;
    }
    String::from_utf8(out).ok()
}

/// Everything but unreserved characters as `%XX`.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&to_hex(&[byte]).to_ascii_uppercase());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: a second spelling of a signature is taken, or decoding panics on odd text.
    #[test]
    fn every_encoding_has_one_spelling_and_comes_back() {
        use Encoding::*;
        let bytes: Vec<u8> = (0..=255).collect();
        for encoding in [Hex, HexUpper, HexAny, Base64, Base64url, Base64Hex] {
            assert_eq!(encoding.decode(&encoding.encode(&bytes)).as_deref(), Some(bytes.as_slice()), "{encoding:?}");
        }
        assert_eq!(Hex.decode("AB"), None);
        assert_eq!(HexUpper.decode("ab"), None);
        assert_eq!(HexAny.decode("aB"), Some(vec![0xab]));
        for odd in ["", "a", "+1", "0x", "é0", "a é"] {
            assert_eq!(HexAny.decode(odd), None, "{odd}");
        }
        for c in (0..=255).map(char::from) {
            let value = c.to_digit(16).map(|value| vec![(value << 4 | value) as u8]);
            assert_eq!(HexAny.decode(&format!("{c}{c}")), value, "{c:?}");
        }
        assert_eq!(Base64.decode("AA"), None, "padding is not optional");
        assert_eq!(Base64.decode("AB=="), None, "stray bits would be a second spelling");
    }

    /// Broken: a form with a broken escape is read as something else than the provider signed.
    #[test]
    fn broken_escapes_are_refused() {
        assert_eq!(percent_decode("a+b%20%C3%A9", true).as_deref(), Some("a b é"));
        assert_eq!(percent_decode("a+b", false).as_deref(), Some("a+b"));
        for broken in ["%", "%2", "%zz", "%+1", "%ff", "%é"] {
            assert_eq!(percent_decode(broken, true), None, "{broken}");
        }
    }
}
