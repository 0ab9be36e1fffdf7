//! Background tasks on the wire.

use bellwire_store::{Task, TaskKind, TaskStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::text::DateTime;

/// The answer to starting a task.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoverOut {
    #[schema(min_length = 33, max_length = 33, pattern = "^qtask_[A-Za-z0-9]{27}$")]
    pub id: String,
    /// `running`, `finished` or `failed`.
    pub status: &'static str,
    /// `endpoint.recover`
    pub task: &'static str,
    pub updated_at: DateTime,
}

/// A background task as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackgroundTaskOut {
    pub data: TaskData,
    #[schema(min_length = 33, max_length = 33, pattern = "^qtask_[A-Za-z0-9]{27}$")]
    pub id: String,
    pub status: &'static str,
    pub task: &'static str,
    pub updated_at: DateTime,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskData {
    pub messages_sent: u64,
    pub app_id: String,
    pub endpoint_id: String,
    pub since: DateTime,
    pub until: DateTime,
}

/// What `status` and `task` can be.
pub const STATUSES: &[&str] = &["running", "finished", "failed"];
pub const KINDS: &[&str] = &["endpoint.recover"];

pub fn status_text(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Running => "running",
        TaskStatus::Finished => "finished",
        TaskStatus::Failed => "failed",
    }
}

pub fn kind_text(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::EndpointRecover => "endpoint.recover",
    }
}

impl From<&Task> for RecoverOut {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id.to_string(),
            status: status_text(task.status),
            task: kind_text(task.kind),
            updated_at: DateTime(task.updated_at),
        }
    }
}

impl From<Task> for BackgroundTaskOut {
    fn from(task: Task) -> Self {
        Self {
            data: TaskData {
                messages_sent: task.messages_sent,
                app_id: task.app.to_string(),
                endpoint_id: task.endpoint.to_string(),
                since: DateTime(task.since),
                until: DateTime(task.until),
            },
            id: task.id.to_string(),
            status: status_text(task.status),
            task: kind_text(task.kind),
            updated_at: DateTime(task.updated_at),
        }
    }
}
