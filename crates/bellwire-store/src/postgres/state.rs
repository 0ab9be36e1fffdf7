//! How deliveries stand: worked out from their attempts and their rows in retry, outcome and queue, all seen at one moment.

use std::collections::BTreeMap;

use bellwire_core::{AttemptStatus, Timestamp, Trigger};
use tokio_postgres::Row;

use super::connection::Conn;
use super::fault::Outcome;
use super::message::Budget;
use super::param::p;
use super::row;
use crate::keyset::KeyRange;

/// `outcome.state`
pub const EXHAUSTED: i16 = 1;
pub const CANCELLED: i16 = 2;

pub fn trigger(code: i16) -> Trigger {
    if code == Trigger::Manual as i16 { Trigger::Manual } else { Trigger::Scheduled }
}

/// A status and, of one that waits, until when.
pub type State = (AttemptStatus, Option<Timestamp>);

/// What the tables have to say about one delivery.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    best: Option<i64>,
    due_at: Option<i64>,
    ended: Option<i64>,
    is_queued: bool,
}

impl Facts {
    /// `None`: it does not exist.
    fn state(self) -> Option<State> {
        if self.best == Some(i64::from(AttemptStatus::Success as u8)) {
            return Some((AttemptStatus::Success, None));
        }
        if let Some(due_at) = self.due_at {
            return Some((AttemptStatus::Pending, Some(Timestamp(due_at))));
        }
        if let Some(ended) = self.ended {
            let is_cancelled = ended == i64::from(CANCELLED);
            return Some((if is_cancelled { AttemptStatus::Canceled } else { AttemptStatus::Fail }, None));
        }
        if self.best.is_some() {
            return Some((AttemptStatus::Fail, None));
        }
        self.is_queued.then_some((AttemptStatus::Pending, None))
    }
}

/// One statement, so that a delivery that moves from one table to another meanwhile is neither missed nor seen twice.
fn sql(of: &str) -> String {
    format!(
        "SELECT message, endpoint, 0 AS source, min(status)::bigint AS value FROM attempt WHERE {of} GROUP BY message, endpoint \
         UNION ALL SELECT message, endpoint, 1, due_at FROM retry WHERE {of} \
         UNION ALL SELECT message, endpoint, 2, state::bigint FROM outcome WHERE {of} \
         UNION ALL SELECT message, endpoint, 3, 0 FROM queue WHERE {of}"
    )
}

fn states(rows: &[Row]) -> Outcome<BTreeMap<(i64, i64), State>> {
    let mut facts: BTreeMap<(i64, i64), Facts> = BTreeMap::new();
    for found in rows {
        let value: i64 = row::get(found, 3)?;
        let facts = facts.entry((row::get(found, 0)?, row::get(found, 1)?)).or_default();
        match row::get::<i32>(found, 2)? {
            0 => facts.best = Some(value),
            1 => facts.due_at = Some(value),
            2 => facts.ended = Some(value),
            _ => facts.is_queued = true,
        }
    }
    Ok(facts.into_iter().filter_map(|(delivery, facts)| Some((delivery, facts.state()?))).collect())
}

/// How the deliveries of these messages to one endpoint stand, by message; those that do not exist are left out.
pub async fn of_endpoint(conn: &Conn, budget: &Budget, messages: &[i64], endpoint: i64) -> Outcome<BTreeMap<i64, State>> {
    let messages = messages.to_vec();
    let rows = budget.query(conn, &sql("message = ANY($1) AND endpoint = $2"), &[p(&messages), p(&endpoint)]).await?;
    Ok(states(&rows)?.into_iter().map(|((message, _), state)| (message, state)).collect())
}

/// Every endpoint that has something to do with the message.
pub async fn of_message(conn: &Conn, message: i64) -> Outcome<BTreeMap<i64, State>> {
    let rows = conn.query(&sql("message = $1"), &[p(&message)]).await?;
    Ok(states(&rows)?.into_iter().map(|((_, endpoint), state)| (endpoint, state)).collect())
}

/// Retries that wait and first tries outstanding, of messages in `made`. A repeat of what had succeeded is a success.
pub async fn unfinished(conn: &Conn, budget: &Budget, endpoint: i64, made: KeyRange) -> Outcome<i64> {
    let sql = "SELECT (SELECT count(*) FROM retry WHERE endpoint = $1 AND message >= $2 AND message < $3 AND NOT is_delivered) \
         + (SELECT count(*) FROM queue WHERE endpoint = $1 AND message >= $2 AND message < $3 \
            AND NOT EXISTS (SELECT 1 FROM retry WHERE retry.message = queue.message AND retry.endpoint = queue.endpoint))";
    let rows = budget.query(conn, sql, &[p(&endpoint), p(&made.from), p(&made.to)]).await?;
    rows.first().map_or(Ok(0), |found| row::get(found, 0))
}
