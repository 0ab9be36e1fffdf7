//! The bench's side of the receiving process: starts it, asks it what arrived.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::process::Process;
use super::receiver::Arrivals;
use super::wire::Wire;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The running receiver.
pub struct Receiver {
    process: Process,
    address: SocketAddr,
}

/// Asks the receiver; can be sent to a task.
#[derive(Clone, Copy)]
pub struct Reader(SocketAddr);

impl Receiver {
    /// # Errors
    /// It does not start.
    pub fn start(bind: SocketAddr, threads: usize) -> anyhow::Result<Self> {
        let (bind, threads) = (bind.to_string(), threads.to_string());
        let args = ["bench-receiver", "--bind", &bind, "--threads", &threads];
        let mut process = Process::start("receiver", &args, &[], Path::new("."))?;
        let address = process.wait_line(START_TIMEOUT, |line| line.trim().parse().ok())?;
        Ok(Self { process, address })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn reader(&self) -> Reader {
        Reader(self.address)
    }

    /// What arrived at paths that begin with `prefix`, with latencies.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn stats(&self, prefix: &str) -> anyhow::Result<Arrivals> {
        self.reader().ask("stats", prefix).await
    }

    /// The same without latencies, which is cheap.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn count(&self, prefix: &str) -> anyhow::Result<Arrivals> {
        self.reader().count(prefix).await
    }

    /// Forgets what arrived at paths that begin with `prefix`.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn clear(&self, prefix: &str) -> anyhow::Result<()> {
        self.reader().ask::<serde::de::IgnoredAny>("clear", prefix).await.map(drop)
    }
}

impl Reader {
    /// # Errors
    /// The receiver is gone.
    pub async fn count(&self, prefix: &str) -> anyhow::Result<Arrivals> {
        self.ask("count", prefix).await
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, prefix: &str) -> anyhow::Result<T> {
        let request = format!("GET /{what}?{prefix} HTTP/1.1\r\nhost: {}\r\n\r\n", self.0);
        let exchange = async {
            let mut wire = Wire::connect(self.0).await?;
            let answered = wire.exchange(request.as_bytes()).await?;
            if answered.status != 200 {
                bail!("the receiver answered {}", answered.status);
            }
            Ok(serde_json::from_slice(&wire.body(&answered))?)
        };
        timeout(ASK_TIMEOUT, exchange).await.context("the receiver does not answer")?
    }
}
