//! Links between nodes of one database: a message is accepted *by the node that delivers most of it*, over a connection that stays open. Its
//! batches grow, most deliveries need not be fetched, and do not wait for the next look at the table. Those to a busy endpoint stay where they came
//! (`company`), and its owner is told of them.
//!
//! Of a message that several nodes deliver, the one that accepts it tells the others, except whoever passed it on and has it: they deliver it by
//! that word if it is fresh, and else fetch their deliveries from the database, which knows for certain whose they are, but not the message.
//! A node is also nudged by its peers when the database has something else for it (an application that was changed), so that it need not look
//! all the time. And a node whose deliveries are behind says for which applications, so that their messages wait where they come in.
//!
//! Only a shortcut: what cannot be sent, or is not answered, this node accepts itself, and the owner fetches it from the database.
//! That is safe to do after anything, since the message keeps its id and the database takes an id once ([`crate::ingest`]).
//!
//! `session` is the sealed connection, `wire` what goes over it, `client` and `server` are its ends. Invariants: everything that
//! waits here is bounded in number and bytes; a link that has been silent while it was asked is given up within [`SILENCE_MAX`];
//! nothing of a peer is believed before it has shown that it holds the key.

mod client;
mod company;
#[doc(hidden)]
pub mod fuzzing;
mod heard;
mod server;
mod session;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{EndpointId, MessageId, SHARDS, Shard, ShardSet};
use bellwire_store::{Accepted, Cluster, NewMessage};
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use client::Forwarded;
use client::{Behind, Link};
use company::{Company, Joined};
use heard::Heard;
pub use server::serve;

/// A peer that has questions of ours and says nothing for this long is given up; one that is at work says so several times in it.
const SILENCE_MAX: Duration = Duration::from_millis(600);
const SIGN_OF_LIFE: Duration = Duration::from_millis(150);
/// Opening a connection, up to the proof that both sides hold the key.
const OPEN_MAX: Duration = Duration::from_secs(2);
/// Messages under way to one peer. Beyond, this node accepts itself: what is too much for one node's lanes spreads.
const IN_FLIGHT_MAX: usize = 512;
/// Whoever hears of a message takes the word for it if what committed it was sent so recently: long ago, its deliveries may have been
/// fetched, made and forgotten again.
pub const FRESH_MAX: Duration = Duration::from_millis(300);
/// A frame reaches the peer within this time after what is fresh in it was committed, or the link is given up.
pub const WORD_MAX: Duration = Duration::from_millis(900);
const _: () = assert!(WORD_MAX.as_millis() >= FRESH_MAX.as_millis() + SILENCE_MAX.as_millis());
/// One message as it is sent; a larger one goes through the database.
const ITEM_BYTES_MAX: usize = 96 * 1024;

/// What a node needs to be linked with others.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Where this node listens; port 0: any.
    pub listen: SocketAddr,
    /// `host:port` by which others reach it, if that is not where it listens.
    pub advertise: Option<String>,
    pub key: LinkKey,
}

/// What all nodes of a database have in common, and nobody else.
#[derive(Clone)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey([redacted])")
    }
}

/// The other nodes as the last heartbeat showed them.
struct Peers {
    /// Whom each shard belongs to; 0: nobody, or this node.
    owners: [i64; SHARDS],
    links: HashMap<i64, Arc<Link>>,
    /// The other nodes' epochs.
    others: Vec<i64>,
}

/// This node's side of all links.
pub struct Links {
    key: Option<LinkKey>,
    /// What the table of nodes says of this one; empty: it cannot be reached.
    address: String,
    peers: RwLock<Peers>,
    /// Connections to this node that are open, by the epoch of who made them.
    incoming: Mutex<HashMap<i64, usize>>,
    /// A peer says that the database has something for this node.
    pub nudged: Notify,
    heard: Mutex<Heard>,
    company: Company,
    /// Peers have told of messages: their deliveries are to be fetched.
    pub told: Notify,
    /// Messages that peers have asked this node to accept, and who: they have them already and need not be told.
    asked_by: Mutex<HashMap<MessageId, i64>>,
}

/// Whom a message is sent to.
struct Way {
    link: Arc<Link>,
    /// Some of its deliveries are this node's: they will be fetched.
    has_own: bool,
}

/// A message that a peer has asked this node to accept, until it is.
pub struct Asked<'a> {
    links: &'a Links,
    message: MessageId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.links.asked_by.lock().remove(&self.message);
    }
}

/// A connection to this node, for as long as it is open.
struct Incoming<'a> {
    links: &'a Links,
    from: i64,
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        let mut incoming = self.links.incoming.lock();
        if let Some(count) = incoming.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                incoming.remove(&self.from);
            }
        }
        drop(incoming);
        // Perhaps a nudge was lost with it.
        self.links.nudged.notify_one();
    }
}

impl Links {
    /// `None`: without links.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn bind(config: Option<&LinkConfig>) -> std::io::Result<(Self, Option<TcpListener>)> {
        let peers = Peers { owners: [0; SHARDS], links: HashMap::new(), others: Vec::new() };
        let links = |key: Option<LinkKey>, address| Self {
            key,
            address,
            peers: RwLock::new(peers),
            incoming: Mutex::default(),
            nudged: Notify::new(),
            heard: Mutex::default(),
            company: Company::default(),
            told: Notify::new(),
            asked_by: Mutex::default(),
        };
        let Some(config) = config else { return Ok((links(None, String::new()), None)) };
        let listener = TcpListener::bind(config.listen).await?;
        let bound = listener.local_addr()?;
        let address = match &config.advertise {
            // A name or an address without a port goes with the port that was found.
            Some(given) if given.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => given.clone(),
            Some(given) => format!("{given}:{}", bound.port()),
            None => bound.to_string(),
        };
        Ok((links(Some(config.key.clone()), address), Some(listener)))
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn key(&self) -> Option<&LinkKey> {
        self.key.as_ref()
    }

    /// Takes note of who is there and who owns what.
    pub fn see(&self, own: i64, cluster: &Cluster) {
        let Some(key) = &self.key else { return };
        let mut owners = [0; SHARDS];
        for (seen, owner) in owners.iter_mut().zip(&cluster.owners) {
            *seen = owner.filter(|epoch| *epoch != own).unwrap_or(0);
        }
        let mut peers = self.peers.write();
        peers.owners = owners;
        peers.others = cluster.nodes.iter().map(|node| node.epoch).filter(|epoch| *epoch != own).collect();
        // A link that is dropped ends, and whoever waits for it accepts by itself.
        peers.links.retain(|epoch, _| cluster.nodes.iter().any(|node| node.epoch == *epoch));
        for node in cluster.nodes.iter().filter(|node| node.epoch != own && !node.info.address.is_empty()) {
            peers.links.entry(node.epoch).or_insert_with(|| Link::open(key.clone(), own, node));
        }
    }

    /// Forgets everybody: this node's membership is over.
    pub fn forget(&self) {
        let mut peers = self.peers.write();
        peers.owners = [0; SHARDS];
        peers.links.clear();
        peers.others.clear();
    }

    /// A peer has accepted a message, some of whose deliveries it takes to be this node's.
    pub fn hear(&self, new: Arc<NewMessage>) {
        self.heard.lock().put(Instant::now(), new);
        self.told.notify_one();
    }

    /// What is known of a message accepted elsewhere, by its key.
    pub fn heard(&self, key: i64) -> Option<Arc<NewMessage>> {
        self.heard.lock().get(key)
    }

    pub fn forget_old(&self) {
        self.heard.lock().forget_old(Instant::now());
    }

    /// Whether every other node has a connection to this one, by which it says when there is something to be looked for.
    pub fn is_told(&self) -> bool {
        let peers = self.peers.read();
        let incoming = self.incoming.lock();
        peers.others.iter().all(|epoch| incoming.contains_key(epoch))
    }

    fn opened(&self, from: i64) -> Incoming<'_> {
        *self.incoming.lock().entry(from).or_default() += 1;
        Incoming { links: self, from }
    }

    /// A peer has asked this node to accept this message: it is not told of it, as long as the guard is kept.
    pub fn asked(&self, message: MessageId, by: i64) -> Asked<'_> {
        self.asked_by.lock().insert(message, by);
        Asked { links: self, message }
    }

    /// Tells the owners of other shards than `local` of messages accepted, whose deliveries were handed over to them. What committed them was
    /// sent at `begun`.
    pub fn tell_owners(&self, messages: &[Arc<NewMessage>], local: &ShardSet, begun: std::time::Instant) {
        if self.key.is_none() {
            return;
        }
        let peers = self.peers.read();
        let mut owned: Vec<(i64, Vec<EndpointId>)> = Vec::new();
        for new in messages {
            for endpoint in new.endpoints.iter().filter(|endpoint| !local.has(**endpoint)) {
                let owner = peers.owners[Shard::of(*endpoint).index()];
                match owned.iter_mut().find(|(known, _)| *known == owner) {
                    Some((_, endpoints)) => endpoints.push(*endpoint),
                    None => owned.push((owner, vec![*endpoint])),
                }
            }
            if owned.is_empty() {
                continue;
            }
            let asked_by = self.asked_by.lock().get(&new.message.id).copied();
            for (owner, endpoints) in owned.drain(..).filter(|(owner, _)| Some(*owner) != asked_by) {
                match peers.links.get(&owner) {
                    Some(link) => link.tell(new, endpoints, begun),
                    // Given up since the last heartbeat, which does not say yet to whom.
                    None => peers.links.values().for_each(|link| link.nudge()),
                }
            }
        }
    }

    /// Tells the owner of this endpoint that the database has something for it.
    pub fn nudge_owner(&self, endpoint: EndpointId) {
        let peers = self.peers.read();
        let owner = peers.owners[Shard::of(endpoint).index()];
        peers.links.get(&owner).inspect(|link| link.nudge());
    }

    /// Tells everybody that something has changed.
    pub fn nudge_all(&self) {
        self.peers.read().links.values().for_each(|link| link.nudge());
    }

    /// Waits while another node's deliveries for this message's application are behind, at most until `deadline`: what it would fetch
    /// waits here, where a client hears of it.
    pub async fn hold_back(&self, new: &NewMessage, deadline: Instant) {
        while let Some(behind) = self.behind_for(new) {
            if tokio::time::timeout_at(deadline, behind.without(new.message.app)).await.is_err() {
                return;
            }
        }
    }

    fn behind_for(&self, new: &NewMessage) -> Option<Arc<Behind>> {
        self.key.as_ref()?;
        let peers = self.peers.read();
        let mut links = peers.links.iter().filter_map(|(epoch, link)| Some((*epoch, link.behind(new.message.app)?)));
        let is_owner = |owner| new.endpoints.iter().any(|endpoint| peers.owners[Shard::of(*endpoint).index()] == owner);
        links.find(|(epoch, _)| is_owner(*epoch)).map(|(_, behind)| behind)
    }

    /// Counts a message among those on their way, until what is returned is dropped.
    pub fn join(&self, new: &NewMessage) -> Joined<'_> {
        self.company.join(if self.key.is_some() { &new.endpoints } else { &[] })
    }

    /// The node that delivers most of this message, if it is another and can be reached; of several, the one whose endpoint comes first:
    /// wherever messages of an application come in, the same node accepts them, in batches as large as if it were alone. `None` also if that node
    /// delivers all of it and there is company enough here: it is told of what this one accepts.
    fn way_of(&self, new: &NewMessage, joined: &Joined<'_>) -> Option<Way> {
        self.key.as_ref()?;
        let peers = self.peers.read();
        let mut counts: Vec<(i64, usize)> = Vec::new();
        for endpoint in &new.endpoints {
            let owner = peers.owners[Shard::of(*endpoint).index()];
            match counts.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, count)) => *count += 1,
                None => counts.push((owner, 1)),
            }
        }
        // The first one of the largest.
        let (owner, _) = counts.iter().copied().reduce(|most, other| if other.1 > most.1 { other } else { most })?;
        if counts.len() == 1 && joined.is_enough() {
            return None;
        }
        let link = peers.links.get(&owner).filter(|link| link.is_up()).cloned()?;
        Some(Way { link, has_own: counts.iter().any(|(owner, _)| *owner == 0) })
    }

    /// Has the owner of most of the deliveries accept the message. `own`: called if it has, a moment ago, and some of its deliveries are this
    /// node's.
    pub async fn forward(&self, new: &Arc<NewMessage>, joined: &Joined<'_>, own: impl FnOnce(&Arc<NewMessage>)) -> Forwarded {
        let Some(Way { link, has_own }) = self.way_of(new, joined) else { return Forwarded::NotSent };
        if !has_own {
            return link.forward(new, || ()).await;
        }
        // What is committed there is handed over to this node, which need not be told of it.
        let sent = Instant::now();
        let forwarded = link.forward(new, || self.heard.lock().put(sent, new.clone())).await;
        match forwarded {
            Forwarded::NotSent => {}
            Forwarded::Done(Accepted::Fresh) if new.message.deliver_at.is_none() && sent.elapsed() < FRESH_MAX => own(new),
            _ => self.told.notify_one(),
        }
        forwarded
    }

    /// Peers with whom there is a link now.
    pub fn up(&self) -> usize {
        self.peers.read().links.values().filter(|link| link.is_up()).count()
    }
}

#[cfg(test)]
mod tests {
    use bellwire_core::{AppId, IdKind, Message, Timestamp};

    use super::*;

    pub fn accepted(key: i64, payload: Option<Vec<u8>>, endpoints: Vec<EndpointId>) -> Arc<NewMessage> {
        let message = Message {
            id: MessageId::from_key_and_tail(key, [0; 12]),
            app: AppId::from_bytes([2; 20]),
            event_type: "a.b".to_owned(),
            event_id: None,
            payload: payload.map(Into::into),
            content_type: "application/json".to_owned(),
            channels: vec![],
            tags: vec![],
            created_at: Timestamp(5),
            deliver_at: None,
            payload_expires_at: Timestamp(7),
            origin: None,
        };
        Arc::new(NewMessage { message, endpoints, idempotency: None, app_version: None })
    }

    /// Broken: whoever has got a shard a moment ago learns of what is accepted for it when it next looks, a quarter of a second later.
    #[tokio::test]
    async fn owners_are_told_and_while_nobody_knows_who_they_are_all_are_nudged() {
        let config = LinkConfig { listen: ([127, 0, 0, 1], 0).into(), advertise: None, key: LinkKey::new([3; 32]) };
        let (links, _listener) = Links::bind(Some(&config)).await.unwrap();
        let (known, unknown) = (EndpointId::from_bytes([5; 20]), EndpointId::from_bytes([6; 20]));
        assert_ne!(Shard::of(known), Shard::of(unknown));
        {
            let mut peers = links.peers.write();
            peers.owners[Shard::of(known).index()] = 7;
            peers.links = HashMap::from([(7, Link::to_nobody()), (8, Link::to_nobody())]);
        }
        let waiting = || [7, 8].map(|epoch| links.peers.read().links[&epoch].waiting());
        let now = std::time::Instant::now();
        links.tell_owners(&[accepted(1, None, vec![known])], &[Shard::of(known)].into_iter().collect(), now);
        assert_eq!(waiting(), [(0, false), (0, false)], "what is this node's own is nobody else's business");
        links.tell_owners(&[accepted(1, None, vec![known])], &ShardSet::EMPTY, now);
        assert_eq!(waiting(), [(1, false), (0, false)]);
        links.tell_owners(&[accepted(2, None, vec![unknown])], &ShardSet::EMPTY, now);
        assert_eq!(waiting(), [(1, true), (0, true)]);
    }
}
