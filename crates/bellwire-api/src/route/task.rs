//! Background tasks: how a recovery stands.

use bellwire_core::{Direction, Page, PageQuery, TaskId};
use bellwire_store::Task;
use http::StatusCode;

use super::page;
use crate::answer::{self, Answer};
use crate::call::Call;
use crate::error::ApiError;
use crate::openapi::operation::{OPERATION, Operation, Param, list_of, of};
use crate::wire::task::{BackgroundTaskOut, KINDS, STATUSES, kind_text, status_text};

const BASE: Operation = Operation { tag: "Background Task", ..OPERATION };

pub const LIST: Operation = Operation {
    id: "v1.background-task.list",
    summary: "List background tasks, newest first",
    params: &[
        Param::Choice { name: "status", of: STATUSES, about: "Only those that stand so." },
        Param::Choice { name: "task", of: KINDS, about: "Only of this kind." },
        Param::Limit,
        Param::Iterator("qtask_"),
        Param::Order,
    ],
    answers: &[(200, list_of::<BackgroundTaskOut>())],
    ..BASE
};

pub async fn list(call: Call) -> Answer {
    let query = call.query()?;
    let (status, kind) = (query.choice("status", STATUSES)?, query.choice("task", KINDS)?);
    let is_wanted = |task: &Task| {
        status.is_none_or(|wanted| status_text(task.status) == wanted) && kind.is_none_or(|wanted| kind_text(task.kind) == wanted)
    };
    let found = wanted(&call, query.page(Direction::Descending)?, is_wanted).await?;
    page(found, BackgroundTaskOut::from, |task| task.id.clone())
}

/// The store knows no such filters: tasks are few. Reads on until the page is full.
async fn wanted(call: &Call, mut asked: PageQuery<TaskId>, is_wanted: impl Fn(&Task) -> bool) -> Result<Page<Task>, ApiError> {
    let org = call.principal()?.org;
    let mut rows: Vec<Task> = Vec::new();
    loop {
        let found = call.store().list_tasks(Some(org), false, asked.clone()).await?;
        let edge = if asked.backwards { found.rows.first() } else { found.rows.last() };
        let Some(edge) = edge.map(|task| task.id) else { return Ok(Page { rows, done: true }) };
        asked.after = Some(edge);
        // In the order of travel, so that what is over the limit is cut at the far end.
        let mut part: Vec<_> = found.rows.into_iter().filter(&is_wanted).collect();
        if asked.backwards {
            part.reverse();
        }
        rows.extend(part);
        if found.done || rows.len() >= asked.limit {
            let done = found.done && rows.len() <= asked.limit;
            rows.truncate(asked.limit);
            if asked.backwards {
                rows.reverse();
            }
            return Ok(Page { rows, done });
        }
    }
}

pub const GET: Operation = Operation {
    id: "v1.background-task.get",
    summary: "Get a background task",
    answers: &[(200, of::<BackgroundTaskOut>())],
    ..BASE
};

pub async fn get(call: Call) -> Answer {
    let part = call.param("task_id")?;
    let missing = || ApiError::not_found("background task", part);
    let id: TaskId = part.parse().map_err(|_| missing())?;
    let task = call.store().get_task(call.principal()?.org, id).await?.ok_or_else(missing)?;
    answer::json(StatusCode::OK, &BackgroundTaskOut::from(task))
}
