//! The end of a link that asks: one connection to one peer, kept open and opened again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bellwire_core::{AppId, EndpointId};
use bellwire_store::{Accepted, NewMessage, Node};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::session::{FRAME_BYTES_MAX, Hello, Receiver, Sender, open};
use super::wire::{self, ACCEPTED, Answer, JUST_ACCEPTED, NUDGE, Reader, Said};
use super::{FRESH_MAX, IN_FLIGHT_MAX, ITEM_BYTES_MAX, LinkKey, OPEN_MAX, SILENCE_MAX};

/// Between two attempts to open a connection, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Messages put into one frame.
const FRAME_ITEMS_MAX: usize = 128;
/// A request's number goes before each.
const NUMBER_BYTES: usize = 8;
/// Messages accepted that wait to be told; of more, the peer learns from the database alone.
const NEWS_MAX: usize = 1_024;

/// What became of a message that another node should accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    Done(Accepted),
    /// The peer has not seen it.
    NotSent,
    /// It may have accepted it, or be about to.
    Unknown,
}

/// A message, encoded, and who waits for the answer.
struct Asked {
    item: Vec<u8>,
    reply: oneshot::Sender<Answer>,
}

type Pending = Mutex<HashMap<u64, (Instant, oneshot::Sender<Answer>)>>;

/// Dropped: the connection ends, and everybody who waits learns that nothing is known.
pub struct Link {
    asks: mpsc::Sender<Asked>,
    places: Semaphore,
    is_up: Arc<AtomicBool>,
    news: Arc<News>,
    behind: Arc<Behind>,
}

/// Applications for which the peer's deliveries are behind.
#[derive(Default)]
pub struct Behind {
    is_any: AtomicBool,
    apps: Mutex<Vec<AppId>>,
    changed: Notify,
}

impl Behind {
    fn set(&self, apps: Vec<AppId>) {
        self.is_any.store(!apps.is_empty(), Ordering::Release);
        *self.apps.lock() = apps;
        self.changed.notify_waiters();
    }

    fn has(&self, app: AppId) -> bool {
        self.is_any.load(Ordering::Acquire) && self.apps.lock().contains(&app)
    }

    /// Until it does not have this one.
    pub async fn without(&self, app: AppId) {
        loop {
            let changed = self.changed.notified();
            if !self.has(app) {
                return;
            }
            changed.await;
        }
    }
}

/// A message accepted, with the endpoints that are the peer's.
struct Told {
    new: Arc<NewMessage>,
    endpoints: Vec<EndpointId>,
    /// What committed it was sent then.
    begun: std::time::Instant,
}

/// Of a frame: what is told without an answer.
struct Word {
    /// Of a message: when what committed it was sent.
    begun: Option<std::time::Instant>,
    item: Vec<u8>,
}

impl Word {
    fn len(&self) -> usize {
        NUMBER_BYTES + self.item.len()
    }

    /// With the number that says what it is now, as the frame is sent.
    fn put(&self, out: &mut Vec<u8>) {
        let number = match self.begun {
            None => NUDGE,
            Some(begun) if begun.elapsed() < FRESH_MAX => JUST_ACCEPTED,
            Some(_) => ACCEPTED,
        };
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&self.item);
    }
}

/// To be sent with the next frame.
#[derive(Default)]
struct News {
    is_nudge: AtomicBool,
    accepted: Mutex<VecDeque<Told>>,
    are_there: Notify,
}

impl News {
    /// Encoded. The nudge is the last: who is nudged has heard of the messages.
    fn take(&self) -> Vec<Word> {
        let accepted = std::mem::take(&mut *self.accepted.lock());
        let mut is_nudge = self.is_nudge.swap(false, Ordering::AcqRel);
        let mut encoded = Vec::with_capacity(accepted.len() + 1);
        for Told { new, endpoints, begun } in accepted {
            let mut item = Vec::with_capacity(wire::bytes_of(&new) + 256);
            match wire::put_accepted(&mut item, &new.message, &endpoints) {
                Some(()) if item.len() <= 2 * ITEM_BYTES_MAX => encoded.push(Word { begun: Some(begun), item }),
                _ => is_nudge = true,
            }
        }
        if is_nudge {
            encoded.push(Word { begun: None, item: Vec::new() });
        }
        encoded
    }
}

impl Link {
    /// Connects in the background, for as long as the link is kept.
    pub fn open(key: LinkKey, own: i64, node: &Node) -> Arc<Self> {
        let (asks, asked) = mpsc::channel(IN_FLIGHT_MAX);
        let is_up = Arc::new(AtomicBool::new(false));
        let news = Arc::<News>::default();
        let behind = Arc::<Behind>::default();
        let peer = Peer {
            key,
            hello: Hello { from: own, to: node.epoch },
            address: node.info.address.clone(),
            name: node.info.name.clone(),
            is_up: is_up.clone(),
            news: news.clone(),
            behind: behind.clone(),
        };
        tokio::spawn(peer.run(asked));
        Arc::new(Self { asks, places: Semaphore::new(IN_FLIGHT_MAX), is_up, news, behind })
    }

    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// `Some`: the peer's deliveries for this application are behind.
    pub fn behind(&self, app: AppId) -> Option<Arc<Behind>> {
        self.behind.has(app).then(|| self.behind.clone())
    }

    /// Never waits. Without a connection the peer looks by itself.
    pub fn nudge(&self) {
        if self.is_up() && !self.news.is_nudge.swap(true, Ordering::AcqRel) {
            self.news.are_there.notify_one();
        }
    }

    /// Tells the peer of a message that has been accepted here. Never waits.
    pub fn tell(&self, new: &Arc<NewMessage>, endpoints: Vec<EndpointId>, begun: std::time::Instant) {
        if !self.is_up() {
            return;
        }
        if new.message.deliver_at.is_some() || wire::bytes_of(new) > ITEM_BYTES_MAX {
            return self.nudge();
        }
        let mut accepted = self.news.accepted.lock();
        if accepted.len() >= NEWS_MAX {
            drop(accepted);
            return self.nudge();
        }
        let is_first = accepted.is_empty();
        accepted.push_back(Told { new: new.clone(), endpoints, begun });
        drop(accepted);
        if is_first {
            self.news.are_there.notify_one();
        }
    }

    /// `sending`: called just before the peer can see it.
    pub async fn forward(&self, new: &NewMessage, sending: impl FnOnce()) -> Forwarded {
        if wire::bytes_of(new) > ITEM_BYTES_MAX {
            return Forwarded::NotSent;
        }
        let Ok(_place) = self.places.try_acquire() else { return Forwarded::NotSent };
        let mut item = Vec::with_capacity(wire::bytes_of(new) + 256);
        if wire::put_message(&mut item, new).is_none() || item.len() > 2 * ITEM_BYTES_MAX {
            return Forwarded::NotSent;
        }
        let (reply, answer) = oneshot::channel();
        sending();
        // There are as many places as there is room.
        if self.asks.try_send(Asked { item, reply }).is_err() {
            return Forwarded::NotSent;
        }
        match answer.await {
            Ok(Some(accepted)) => Forwarded::Done(accepted),
            Ok(None) | Err(_) => Forwarded::Unknown,
        }
    }
}

#[cfg(test)]
impl Link {
    /// One that is up and goes nowhere.
    pub fn to_nobody() -> Arc<Self> {
        Arc::new(Self {
            asks: mpsc::channel(1).0,
            places: Semaphore::new(0),
            is_up: Arc::new(AtomicBool::new(true)),
            news: Arc::default(),
            behind: Arc::default(),
        })
    }

    /// What waits to be sent: messages to tell of, and whether there is a nudge.
    pub fn waiting(&self) -> (usize, bool) {
        (self.news.accepted.lock().len(), self.news.is_nudge.load(Ordering::Acquire))
    }
}

/// The other node, as its row says.
struct Peer {
    key: LinkKey,
    hello: Hello,
    address: String,
    name: String,
    is_up: Arc<AtomicBool>,
    news: Arc<News>,
    behind: Arc<Behind>,
}

impl Peer {
    async fn run(self, mut asked: mpsc::Receiver<Asked>) {
        let mut pause = PAUSE_MIN;
        let mut was_told = false;
        loop {
            let opening =
                timeout(OPEN_MAX, async { open(TcpStream::connect(&self.address).await?, &self.key, self.hello).await });
            let Some(opened) = while_down(&mut asked, opening).await else { return };
            let error = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok((sender, receiver)) => {
                    tracing::debug!(node.name = self.name, node.address = self.address, "linked");
                    (pause, was_told) = (PAUSE_MIN, false);
                    self.is_up.store(true, Ordering::Release);
                    let ended = session(sender, receiver, &mut asked, &self.news, &self.behind).await;
                    self.is_up.store(false, Ordering::Release);
                    self.behind.set(Vec::new());
                    match ended {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut was_told, true) {
                tracing::info!(
                    %error,
                    node.name = self.name,
                    node.address = self.address,
                    "no direct link to this node: what is for it goes through the database"
                );
            }
            if while_down(&mut asked, tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Meanwhile, whoever asked before he saw that the link is down is let go, to help himself. `None`: nobody wants the link any more.
async fn while_down<F: Future>(asked: &mut mpsc::Receiver<Asked>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            done = &mut future => return Some(done),
            asked = asked.recv() => drop(asked?),
        }
    }
}

/// One connection's life. `Ok`: nobody wants the link any more.
async fn session(
    mut sender: Sender,
    receiver: Receiver,
    asked: &mut mpsc::Receiver<Asked>,
    news: &News,
    behind: &Behind,
) -> io::Result<()> {
    let pending = Pending::default();
    // Both ends of it end with the first one that does: whoever still waits is told by the drop of `pending`.
    tokio::select! {
        ended = ask(&mut sender, asked, news, &pending) => ended,
        ended = listen(receiver, &pending, behind) => ended,
    }
}

/// Takes what comes for as long as it comes: whoever is ready to hand in something does so before a frame is closed.
async fn gather(from: &mut mpsc::Receiver<Asked>, batch: &mut Vec<Asked>) {
    let mut before = usize::MAX;
    while batch.len() != before && batch.len() < FRAME_ITEMS_MAX {
        before = batch.len();
        tokio::task::yield_now().await;
        while batch.len() < FRAME_ITEMS_MAX
            && let Ok(item) = from.try_recv()
        {
            batch.push(item);
        }
    }
}

async fn ask(sender: &mut Sender, asked: &mut mpsc::Receiver<Asked>, news: &News, pending: &Pending) -> io::Result<()> {
    let mut batch = Vec::with_capacity(FRAME_ITEMS_MAX);
    let mut number = 0u64;
    loop {
        tokio::select! {
            count = asked.recv_many(&mut batch, FRAME_ITEMS_MAX) => if count == 0 { return Ok(()) },
            () = news.are_there.notified() => {}
        }
        gather(asked, &mut batch).await;
        let mut told = news.take().into_iter().peekable();
        while told.peek().is_some() || !batch.is_empty() {
            let mut room = FRAME_BYTES_MAX;
            let mut words = Vec::new();
            while let Some(word) = told.next_if(|word| word.len() <= room) {
                room -= word.len();
                words.push(word);
            }
            let fits = batch.iter().take_while(|asked| {
                let bytes = NUMBER_BYTES + asked.item.len();
                let fits = bytes <= room;
                room = room.saturating_sub(bytes);
                fits
            });
            // One that does not fit into an empty frame was not taken in.
            let count = fits.count();
            let now = Instant::now();
            let first = number;
            let items: Vec<Vec<u8>> = {
                let mut pending = pending.lock();
                let taken = batch.drain(..count).map(|Asked { item, reply }| {
                    pending.insert(number, (now, reply));
                    number += 1;
                    item
                });
                taken.collect()
            };
            let fill = |out: &mut Vec<u8>| {
                words.iter().for_each(|word| word.put(out));
                for (number, item) in (first..).zip(&items) {
                    out.extend_from_slice(&number.to_le_bytes());
                    out.extend_from_slice(item);
                }
            };
            // A peer that is stopped takes nothing in, once the buffers are full.
            timeout(SILENCE_MAX, sender.send(fill)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        }
    }
}

async fn listen(mut receiver: Receiver, pending: &Pending, behind: &Behind) -> io::Result<()> {
    loop {
        match timeout(SILENCE_MAX, receiver.next()).await {
            Ok(frame) => {
                let mut reader = Reader::new(frame?.freeze());
                while !reader.is_empty() {
                    let (number, answer) = match reader.said() {
                        Some(Said::Answer(number, answer)) => (number, answer),
                        Some(Said::Behind(apps)) => {
                            behind.set(apps);
                            continue;
                        }
                        None => return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that cannot be read")),
                    };
                    // Who asked may have gone.
                    if let Some((_, reply)) = pending.lock().remove(&number) {
                        let _ = reply.send(answer);
                    }
                }
            }
            Err(_) => {
                let now = Instant::now();
                let is_silent = pending.lock().values().any(|(since, _)| now.duration_since(*since) >= SILENCE_MAX);
                if is_silent {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::accepted;
    use super::*;

    /// Broken: deliveries that were fetched, made and forgotten meanwhile are made again by the word of a node that was stopped.
    #[test]
    fn word_of_what_was_committed_long_ago_says_so() {
        let said = |begun: std::time::Instant| {
            let link = Link::to_nobody();
            link.tell(&accepted(1, None, vec![]), vec![], begun);
            link.nudge();
            let mut out = Vec::new();
            let words = link.news.take();
            words.iter().for_each(|word| word.put(&mut out));
            assert_eq!(out.len(), words.iter().map(Word::len).sum::<usize>());
            let mut reader = Reader::new(out.into());
            let number = reader.request_number();
            assert!(reader.message().is_some() && reader.request_number() == Some(NUDGE) && reader.is_empty());
            number
        };
        let now = std::time::Instant::now();
        assert_eq!(said(now), Some(JUST_ACCEPTED));
        assert_eq!(said(now.checked_sub(FRESH_MAX).unwrap()), Some(ACCEPTED));
    }
}
