//! [`ShardStore`]: membership and ownership; what goes from one node to another is in `handover.rs`.
//!
//! Every write that rests on owning a shard locks one of the node's rows in `fence`, each kind of write its own (`writer.rs`).
//! Declaring a node dead deletes them, which waits for such writes under way; giving up shards locks those of writes, for the same
//! reason: a write whose connection was lost may still be going on in the server.

use std::collections::HashSet;

use async_trait::async_trait;
use bellwire_core::{AppId, EndpointId, IdKind, MessageId, SHARDS, Shard, ShardSet, Trigger, id::ID_SLOTS};
use parking_lot::Mutex;
use tokio_postgres::Row;

use super::PostgresStore;
use super::connection::{Conn, READ_MAX};
use super::fault::{Fault, Outcome};
use super::handed_out::HandedOut;
use super::handover;
use super::param::p;
use super::row;
use super::writer::{ADOPT_LANE, LANES};
use crate::{
    Changes, Cluster, DueDelivery, Forgotten, HandedOver, Known, Membership, Node, NodeInfo, Result, ShardStore, StoreError,
};

/// Rows read at a time when shards are adopted.
const PAGE: i64 = 2_048;
/// Changes read at a time; beyond, everything is forgotten.
const CHANGES_MAX: i64 = 4_096;
/// Any number that nobody else uses for advisory locks in this database: one node joins at a time.
const JOIN_LOCK: i64 = 0x6265_6c6c_6a6f_696e;

/// Where the next look for changes begins, by transaction, and which (transaction, application) from there on are known already.
type ChangesSeen = (i64, HashSet<(i64, i64)>);

/// What a node remembers between calls.
#[derive(Default)]
pub struct Seen {
    changes: Mutex<Option<ChangesSeen>>,
    pub(super) handed_out: Mutex<HandedOut>,
    /// Rows of `handover` that were left there once.
    pub(super) left: Mutex<HashSet<i64>>,
    /// A membership that is over, and is not known to be gone from the database.
    former: Mutex<Option<i64>>,
}

pub(super) fn numbers(shards: &ShardSet) -> Vec<i16> {
    shards.iter().map(|shard| i16::from(shard.0)).collect()
}

fn shard_set(rows: &[Row]) -> Outcome<ShardSet> {
    rows.iter().map(|found| Ok(Shard(u8::try_from(row::get::<i16>(found, 0)?).unwrap_or(0)))).collect()
}

/// Ends a membership: waits for its writes under way, then its shards are nobody's.
async fn bury(tx: &Conn, epoch: i64) -> Outcome<()> {
    tx.execute("DELETE FROM fence WHERE epoch = $1", &[p(&epoch)]).await?;
    // A statement of its own: it also sees what was claimed while the first one waited.
    tx.execute("UPDATE shard SET owner = NULL WHERE owner = $1", &[p(&epoch)]).await?;
    Ok(())
}

/// One of the node's fences, held until the transaction ends.
async fn hold(tx: &Conn, epoch: i64, lane: i16) -> Outcome<()> {
    let sql = "SELECT 1 FROM fence WHERE epoch = $1 AND lane = $2 FOR NO KEY UPDATE";
    match tx.query_opt(sql, &[p(&epoch), p(&lane)]).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::Fenced.into()),
    }
}

pub(super) fn due(found: &Row, at: usize) -> Outcome<DueDelivery> {
    let message: MessageId = row::id(found, at, at + 1)?;
    Ok(DueDelivery {
        message,
        endpoint: row::id(found, at + 2, at + 3)?,
        app: row::id(found, at + 4, at + 5)?,
        tries: 0,
        due_at: message.created(),
        trigger: Trigger::Scheduled,
        resume_at: None,
    })
}

/// [`due`] of a row that can be read. Another one is reported and passed over: it must not keep the rest of its shard from being
/// delivered.
pub(super) fn due_or_report(found: &Row, at: usize) -> Option<DueDelivery> {
    match due(found, at) {
        Ok(due) => Some(due),
        Err(fault) => {
            report(found, at, fault);
            None
        }
    }
}

pub(super) fn report(found: &Row, at: usize, fault: Fault) {
    let (message, endpoint) = (found.try_get::<_, i64>(at).ok(), found.try_get::<_, i64>(at + 2).ok());
    let error = StoreError::from(fault);
    tracing::error!(%error, ?message, ?endpoint, "an unfinished delivery cannot be read; it is passed over");
}

impl PostgresStore {
    pub(super) fn epoch(&self) -> Outcome<i64> {
        Ok(self.writer.membership().ok_or(StoreError::Fenced)?.epoch)
    }

    async fn join_inner(&self, info: &NodeInfo, forgotten: Option<&Forgotten>) -> Outcome<Membership> {
        let former = {
            let mut former = self.seen.former.lock();
            *former = self.writer.membership().map(|membership| membership.epoch).or(*former);
            *former
        };
        self.writer.become_member(None).await;
        let mut conn = self.members.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            tx.query("SELECT pg_advisory_xact_lock($1)", &[p(&JOIN_LOCK)]).await?;
            if let Some(former) = former {
                tx.execute("DELETE FROM node WHERE epoch = $1", &[p(&former)]).await?;
                bury(&tx, former).await?;
            }
            if let Some(forgotten) = forgotten {
                handover::give_back(&tx, forgotten).await?;
            }
            let epoch: i64 = row::get(&tx.query_one("SELECT nextval('node_epoch')", &[]).await?, 0)?;
            // From another place each time: a number just become free may still be in use by a node that does not know it is dead.
            let slots = i64::from(ID_SLOTS);
            let sql = "SELECT slot::smallint FROM (SELECT ($1 + step) % $2 AS slot, step FROM generate_series(0, $2 - 1) AS step) AS slots \
                 WHERE NOT EXISTS (SELECT 1 FROM node WHERE node.slot = slots.slot) ORDER BY step LIMIT 1";
            let Some(found) = tx.query_opt(sql, &[p(&epoch), p(&slots)]).await? else {
                return Err(StoreError::Busy("there are as many nodes as there can be").into());
            };
            let slot: i16 = row::get(&found, 0)?;
            let sql = "INSERT INTO node (epoch, slot, beat, name, is_worker, version, address) VALUES ($1, $2, 0, $3, $4, $5, $6)";
            tx.execute(sql, &[p(&epoch), p(&slot), p(&info.name), p(&info.is_worker), p(&info.version), p(&info.address)]).await?;
            let sql = "INSERT INTO fence (epoch, lane) SELECT $1, lane FROM generate_series(0, $2 - 1) AS lane";
            tx.execute(sql, &[p(&epoch), p(&i32::from(LANES))]).await?;
            Ok(Membership { epoch, slot: u16::try_from(slot).ok() })
        }
        .await;
        let membership = tx.end(result).await?;
        self.seen.handed_out.lock().clear();
        *self.seen.former.lock() = None;
        self.writer.become_member(Some(membership)).await;
        Ok(membership)
    }

    async fn beat_inner(&self) -> Outcome<Cluster> {
        let epoch = self.epoch()?;
        let conn = self.members.get().await?;
        let sql = "WITH beaten AS (UPDATE node SET beat = beat + 1 WHERE epoch = $1 RETURNING epoch, beat) \
             SELECT n.epoch, n.slot, coalesce(b.beat, n.beat), n.name, n.is_worker, n.version, n.address, b.epoch IS NOT NULL, \
             CASE WHEN n.epoch = $1 THEN (SELECT array_agg(owner ORDER BY id) FROM shard) END \
             FROM node AS n LEFT JOIN beaten AS b ON b.epoch = n.epoch ORDER BY n.epoch";
        let mut cluster = Cluster { nodes: Vec::new(), owners: Vec::new() };
        for found in conn.query_kept(READ_MAX, sql, &[p(&epoch)]).await? {
            if row::get(&found, 7)? {
                cluster.owners = row::get(&found, 8)?;
            }
            cluster.nodes.push(Node {
                epoch: row::get(&found, 0)?,
                slot: u16::try_from(row::get::<i16>(&found, 1)?).unwrap_or(0),
                beat: row::get(&found, 2)?,
                info: NodeInfo {
                    name: row::get(&found, 3)?,
                    is_worker: row::get(&found, 4)?,
                    version: row::get(&found, 5)?,
                    address: row::get(&found, 6)?,
                },
            });
        }
        // Its own row was not there to beat.
        if cluster.owners.is_empty() {
            return Err(StoreError::Fenced.into());
        }
        cluster.owners.resize(SHARDS, None);
        Ok(cluster)
    }

    async fn claim_inner(&self, wanted: &ShardSet) -> Outcome<ShardSet> {
        let epoch = self.epoch()?;
        let mut conn = self.members.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            // Nobody declares this node dead until the claim is there to be taken back.
            let sql = "SELECT 1 FROM node WHERE epoch = $1 FOR NO KEY UPDATE";
            if tx.query_opt(sql, &[p(&epoch)]).await?.is_none() {
                return Err(StoreError::Fenced.into());
            }
            let sql = "UPDATE shard SET owner = $1 FROM (SELECT id FROM shard WHERE id = ANY($2) AND owner IS NULL ORDER BY id \
                 FOR UPDATE SKIP LOCKED) AS free WHERE shard.id = free.id AND shard.owner IS NULL RETURNING shard.id";
            shard_set(&tx.query(sql, &[p(&epoch), p(&numbers(wanted))]).await?)
        }
        .await;
        tx.end(result).await
    }

    async fn release_inner(&self, shards: &ShardSet) -> Outcome<()> {
        let epoch = self.epoch()?;
        let mut conn = self.members.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            // Not the lane that adopts, nor later ones: reading what stands in shards just taken holds it for seconds, and what it does
            // for shards that are then given up is rolled back with its connection, or seen by whoever claims them.
            let sql = "SELECT 1 FROM fence WHERE epoch = $1 AND lane < $2 ORDER BY lane FOR NO KEY UPDATE";
            if tx.query(sql, &[p(&epoch), p(&ADOPT_LANE)]).await?.is_empty() {
                return Err(StoreError::Fenced.into());
            }
            let sql = "UPDATE shard SET owner = NULL WHERE id = ANY($1) AND owner = $2";
            tx.execute(sql, &[p(&numbers(shards)), p(&epoch)]).await?;
            Ok(())
        }
        .await;
        tx.end(result).await
    }

    async fn retire_inner(&self) -> Outcome<()> {
        let epoch = self.epoch()?;
        let conn = self.members.get().await?;
        conn.execute("UPDATE node SET is_worker = false WHERE epoch = $1", &[p(&epoch)]).await?;
        Ok(())
    }

    async fn end_membership(&self, epoch: i64, beat: Option<i64>) -> Outcome<bool> {
        let mut conn = self.members.get().await?;
        let tx = conn.begin().await?;
        let result = async {
            let sql = "DELETE FROM node WHERE epoch = $1 AND ($2 IS NULL OR beat = $2)";
            if tx.execute(sql, &[p(&epoch), p(&beat)]).await? == 0 {
                return Ok(false);
            }
            bury(&tx, epoch).await?;
            Ok(true)
        }
        .await;
        tx.end(result).await
    }

    /// One moment of the queue, with what was handed over by then taken away in the same transaction.
    async fn adopt_inner(&self, shards: &ShardSet, feed: &mut (dyn FnMut(Vec<DueDelivery>) + Send)) -> Outcome<()> {
        let epoch = self.epoch()?;
        let shards = numbers(shards);
        let mut conn = self.members.get().await?;
        let tx = conn.begin_snapshot().await?;
        let result = async {
            hold(&tx, epoch, ADOPT_LANE).await?;
            tx.execute("DELETE FROM handover WHERE shard = ANY($1)", &[p(&shards)]).await?;
            let sql = "SELECT q.message, q.tail, q.endpoint, endpoint.tail, q.app, application.tail FROM \
                 (SELECT message, tail, endpoint, app FROM queue WHERE (message, endpoint) > ($1, $2) AND shard = ANY($3) \
                 ORDER BY message, endpoint LIMIT $4) AS q JOIN endpoint ON endpoint.id = q.endpoint \
                 JOIN application ON application.id = q.app ORDER BY q.message, q.endpoint";
            let (mut message, mut endpoint) = (i64::MIN, i64::MIN);
            loop {
                let rows = tx.query(sql, &[p(&message), p(&endpoint), p(&shards), p(&PAGE)]).await?;
                let Some(last) = rows.last() else { return Ok(()) };
                (message, endpoint) = (row::get(last, 0)?, row::get(last, 2)?);
                feed(rows.iter().filter_map(|found| due_or_report(found, 0)).collect());
            }
        }
        .await;
        tx.end(result).await
    }

    async fn changes_inner(&self) -> Outcome<Changes> {
        let conn = self.members.get().await?;
        let before = self.seen.changes.lock().take();
        let Some((from, known)) = before else {
            let found = conn.query_one("SELECT txid_snapshot_xmin(txid_current_snapshot())", &[]).await?;
            *self.seen.changes.lock() = Some((row::get(&found, 0)?, HashSet::new()));
            return Ok(Changes::All);
        };
        // Transactions from xmin on may still be open: they are asked about again.
        let sql = "SELECT now.xmin, c.transaction, c.app, c.tail FROM (SELECT txid_snapshot_xmin(txid_current_snapshot()) AS xmin) AS now \
             LEFT JOIN (SELECT transaction, app, tail FROM change WHERE transaction >= $1 LIMIT $2) AS c ON TRUE";
        let rows = conn.query_kept(READ_MAX, sql, &[p(&from), p(&CHANGES_MAX)]).await?;
        let Some(first) = rows.first() else { return Ok(Changes::All) };
        let xmin: i64 = row::get(first, 0)?;
        if rows.len() >= usize::try_from(CHANGES_MAX).unwrap_or(usize::MAX) {
            *self.seen.changes.lock() = Some((xmin, HashSet::new()));
            return Ok(Changes::All);
        }
        let (mut changed, mut still) = (Vec::new(), HashSet::new());
        for found in &rows {
            let Some(transaction) = row::get::<Option<i64>>(found, 1)? else { continue };
            let change = (transaction, row::get(found, 2)?);
            if !known.contains(&change) {
                changed.push(row::id::<AppId>(found, 2, 3)?);
            }
            if transaction >= xmin {
                still.insert(change);
            }
        }
        *self.seen.changes.lock() = Some((xmin, still));
        changed.sort_unstable();
        changed.dedup();
        Ok(Changes::Some(changed))
    }
}

#[async_trait]
impl ShardStore for PostgresStore {
    fn is_shared(&self) -> bool {
        true
    }

    async fn join(&self, node: NodeInfo, forgotten: Option<Forgotten>) -> Result<Membership> {
        Ok(self.join_inner(&node, forgotten.as_ref()).await?)
    }

    async fn beat(&self) -> Result<Cluster> {
        Ok(self.beat_inner().await?)
    }

    async fn claim_shards(&self, wanted: ShardSet) -> Result<ShardSet> {
        Ok(self.claim_inner(&wanted).await?)
    }

    async fn release_shards(&self, shards: ShardSet) -> Result<()> {
        Ok(self.release_inner(&shards).await?)
    }

    async fn declare_dead(&self, epoch: i64, beat: i64) -> Result<bool> {
        Ok(self.end_membership(epoch, Some(beat)).await?)
    }

    async fn retire(&self) -> Result<()> {
        Ok(self.retire_inner().await?)
    }

    async fn leave(&self) -> Result<()> {
        if let Some(membership) = self.writer.membership() {
            self.writer.become_member(None).await;
            self.end_membership(membership.epoch, None).await?;
        }
        Ok(())
    }

    async fn set_local(&self, shards: ShardSet) -> Result<()> {
        self.writer.set_local(shards).await;
        Ok(())
    }

    async fn adopt(&self, shards: ShardSet, _last_key: i64, feed: &mut (dyn FnMut(Vec<DueDelivery>) + Send)) -> Result<()> {
        Ok(self.adopt_inner(&shards, feed).await?)
    }

    fn take_by_word(&self, message: MessageId, endpoint: EndpointId) -> bool {
        self.seen.handed_out.lock().by_word((message.key(), endpoint.key(), false))
    }

    async fn take_handed_over(&self, shards: ShardSet, known: Known<'_>) -> Result<HandedOver> {
        Ok(self.take_inner(&shards, known).await?)
    }

    async fn changes(&self) -> Result<Changes> {
        Ok(self.changes_inner().await?)
    }

    async fn application_version(&self, app: AppId) -> Result<Option<i64>> {
        let conn = self.db.get().await?;
        let sql = "SELECT version FROM application WHERE id = $1 AND tail = $2 AND deleted_at IS NULL";
        let found = conn.query_opt(sql, &[p(&app.key()), p(&row::tail(&app))]).await.map_err(StoreError::from)?;
        Ok(found.map(|found| row::get(&found, 0)).transpose()?)
    }
}
