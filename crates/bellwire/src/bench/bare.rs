//! R, the physical reference: bare signed POSTs to the bench receiver over keep-alive connections. What a delivery costs when
//! nothing else is done: one signature, one request, one answer.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bellwire_verify::{Secret, Signer};

use super::load::{ClosedLoop, MakeRequest, Progress};
use super::payload::{Stamped, now_nanos};

/// As in the phases that are compared with it.
pub const IN_FLIGHT: usize = 64;

struct SignedPost {
    signer: Arc<Signer>,
    payload: Stamped,
    head: String,
    signature: String,
    request: Vec<u8>,
}

impl MakeRequest for SignedPost {
    fn make(&mut self, sequence: u64) -> &[u8] {
        let now = now_nanos();
        let timestamp_s = now / 1_000_000_000;
        let payload = self.payload.stamp(now, sequence);
        // As long as a real id: prefix and 27 characters.
        let mut id = [b'0'; 31];
        let _ = write!(&mut id[..], "msg_{sequence:027}");
        let id = std::str::from_utf8(&id).unwrap_or("msg_");
        self.signature.clear();
        self.signer.sign_into(&mut self.signature, id, timestamp_s, payload);
        self.request.clear();
        // Writing to a Vec cannot fail.
        let _ = write!(
            self.request,
            "{}webhook-id: {id}\r\nwebhook-timestamp: {timestamp_s}\r\nwebhook-signature: {}\r\ncontent-length: {}\r\n\r\n",
            self.head,
            self.signature,
            payload.len()
        );
        self.request.extend_from_slice(payload);
        &self.request
    }
}

/// Signed POSTs per second. `path` must be new for each measurement.
///
/// # Errors
/// The receiver failed.
pub async fn measure(receiver: SocketAddr, path: &str, duration: Duration, threads: usize) -> anyhow::Result<f64> {
    let secret = Secret::generate([0x5a; 32]);
    let signer = Arc::new(Signer::hmac(&secret));
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: {receiver}\r\nuser-agent: Bellwire-bench\r\ncontent-type: application/json\r\n");
    let load = ClosedLoop { in_flight: IN_FLIGHT, duration, threads };
    let loaded = load
        .run(&Arc::new(Progress::default()), |_| {
            let post = SignedPost {
                signer: Arc::clone(&signer),
                payload: Stamped::payload(),
                head: head.clone(),
                signature: String::new(),
                request: Vec::new(),
            };
            (receiver, Box::new(post))
        })
        .await?;
    Ok(loaded.acknowledged as f64 / loaded.elapsed.as_secs_f64())
}
