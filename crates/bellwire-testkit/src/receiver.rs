//! A scriptable webhook receiver on loopback: answers as told, path by path, and remembers what it got, byte for byte.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How one request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    Status(u16),
    Full {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
    /// No answer; the connection stays open until the sender gives up.
    Hang,
    /// The connection is closed without an answer.
    Drop,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub at: Instant,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
    always: Mutex<HashMap<String, Reply>>,
    arrived: Notify,
}

/// Listens until dropped.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

/// How long a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Receiver {
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Ok(Self { address, state, task })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// These answers in turn on `path`, then what `always` says, then 200.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state.scripts.lock().entry(path.to_owned()).or_default().extend(replies);
    }

    pub fn always(&self, path: &str, reply: Reply) {
        self.state.always.lock().insert(path.to_owned(), reply);
    }

    /// Everything that came to `path`.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.state.received.lock().iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Waits until `count` requests have come to `path`, and returns them; panics if they do not come.
    pub async fn wait_for(&self, path: &str, count: usize) -> Vec<Received> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let arrived = self.state.arrived.notified();
            let received = self.received(path);
            if received.len() >= count {
                return received;
            }
            let waited = tokio::time::timeout_at(deadline, arrived).await;
            assert!(waited.is_ok(), "{} of {count} requests came to {path} in {PATIENCE:?}", received.len());
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    while let Ok(Some(request)) = read_request(&mut stream, &mut buffer).await {
        let path = request.path.clone();
        state.received.lock().push(request);
        state.arrived.notify_waiters();
        let scripted = state.scripts.lock().get_mut(&path).and_then(VecDeque::pop_front);
        let reply = scripted.or_else(|| state.always.lock().get(&path).cloned()).unwrap_or(Reply::Status(200));
        let (status, headers, body) = match reply {
            Reply::Status(status) => (status, vec![], Bytes::new()),
            Reply::Full { status, headers, body } => (status, headers, body),
            Reply::Drop => return,
            Reply::Hang => {
                // Until the sender closes its side.
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
        };
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(&body).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Received>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(head)) = parsed.parse(buffer) {
            let length = parsed
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case("content-length"))
                .and_then(|h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok())
                .unwrap_or(0);
            let mut request = Received {
                method: parsed.method.unwrap_or_default().to_owned(),
                path: parsed.path.unwrap_or_default().to_owned(),
                headers: parsed
                    .headers
                    .iter()
                    .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
                    .collect(),
                body: Bytes::new(),
                at: Instant::now(),
            };
            while buffer.len() < head + length {
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            }
            request.body = Bytes::copy_from_slice(&buffer[head..head + length]);
            buffer.drain(..head + length);
            return Ok(Some(request));
        }
        if buffer.len() > BODY_BYTES_MAX || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
