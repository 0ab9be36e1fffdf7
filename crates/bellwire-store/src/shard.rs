//! Which node works on which deliveries: membership, ownership of shards, and the handing over of what one node accepted and
//! another delivers.
//!
//! * A node *joins* and gets an epoch, larger than all before. It *beats*: a counter in its row goes up. Nobody compares clocks:
//!   who sees a counter stand still for a lease time on its own monotonic clock may *declare* that node *dead*.
//! * Every write of a node that rests on owning a shard holds its epoch's fence in the same transaction. Declaring it dead takes
//!   the fence away, after waiting for such writes under way: from then on the node changes nothing.
//! * A shard has one owner or none. Only its owner gives it up, or whoever declares the owner dead.
//! * The *local* shards are those whose deliveries commits tell the sink of. What commits for another shard is kept as handed
//!   over, and its owner fetches it; or takes it at once by the word of whoever committed it.
//!
//! The embedded store belongs to one process: it joins as epoch 0 and owns everything.

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_core::{AppId, EndpointId, MessageId, ShardSet, Timestamp};

use crate::{DueDelivery, NewMessage, Result};

/// What a node says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// For people: host name or what the operator calls it.
    pub name: String,
    /// Whether it delivers, and so takes shards; else it only accepts.
    pub is_worker: bool,
    pub version: String,
    /// `host:port` by which the other nodes reach it; empty: not at all.
    pub address: String,
}

/// What a node held while the store had it as nobody's or another's: the store was put back to a former state. Until the node noticed,
/// whoever took these shards and the node itself both worked on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    pub shards: ShardSet,
    /// Messages made before were known to the store's owners of these shards.
    pub since: Timestamp,
}

/// A node's membership, until it leaves or is declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub epoch: i64,
    /// Its number among the living, for ids; `None`: it is alone.
    pub slot: Option<u16>,
}

/// A node as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub epoch: i64,
    pub slot: u16,
    pub beat: i64,
    pub info: NodeInfo,
}

/// How things stand: all living nodes by epoch, and each shard's owner by its epoch ([`bellwire_core::SHARDS`] of them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub owners: Vec<Option<i64>>,
}

/// What other nodes have accepted for shards of this one.
#[derive(Clone, Debug, Default)]
pub struct HandedOver {
    /// First tries, each with its message if that was cheap to read along.
    pub first_tries: Vec<(DueDelivery, Option<Arc<NewMessage>>)>,
    /// Scheduled deliveries, recoveries and manual tries.
    pub retries: Vec<DueDelivery>,
    /// First tries whose message was known.
    pub told: usize,
    /// There is more: ask again at once.
    pub more: bool,
    /// Something was left where it is: ask again soon.
    pub left: bool,
}

/// What a node has heard of messages from those who accepted them.
#[derive(Clone, Copy)]
pub struct Known<'k> {
    /// By their keys: each as it was accepted, with at least the endpoints of this node.
    pub message: &'k (dyn Fn(i64) -> Option<Arc<NewMessage>> + Sync),
    /// It hears of most of them. What it has not heard of is left where it is once: word of it may be on the way.
    pub is_told: bool,
}

impl Known<'_> {
    pub const NOTHING: Self = Self { message: &|_| None, is_told: false };
}

/// Applications written to (themselves or their endpoints) by anybody since the last time asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Too many to name, or unknown: forget everything.
    All,
    Some(Vec<AppId>),
}

#[async_trait]
pub trait ShardStore {
    /// Whether other processes may work on this store at the same time.
    fn is_shared(&self) -> bool;
    /// Becomes a member with a new epoch; an earlier membership of this process is over.
    /// What it accepted of `forgotten` is left to whoever owns that now, who may be delivering it already.
    async fn join(&self, node: NodeInfo, forgotten: Option<Forgotten>) -> Result<Membership>;
    /// One heartbeat. [`crate::StoreError::Fenced`]: declared dead; join again.
    async fn beat(&self) -> Result<Cluster>;
    /// Takes those of `wanted` that nobody owns. Returns which.
    async fn claim_shards(&self, wanted: ShardSet) -> Result<ShardSet>;
    /// Gives up shards this node owns; nothing of them may be running, queued or local any more.
    async fn release_shards(&self, shards: ShardSet) -> Result<()>;
    /// Ends the membership of another node whose counter still stands at `beat`: its shards are nobody's, its writes change
    /// nothing from now on. Waits for writes of its that are under way. False: it lives, or is gone already.
    async fn declare_dead(&self, epoch: i64, beat: i64) -> Result<bool>;
    /// Says that this node takes no shards any more and is giving its own up, so that the others take them as they come free.
    async fn retire(&self) -> Result<()>;
    /// Gives everything up and ends the membership.
    async fn leave(&self) -> Result<()>;
    /// From when this returns, commits tell the sink of deliveries in exactly these shards. Waits for commits begun before.
    async fn set_local(&self, shards: ShardSet) -> Result<()>;
    /// Reads everything unfinished of shards just claimed and not local yet: hands first tries to `feed` page by page, in message
    /// order; retries are read by [`crate::DeliveryStore::load_retries`]. What it does not hand out commits later, and is told to the sink or
    /// handed over: nothing twice, nothing missed. `last_key` is the last key before this process accepted anything (embedded store).
    async fn adopt(&self, shards: ShardSet, last_key: i64, feed: &mut (dyn FnMut(Vec<DueDelivery>) + Send)) -> Result<()>;
    /// Whether this node is to deliver a first try that a peer has committed and handed over for it, by the peer's word: at once, and what was
    /// handed over is then not handed out again. For shards held since before that commit began, and not being given up. False: it has been
    /// handed out, or is left to [`Self::take_handed_over`].
    fn take_by_word(&self, message: MessageId, endpoint: EndpointId) -> bool;
    /// Fetches what was handed over for these shards; each is handed out once.
    /// Messages that `known` has, by their keys, need not be read.
    async fn take_handed_over(&self, shards: ShardSet, known: Known<'_>) -> Result<HandedOver>;
    /// What to forget in caches. The first call says [`Changes::All`].
    async fn changes(&self) -> Result<Changes>;
    /// Goes up with every write to the application or its endpoints: read *before* what is cached, and given along with a
    /// fan-out ([`NewMessage::app_version`]). 0 where nobody else writes. `None`: there is no such application.
    async fn application_version(&self, app: AppId) -> Result<Option<i64>>;
}
