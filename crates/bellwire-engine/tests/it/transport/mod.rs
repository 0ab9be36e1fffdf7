//! The delivery client over real sockets, against receivers, resolvers, proxies and certificates that misbehave on purpose.

mod egress;
mod fault;
mod keep_alive;
mod proxy;
mod resolve;
mod tls;

use std::collections::VecDeque;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bellwire_core::egress::EgressPolicy;
use bellwire_engine::transport::{Answers, Client, ClientOptions, Resolve};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};

/// Long enough for a loaded machine; reached only when something is broken.
pub const LONG: Duration = Duration::from_secs(10);
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A listener on the loopback address that runs a script for every connection.
pub struct Receiver {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// `script` gets the number of the connection (from 0) and the connection; when it returns, the connection is dropped.
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script(counter.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { address, accepted, task }
    }

    /// One that answers every request with `answer`.
    pub async fn answering(answer: &'static [u8]) -> Self {
        Self::start(move |_, mut stream| async move {
            use tokio::io::AsyncWriteExt;
            while read_request(&mut stream).await.is_some() {
                if stream.write_all(answer).await.is_err() {
                    break;
                }
            }
        })
        .await
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads one request with its body; `None` at the end of the connection.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok()).unwrap_or(0);
            while request.len() < end + 4 + length {
                stream.read_buf(&mut request).await.ok().filter(|count| *count > 0)?;
            }
            return Some(request);
        }
        stream.read_buf(&mut request).await.ok().filter(|count| *count > 0)?;
    }
}

/// Answers lookups from a script; the last entry repeats.
pub struct Scripted {
    answers: Mutex<VecDeque<Answers>>,
    lookups: AtomicUsize,
}

impl Scripted {
    pub fn new(answers: impl IntoIterator<Item = Vec<IpAddr>>) -> Arc<Self> {
        Self::with(answers.into_iter().map(Ok))
    }

    pub fn with(answers: impl IntoIterator<Item = Answers>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), lookups: AtomicUsize::new(0) })
    }

    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Answers> + Send + 'a>> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { answer.unwrap_or_else(|| Err(format!("{name} is not in the script"))) })
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A policy that allows loopback addresses and nothing else that is special.
pub fn loopback() -> EgressPolicy {
    let mut policy = EgressPolicy::default();
    policy.allow_entries(["127.0.0.0/8"]).unwrap();
    policy
}

pub fn options() -> ClientOptions {
    ClientOptions { policy: loopback(), ..ClientOptions::default() }
}

/// A client that may reach loopback addresses and knows no names.
pub fn client() -> Client {
    Client::with_resolver(options(), Scripted::new([]))
}
