//! Repeating deliveries on request: one by hand, or all that an endpoint missed in a window of time.
//! Invariant: a recovery survives a restart and a change of its endpoint's node, because its position is stored with every step.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{AppId, Direction, EndpointId, MessageId, PageQuery, TaskId};
use bellwire_store::{IdempotencyRecord, StoreError, Task, TaskKind, TaskStatus, Written};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Engine;

/// Messages looked at in one step: one transaction.
const STEP: usize = 500;
const PAUSE: Duration = Duration::from_millis(500);
/// A task asked for on another node is found within this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Tasks that nobody works on are taken up while fewer than this run; those asked for here start at once.
const RESUMED_MAX: usize = 16;

impl Engine {
    /// Sends a message to an endpoint once more, now. Durable when it returns.
    pub async fn resend(
        &self,
        app: AppId,
        message: MessageId,
        endpoint: EndpointId,
        idem: Option<IdempotencyRecord>,
    ) -> Result<Written<()>, StoreError> {
        Ok(match self.store.requeue(app, message, endpoint, self.now(), idem).await? {
            Written::Fresh(_) => {
                // The sink has queued it; starting it here saves a wake-up.
                self.pump();
                self.links.nudge_owner(endpoint);
                Written::Fresh(())
            }
            Written::Replayed { status, response } => Written::Replayed { status, response },
        })
    }

    /// Stores the task; the node that delivers to its endpoint works on it in the background.
    pub async fn recover(&self, task: Task, idem: Option<IdempotencyRecord>) -> Result<Written<Task>, StoreError> {
        let written = self.store.create_task(task, idem).await?;
        if let Written::Fresh(task) = &written {
            // If that is another node, it finds it.
            self.start_task(task.clone());
        }
        Ok(written)
    }

    /// Unless it runs already, or is another node's to run.
    fn start_task(&self, task: Task) {
        let Some(engine) = self.this.upgrade() else { return };
        if self.shards.has(task.endpoint) && self.tasks.0.lock().insert(task.id) {
            self.runtime.spawn(async move {
                let id = task.id;
                run(&engine, task).await;
                engine.tasks.0.lock().remove(&id);
                engine.tasks.1.notify_one();
            });
        }
    }
}

/// The tasks this node works on, and a signal when one has ended.
#[derive(Default)]
pub struct Running(Mutex<HashSet<TaskId>>, Notify);

impl Running {
    fn has_room(&self) -> bool {
        self.0.lock().len() < RESUMED_MAX
    }
}

/// Goes on with tasks that nobody works on: those of a process that has ended, and those asked for on other nodes.
pub async fn run_tasks(engine: Arc<Engine>) {
    while !engine.is_stopping() {
        match start_running(&engine).await {
            Ok(()) if !engine.shards.is_shared() => return,
            Ok(()) => {
                tokio::select! {
                    () = engine.sleep(LOOK_EVERY) => {}
                    () = engine.shards.gained.notified() => {}
                }
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "background tasks could not be read; trying again");
                engine.sleep(PAUSE).await;
            }
        }
    }
}

async fn start_running(engine: &Arc<Engine>) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = PageQuery { limit: 100, order: Direction::Ascending, after, backwards: false };
        let page = engine.store.list_tasks(None, true, page).await?;
        after = page.rows.last().map(|task| task.id);
        for task in page.rows {
            while !engine.tasks.has_room() && !engine.is_stopping() {
                let _ = tokio::time::timeout(LOOK_EVERY, engine.tasks.1.notified()).await;
            }
            engine.start_task(task);
        }
        if page.done || engine.is_stopping() {
            return Ok(());
        }
    }
}

/// One step after another, as long as the endpoint is this node's to deliver to.
async fn run(engine: &Arc<Engine>, task: Task) {
    let TaskKind::EndpointRecover = task.kind;
    // As it stands now: it may have been listed before it was worked on last.
    let Ok(Some(mut task)) = engine.store.get_task(task.org, task.id).await else { return };
    while task.status == TaskStatus::Running {
        if engine.is_stopping() || !engine.shards.has(task.endpoint) {
            return;
        }
        match step(engine, &task).await {
            Ok(Some(next)) => task = next,
            Ok(None) => {
                tracing::warn!(task.id = %task.id, endpoint.id = %task.endpoint, "recovery ended: the endpoint is gone");
                let _ = engine.store.finish_task(task.id, TaskStatus::Failed, engine.now()).await;
                return;
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(task.id = %task.id, %error, "recovery step failed; trying again");
                engine.sleep(PAUSE).await;
            }
        }
    }
    tracing::info!(task.id = %task.id, endpoint.id = %task.endpoint, messages = task.messages_sent, "recovery finished");
}

/// `None`: the endpoint was deleted.
async fn step(engine: &Engine, task: &Task) -> Result<Option<Task>, StoreError> {
    let Some((_, endpoint)) = engine.store.endpoint_for_delivery(task.endpoint).await? else { return Ok(None) };
    // Not faster than deliveries go out.
    engine.queue.hold_back(task.app, PAUSE).await;
    let (task, _) = engine.store.recover_step(task, &endpoint, engine.now(), STEP).await?;
    Ok(Some(task))
}
