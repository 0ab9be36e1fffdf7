//! Repeating deliveries on request: one by hand, or all that an endpoint missed in a window of time.
//! Invariant: a recovery survives a restart, because its position is stored with every step.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{AppId, Direction, EndpointId, MessageId, PageQuery};
use bellwire_store::{IdempotencyRecord, StoreError, Task, TaskKind, TaskStatus, Written};

use crate::Engine;

/// Messages looked at in one step: one transaction.
const STEP: usize = 500;
const PAUSE: Duration = Duration::from_millis(500);

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
                Written::Fresh(())
            }
            Written::Replayed { status, response } => Written::Replayed { status, response },
        })
    }

    /// Stores the task and works on it in the background.
    pub async fn recover(&self, task: Task, idem: Option<IdempotencyRecord>) -> Result<Written<Task>, StoreError> {
        let written = self.store.create_task(task, idem).await?;
        if let (Written::Fresh(task), Some(engine)) = (&written, self.this.upgrade()) {
            self.runtime.spawn(run(engine, task.clone()));
        }
        Ok(written)
    }
}

/// Goes on with the tasks that were running when the process last ended.
pub async fn resume_tasks(engine: Arc<Engine>) {
    let mut after = None;
    loop {
        let page = PageQuery { limit: 100, order: Direction::Ascending, after, backwards: false };
        match engine.store.list_tasks(None, true, page).await {
            Ok(page) => {
                after = page.rows.last().map(|task| task.id);
                for task in page.rows {
                    run(engine.clone(), task).await;
                }
                if page.done {
                    return;
                }
            }
            Err(error) => {
                if engine.is_stopping() || matches!(error, StoreError::Closed) {
                    return;
                }
                tracing::warn!(%error, "background tasks could not be read; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn run(engine: Arc<Engine>, mut task: Task) {
    let TaskKind::EndpointRecover = task.kind;
    while task.status == TaskStatus::Running && !engine.is_stopping() {
        match step(&engine, &task).await {
            Ok(Some(next)) => task = next,
            Ok(None) => {
                tracing::warn!(task.id = %task.id, endpoint.id = %task.endpoint, "recovery ended: the endpoint is gone");
                let _ = engine.store.finish_task(task.id, TaskStatus::Failed, engine.now()).await;
                return;
            }
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(task.id = %task.id, %error, "recovery step failed; trying again");
                tokio::time::sleep(PAUSE).await;
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
