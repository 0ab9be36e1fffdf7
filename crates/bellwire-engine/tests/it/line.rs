//! A line between a node and its database that can be cut: connections break, and new ones are refused, until it is mended.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Line {
    url: String,
    is_up: Arc<watch::Sender<bool>>,
}

impl Line {
    /// To the server in `url`.
    pub async fn to(url: &str) -> Self {
        let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let is_up = Arc::new(watch::Sender::new(true));
        let state = is_up.clone();
        let to = address.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to.clone(), state.subscribe()));
            }
        });
        Self { url: url.replace(&address, &own), is_up }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn cut(&self) {
        self.is_up.send_replace(false);
    }

    pub fn mend(&self) {
        self.is_up.send_replace(true);
    }
}

async fn carry(mut near: TcpStream, to: String, mut is_up: watch::Receiver<bool>) {
    if !*is_up.borrow() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = is_up.wait_for(|is_up| !is_up) => {}
    }
}
