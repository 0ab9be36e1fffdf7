//! [`ShardStore`] of a store that belongs to one process: it is its only member and owns everything.

use async_trait::async_trait;
use bellwire_core::{AppId, EndpointId, MessageId, SHARDS, ShardSet};

use super::SqliteStore;
use crate::{
    Changes, Cluster, DeliveryStore, DueDelivery, Forgotten, HandedOver, Known, Membership, NodeInfo, Result, ShardStore,
    StoreError,
};

/// Rows read at a time.
const PAGE: usize = 2_048;
/// Nobody joins before or after.
const EPOCH: i64 = 0;

#[async_trait]
impl ShardStore for SqliteStore {
    fn is_shared(&self) -> bool {
        false
    }

    async fn join(&self, _node: NodeInfo, _forgotten: Option<Forgotten>) -> Result<Membership> {
        Ok(Membership { epoch: EPOCH, slot: None })
    }

    async fn beat(&self) -> Result<Cluster> {
        Ok(Cluster { nodes: Vec::new(), owners: vec![Some(EPOCH); SHARDS] })
    }

    async fn claim_shards(&self, _wanted: ShardSet) -> Result<ShardSet> {
        // None is ever free.
        Ok(ShardSet::EMPTY)
    }

    async fn release_shards(&self, _shards: ShardSet) -> Result<()> {
        Ok(())
    }

    async fn declare_dead(&self, _epoch: i64, _beat: i64) -> Result<bool> {
        Ok(false)
    }

    async fn retire(&self) -> Result<()> {
        Ok(())
    }

    async fn leave(&self) -> Result<()> {
        Ok(())
    }

    async fn set_local(&self, shards: ShardSet) -> Result<()> {
        // Everything is, always: there is nobody to hand over to.
        if shards == ShardSet::ALL || shards.is_empty() {
            return Ok(());
        }
        Err(StoreError::Busy("the embedded store cannot be divided"))
    }

    async fn adopt(&self, shards: ShardSet, last_key: i64, feed: &mut (dyn FnMut(Vec<DueDelivery>) + Send)) -> Result<()> {
        let mut after = None;
        loop {
            let (mut due, next) = self.load_first_tries(None, after, PAGE).await?;
            let seen = due.len();
            // What comes after was accepted by this process, and told to the sink.
            due.retain(|delivery| bellwire_core::IdKind::key(&delivery.message) <= last_key);
            let is_end = due.len() < seen;
            due.retain(|delivery| shards.has(delivery.endpoint));
            feed(due);
            after = next;
            if is_end || next.is_none_or(|next| bellwire_core::IdKind::key(&next) > last_key) {
                return Ok(());
            }
        }
    }

    fn take_by_word(&self, _message: MessageId, _endpoint: EndpointId) -> bool {
        false
    }

    async fn take_handed_over(&self, _shards: ShardSet, _known: Known<'_>) -> Result<HandedOver> {
        Ok(HandedOver::default())
    }

    async fn changes(&self) -> Result<Changes> {
        Ok(Changes::Some(Vec::new()))
    }

    async fn application_version(&self, _app: AppId) -> Result<Option<i64>> {
        Ok(Some(0))
    }
}
