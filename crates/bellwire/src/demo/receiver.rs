//! The demo's receiver: verifies what comes, answers by the endpoint's character, and keeps account of what is still to come.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bellwire_core::{Clock as _, SystemClock};
use bellwire_verify::{Key, SignedHeaders, TOLERANCE_SECONDS, Verifier, verify};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::view::View;
use crate::receiver::{Answer, Incoming, Reply, serve_connection};
use crate::terminal::thousands;

/// Messages remembered by their number of attempts; beyond it the account starts anew.
const REMEMBERED_MAX: usize = 10_000;
/// Of the messages that reach the failing endpoint, every third is answered 503 this many times.
const FAILURES: u32 = 2;

/// One endpoint of the demo.
pub struct DemoEndpoint {
    /// Uid, and path at the receiver.
    pub name: &'static str,
    pub about: &'static str,
    /// Only these messages.
    pub event_type: Option<&'static str>,
}

pub const ENDPOINTS: &[DemoEndpoint] = &[
    DemoEndpoint { name: "healthy", about: "answers 200 at once", event_type: None },
    DemoEndpoint { name: "flaky", about: "answers 503 now and then, and recovers: watch the retries", event_type: None },
    DemoEndpoint { name: "filtered", about: "wants invoice.paid only", event_type: Some("invoice.paid") },
];

/// What was published, and what has arrived of it.
#[derive(Default)]
pub struct Ledger {
    pub view: View,
    inner: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    keys: HashMap<&'static str, Verifier>,
    /// (endpoint, message) → attempts seen.
    attempts: HashMap<(&'static str, String), u32>,
    /// (endpoint, message) → deliveries expected minus deliveries seen. A delivery may be seen before its publisher has its
    /// answer, so this can be negative for a moment.
    open: HashMap<(&'static str, String), i32>,
    flaky_messages: u64,
    /// (message) → 503s still to be answered by the failing endpoint.
    failing: HashMap<String, u32>,
    published: u64,
    delivered: u64,
    attempted: u64,
    retried: u64,
}

impl Ledger {
    /// Learns the key by which an endpoint's deliveries are verified.
    ///
    /// # Errors
    /// It is no key.
    pub fn learn_key(&self, endpoint: &'static str, key: &str) -> anyhow::Result<()> {
        self.inner.lock().keys.insert(endpoint, Key::parse(key)?.verifier());
        Ok(())
    }

    /// Notes what must now arrive.
    pub fn published(&self, message: &str, event_type: &str) {
        let mut accounts = self.inner.lock();
        accounts.published += 1;
        for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.event_type.is_none_or(|wanted| wanted == event_type)) {
            accounts.settle((endpoint.name, message.to_owned()), 1);
        }
    }

    /// Deliveries that were published and have not arrived.
    pub fn outstanding(&self) -> usize {
        self.inner.lock().open.values().filter(|count| **count > 0).count()
    }

    /// The end of the story.
    pub fn summary(&self) -> String {
        let outstanding = self.outstanding();
        let accounts = self.inner.lock();
        let end = match outstanding {
            0 => "Everything was delivered.".to_owned(),
            rest => format!("{rest} deliveries were still to come."),
        };
        format!(
            "{} messages published, {} deliveries made in {} attempts ({} of them retries). {end}",
            thousands(accounts.published),
            thousands(accounts.delivered),
            thousands(accounts.attempted),
            thousands(accounts.retried)
        )
    }

    fn receive(&self, request: &Incoming<'_>) -> Reply {
        let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| request.path.strip_prefix('/') == Some(endpoint.name)) else {
            return Reply::Status(404);
        };
        let id = request.header("webhook-id").or_else(|| request.header("svix-id")).unwrap_or("?").to_owned();
        let mut accounts = self.inner.lock();
        let is_genuine = accounts.is_genuine(endpoint.name, request);
        let attempt = accounts.count_attempt((endpoint.name, id.clone()));
        let status = match (is_genuine, endpoint.name == "flaky" && accounts.fails(&id, attempt)) {
            (false, _) => 401,
            (true, true) => 503,
            (true, false) => 200,
        };
        if status == 200 {
            accounts.delivered += 1;
            accounts.settle((endpoint.name, id.clone()), -1);
        }
        drop(accounts);
        // A terminal that is gone does not stop deliveries.
        drop(self.view.delivered(endpoint.name, &id, attempt, status, is_genuine));
        if status == 200 { Reply::Ok } else { Reply::Status(status) }
    }
}

impl Accounts {
    fn is_genuine(&self, endpoint: &str, request: &Incoming<'_>) -> bool {
        let header = |name: &str| request.header(&format!("webhook-{name}")).or_else(|| request.header(&format!("svix-{name}")));
        let headers = SignedHeaders { id: header("id"), timestamp: header("timestamp"), signature: header("signature") };
        let now_s = u64::try_from(SystemClock.now().as_unix_seconds()).unwrap_or(0);
        let Some(verifier) = self.keys.get(endpoint) else { return false };
        verify(&headers, request.body, std::slice::from_ref(verifier), now_s, TOLERANCE_SECONDS).is_ok()
    }

    fn count_attempt(&mut self, delivery: (&'static str, String)) -> u32 {
        if self.attempts.len() >= REMEMBERED_MAX {
            self.attempts.clear();
        }
        self.attempted += 1;
        let attempt = self.attempts.entry(delivery).or_insert(0);
        *attempt += 1;
        self.retried += u64::from(*attempt > 1);
        *attempt
    }

    /// Whether the failing endpoint fails this attempt.
    fn fails(&mut self, message: &str, attempt: u32) -> bool {
        if attempt == 1 {
            self.flaky_messages += 1;
            if self.flaky_messages % 3 == 1 {
                self.failing.insert(message.to_owned(), FAILURES);
            }
        }
        match self.failing.get_mut(message) {
            Some(0) | None => {
                self.failing.remove(message);
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn settle(&mut self, delivery: (&'static str, String), change: i32) {
        if self.open.len() >= REMEMBERED_MAX {
            // Messages that others published are never settled.
            self.open.retain(|_, count| *count > 0);
        }
        let count = self.open.entry(delivery.clone()).or_insert(0);
        *count += change;
        if *count == 0 {
            self.open.remove(&delivery);
        }
    }
}

struct Connection(Arc<Ledger>);

impl Answer for Connection {
    fn answer(&mut self, request: &Incoming<'_>) -> Reply {
        self.0.receive(request)
    }
}

/// Starts receiving on a free port of the loopback interface.
///
/// # Errors
/// There is none.
pub async fn start(ledger: Arc<Ledger>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = Connection(Arc::clone(&ledger));
            // A broken connection is tried again by the sender.
            tokio::spawn(async move { drop(serve_connection(stream, connection).await) });
        }
    });
    Ok(address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: the demo says that everything was delivered when it was not.
    #[test]
    fn a_delivery_is_open_until_it_is_seen_whichever_comes_first() {
        let ledger = Ledger::default();
        ledger.published("msg_1", "invoice.paid");
        assert_eq!(ledger.outstanding(), 3);
        ledger.inner.lock().settle(("healthy", "msg_1".into()), -1);
        assert_eq!(ledger.outstanding(), 2);
        for endpoint in ["healthy", "flaky"] {
            ledger.inner.lock().settle((endpoint, "msg_2".into()), -1);
        }
        ledger.published("msg_2", "github.push");
        assert_eq!(ledger.outstanding(), 2);
    }

    /// Broken: the failing endpoint never recovers, or never fails.
    #[test]
    fn every_third_message_fails_twice_and_then_arrives() {
        let mut accounts = Accounts::default();
        let first: Vec<bool> = (1..=4).map(|attempt| accounts.fails("a", attempt)).collect();
        assert_eq!(first, [true, true, false, false]);
        assert!(!accounts.fails("b", 1) && !accounts.fails("c", 1) && accounts.fails("d", 1));
    }
}
