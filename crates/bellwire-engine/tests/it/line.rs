//! A line between two programs that can be cut: connections break, and new ones are refused, until it is mended. Or muted: what one
//! side asks still arrives, and no answer comes back.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Mute,
    Cut,
}

pub struct Line {
    address: SocketAddr,
    url: String,
    state: Arc<watch::Sender<State>>,
}

impl Line {
    /// To the server in `url`.
    pub async fn to(url: &str) -> Self {
        let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        let line = Self::to_address(address.clone()).await;
        Self { url: url.replace(&address, &line.address.to_string()), ..line }
    }

    /// To whoever listens at `address` by the time somebody connects.
    pub async fn to_address(address: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::Up));
        let states = state.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, address.clone(), states.subscribe()));
            }
        });
        Self { address: own, url: String::new(), state }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub fn mute(&self) {
        self.state.send_replace(State::Mute);
    }

    pub fn mend(&self) {
        self.state.send_replace(State::Up);
    }
}

async fn carry(near: TcpStream, to: String, mut state: watch::Receiver<State>) {
    if *state.borrow() == State::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let mut answers_state = state.clone();
    let answers = async {
        let mut chunk = vec![0; 65_536];
        while let Ok(bytes @ 1..) = from_far.read(&mut chunk).await {
            if answers_state.wait_for(|state| *state != State::Mute).await.is_err()
                || to_near.write_all(&chunk[..bytes]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
        () = answers => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}
