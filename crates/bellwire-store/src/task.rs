//! Background tasks: long work that survives a restart because its position is stored.

use async_trait::async_trait;
use bellwire_core::{AppId, Endpoint, EndpointId, MessageId, OrgId, TaskId, Timestamp};

use crate::{DueDelivery, IdempotencyRecord, Result, Written};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskKind {
    /// `endpoint.recover`
    EndpointRecover = 0,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskStatus {
    Running = 0,
    Finished = 1,
    Failed = 2,
}

#[derive(Clone, Debug)]
pub struct Task {
    pub id: TaskId,
    pub org: OrgId,
    pub kind: TaskKind,
    pub status: TaskStatus,
    pub app: AppId,
    pub endpoint: EndpointId,
    pub since: Timestamp,
    pub until: Timestamp,
    /// The last message looked at.
    pub position: Option<MessageId>,
    pub messages_sent: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[async_trait]
pub trait TaskStore {
    async fn create_task(&self, task: Task, idem: Option<IdempotencyRecord>) -> Result<Written<Task>>;
    async fn get_task(&self, org: OrgId, id: TaskId) -> Result<Option<Task>>;
    /// By id; for the API's list and, with `running_only` and no organisation, for resuming at start.
    async fn list_tasks(
        &self,
        org: Option<OrgId>,
        running_only: bool,
        page: bellwire_core::PageQuery<TaskId>,
    ) -> Result<bellwire_core::Page<Task>>;
    /// One bounded step of a recovery: looks at up to `limit` messages of the window after `task.position`, requeues (as a
    /// scheduled delivery with `tries` 0, due at `now`) those `endpoint` wants (`Endpoint::wants`) that have no successful attempt and are
    /// not unfinished already, including those it missed while disabled; stores position, count and (at the end) `Finished`. Messages without payload are
    /// passed over. The sink is told as by [`crate::DeliveryStore::requeue`]. Repeating a step after a crash requeues nothing twice that is still unfinished.
    /// Where several nodes share the store, a task that somebody else has taken further, or ended, comes back as it now stands, with nothing requeued.
    /// Errors: [`crate::StoreError::Fenced`] if the endpoint's shard is not local: its owner works on it.
    async fn recover_step(
        &self,
        task: &Task,
        endpoint: &Endpoint,
        now: Timestamp,
        limit: usize,
    ) -> Result<(Task, Vec<DueDelivery>)>;
    async fn finish_task(&self, id: TaskId, status: TaskStatus, now: Timestamp) -> Result<()>;
}
