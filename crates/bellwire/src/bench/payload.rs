//! The message that the bench sends: about 630 bytes of JSON with a stamp in it, by which the receiver knows when it was sent
//! and whether it has seen it before.

use std::time::{SystemTime, UNIX_EPOCH};

/// Size of the delivered payload.
pub const PAYLOAD_BYTES: usize = 630;
const NANOS_DIGITS: usize = 19;
const SEQUENCE_DIGITS: usize = 10;
const STAMP_BYTES: usize = NANOS_DIGITS + 1 + SEQUENCE_DIGITS;
const MARKER: &[u8] = b"\"bench\":";

const TEXT: &str = r#"{"bench":"0000000000000000000-0000000000","type":"invoice.paid","data":{"id":"in_1PgafmB7WZ01zgkWDoW7","object":"invoice","amount_due":129900,"amount_paid":129900,"currency":"eur","customer":"cus_QXg1o8vcGmoR32","customer_email":"jenny.rosen@example.com","billing_reason":"subscription_cycle","status":"paid","lines":[{"id":"il_1PgafmB7WZ01zgkW6dKueIc5","amount":99900,"description":"Team plan, 12 seats","quantity":12},{"id":"il_1PgafmB7WZ01zgkW8sSdhcs1","amount":30000,"description":"Priority support","quantity":1}],"period_end":1763683200,"note":""#;

/// Nanoseconds since 1970. Sender and receiver are on one machine, so that their clocks are one.
// The core's clock counts milliseconds; what is measured here is a fraction of one.
#[allow(clippy::disallowed_methods)]
pub fn now_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Bytes in which the stamp is rewritten in place for every request.
#[derive(Clone, Debug)]
pub struct Stamped {
    bytes: Vec<u8>,
    at: usize,
}

impl Stamped {
    /// The payload alone.
    pub fn payload() -> Self {
        let fill = PAYLOAD_BYTES - TEXT.len() - "\"}}".len();
        Self::find(format!("{TEXT}{}\"}}}}", "x".repeat(fill)).into_bytes())
    }

    /// `prefix` + payload + `suffix`.
    pub fn wrapped(prefix: &str, suffix: &str) -> Self {
        let mut bytes = prefix.as_bytes().to_vec();
        bytes.extend_from_slice(&Self::payload().bytes);
        bytes.extend_from_slice(suffix.as_bytes());
        Self::find(bytes)
    }

    fn find(bytes: Vec<u8>) -> Self {
        let at = bytes.windows(MARKER.len()).position(|part| part == MARKER).unwrap_or(0) + MARKER.len() + 1;
        Self { bytes, at }
    }

    /// Writes the stamp and returns the bytes.
    pub fn stamp(&mut self, sent_nanos: u64, sequence: u64) -> &[u8] {
        let field = &mut self.bytes[self.at..self.at + STAMP_BYTES];
        write_digits(&mut field[..NANOS_DIGITS], sent_nanos);
        write_digits(&mut field[NANOS_DIGITS + 1..], sequence);
        &self.bytes
    }
}

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sent_nanos: u64,
    pub sequence: u64,
}

/// Finds the stamp in a delivered payload, also when a server has written the JSON anew. `hint`: where it stood last time.
pub fn read_stamp(body: &[u8], hint: &mut usize) -> Option<Stamp> {
    if body.get(*hint..*hint + MARKER.len()) != Some(MARKER) {
        *hint = body.windows(MARKER.len()).position(|part| part == MARKER)?;
    }
    let rest = body.get(*hint + MARKER.len()..)?.trim_ascii_start();
    let field = rest.strip_prefix(b"\"")?.get(..STAMP_BYTES)?;
    Some(Stamp { sent_nanos: read_digits(&field[..NANOS_DIGITS])?, sequence: read_digits(&field[NANOS_DIGITS + 1..])? })
}

/// Decimal, with leading zeros, as wide as `field`.
pub fn write_digits(field: &mut [u8], mut number: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn read_digits(field: &[u8]) -> Option<u64> {
    field.iter().try_fold(0u64, |value, digit| {
        digit.is_ascii_digit().then(|| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: latencies are computed from a stamp that was misread, or the payload is not JSON of the promised size.
    #[test]
    fn the_stamp_reads_back_from_valid_json_of_the_promised_size() {
        let mut payload = Stamped::payload();
        let bytes = payload.stamp(1_763_700_000_123_456_789, 42).to_vec();
        assert_eq!(bytes.len(), PAYLOAD_BYTES);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let stamp = Some(Stamp { sent_nanos: 1_763_700_000_123_456_789, sequence: 42 });
        let mut hint = 0;
        assert_eq!(read_stamp(&bytes, &mut hint), stamp);
        assert_eq!(read_stamp(&serde_json::to_vec_pretty(&value).unwrap(), &mut hint), stamp);
        assert_eq!(read_stamp(b"{}", &mut hint), None);

        let mut wrapped = Stamped::wrapped("{\"payload\":", "}");
        assert_eq!(read_stamp(wrapped.stamp(7, 9), &mut hint), Some(Stamp { sent_nanos: 7, sequence: 9 }));
    }
}
