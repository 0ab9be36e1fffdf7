//! The end of a link that answers: what another node was asked to accept is accepted here.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::AppId;
use bellwire_store::NewMessage;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::session::{Receiver, Sender, accept};
use super::wire::{self, ACCEPTED, Answer, JUST_ACCEPTED, NUDGE, Reader};
use super::{IN_FLIGHT_MAX, OPEN_MAX, SIGN_OF_LIFE, SILENCE_MAX};
use crate::{Engine, shards};

/// Connections, those that have not shown the key included.
const CONNECTIONS_MAX: usize = 256;
/// After an error of the listener itself (too many open files).
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// A node that stops waits so long for what it was asked to be accepted.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Messages read that nobody has begun to accept.
const ASKED_MAX: usize = 128;
/// Between two words on which applications are behind.
const BEHIND_EVERY: Duration = Duration::from_millis(5);

/// Answers whoever connects, until the engine stops.
pub async fn serve(engine: Arc<Engine>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stop = engine.stop.notified();
        if engine.is_stopping() {
            return;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a link could not be taken");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let engine = engine.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = answer(&engine, socket, address).await {
                tracing::debug!(%error, peer.address = %address, "link ended");
            }
        });
    }
}

async fn answer(engine: &Arc<Engine>, socket: TcpStream, address: SocketAddr) -> io::Result<()> {
    let Some(key) = engine.links.key() else { return Ok(()) };
    let opening = accept(socket, key, engine.shards.epoch());
    let opened = timeout(OPEN_MAX, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (sender, receiver, hello) = opened?;
    tracing::debug!(node.epoch = hello.from, peer.address = %address, "another node is linked");
    let _incoming = engine.links.opened(hello.from);
    let (asks, asked) = mpsc::channel(ASKED_MAX);
    let mut telling = pin!(tell(engine, hello.from, sender, asked));
    let stop = engine.stop.notified();
    if engine.is_stopping() {
        return Ok(());
    }
    tokio::select! {
        ended = take(engine, receiver, asks) => return ended,
        ended = &mut telling => return ended,
        () = stop => {}
    }
    // Nothing more is taken in; what is being accepted is still answered.
    timeout(STOP_MAX, telling).await.unwrap_or(Ok(()))
}

/// Reads messages, and hands on those that are to be accepted, by their numbers.
async fn take(engine: &Arc<Engine>, mut receiver: Receiver, asks: mpsc::Sender<(u64, NewMessage)>) -> io::Result<()> {
    loop {
        let mut reader = Reader::new(receiver.next().await?.freeze());
        let mut told = Vec::new();
        while !reader.is_empty() {
            let number = reader.request_number();
            if number == Some(NUDGE) {
                engine.links.nudged.notify_one();
                continue;
            }
            let (Some(number), Some(new)) = (number, reader.message()) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that cannot be read"));
            };
            match number {
                ACCEPTED => engine.links.hear(Arc::new(new)),
                JUST_ACCEPTED => told.push(Arc::new(new)),
                _ => {
                    // Before any wait: a word ages.
                    shards::take_by_word(engine, std::mem::take(&mut told));
                    if asks.send((number, new)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        shards::take_by_word(engine, told);
    }
}

/// `None`: not accepted, or not known to be. The other node tries by itself and learns why.
async fn accept_here(engine: &Engine, number: u64, new: NewMessage, from: i64) -> (u64, Answer) {
    if engine.is_stopping() || !engine.shards.is_sure() {
        return (number, None);
    }
    let _asked = engine.links.asked(new.message.id, from);
    (number, engine.accept_unstarted(Arc::new(new)).await.ok())
}

/// Accepts what is asked for and tells what became of it, for which applications deliveries are behind, and while something is under way,
/// that this node is alive. No task a message: a commit answers many, and they are to be on their way before anything else that it begins.
async fn tell(engine: &Engine, from: i64, mut sender: Sender, mut asked: mpsc::Receiver<(u64, NewMessage)>) -> io::Result<()> {
    let mut accepting = FuturesUnordered::new();
    let (mut taken, mut batch) = (Vec::new(), Vec::new());
    let mut behind = engine.queue.watch_behind();
    behind.mark_changed();
    let mut told: (Instant, Vec<AppId>) = (Instant::now(), Vec::new());
    let mut sent_at = Instant::now();
    let mut is_open = true;
    while is_open || !accepting.is_empty() {
        // Whether it may have changed who is behind, and it is not too soon to say so.
        let may_tell = told.0.elapsed() >= BEHIND_EVERY;
        let wait = if may_tell && told.1.is_empty() { SIGN_OF_LIFE } else { BEHIND_EVERY };
        // What the other side may have under way has a place here: it waits only if it keeps to another bound.
        let room = IN_FLIGHT_MAX.saturating_sub(accepting.len());
        tokio::select! {
            count = asked.recv_many(&mut taken, room), if is_open && room > 0 => {
                is_open = count > 0;
                accepting.extend(taken.drain(..).map(|(number, new)| accept_here(engine, number, new, from)));
            }
            Some(answer) = accepting.next() => batch.push(answer),
            Ok(()) = behind.changed(), if may_tell => {}
            () = tokio::time::sleep(wait) => {}
        }
        while let Some(Some(answer)) = accepting.next().now_or_never() {
            batch.push(answer);
        }
        let apps = if told.0.elapsed() >= BEHIND_EVERY { engine.queue.behind() } else { told.1.clone() };
        let is_news = apps != told.1;
        let is_awaited = !accepting.is_empty() && sent_at.elapsed() >= SIGN_OF_LIFE;
        if batch.is_empty() && !is_news && !is_awaited {
            continue;
        }
        let is_work = !batch.is_empty();
        let fill = |out: &mut Vec<u8>| {
            if is_news {
                wire::put_behind(out, &apps);
            }
            batch.drain(..).for_each(|(number, answer)| wire::put_answer(out, number, answer));
        };
        timeout(SILENCE_MAX, sender.send(fill)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        sent_at = Instant::now();
        if is_news {
            told = (sent_at, apps);
        }
        if is_work {
            engine.pump();
        }
    }
    Ok(())
}
