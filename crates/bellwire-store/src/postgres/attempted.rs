//! The messages of an endpoint: found from what the endpoint has, never by looking through its application's messages.

use std::collections::BTreeMap;

use bellwire_core::{AppId, AttemptStatus, EndpointId, IdKind, Message, Page};

use super::attempt::messages_of;
use super::connection::Conn;
use super::fault::Outcome;
use super::message::{Budget, Conditions, beyond, has_content, key_range, windows};
use super::param::p;
use super::row::{self, MESSAGE_COLUMNS, WITH_PAYLOAD};
use super::state::{self, CANCELLED, EXHAUSTED};
use crate::keyset::{KeyRange, Keyset};
use crate::{AttemptedMessage, MessageFilter};

/// Messages looked for at a time when filters leave little.
const CANDIDATES_MIN: usize = 256;
const CANDIDATES_MAX: usize = 16_384;

/// Which tables messages of a status are found in.
#[derive(Clone, Copy)]
struct Sources {
    queue: bool,
    retry: bool,
    /// All, or those of one state.
    outcome: Option<Option<i16>>,
    attempts: bool,
}

impl Sources {
    fn of(status: Option<AttemptStatus>) -> Self {
        let none = Self { queue: false, retry: false, outcome: None, attempts: false };
        match status {
            None => Self { queue: true, retry: true, outcome: Some(None), attempts: true },
            Some(AttemptStatus::Success) => Self { attempts: true, ..none },
            Some(AttemptStatus::Pending) => Self { queue: true, retry: true, ..none },
            Some(AttemptStatus::Fail) => Self { outcome: Some(Some(EXHAUSTED)), ..none },
            Some(AttemptStatus::Canceled) => Self { outcome: Some(Some(CANCELLED)), ..none },
            Some(AttemptStatus::Sending) => none,
        }
    }
}

/// One look for messages.
struct Search {
    endpoint: i64,
    status: Option<AttemptStatus>,
    is_ascending: bool,
}

impl Search {
    /// The next messages in the window that the endpoint may have something to do with, nearest first, each once. All tables in one
    /// statement: a delivery that moves between them meanwhile is not missed. `None`: there is no such status in the store.
    fn candidates(&self, window: KeyRange, wanted: usize) -> Option<(String, Conditions)> {
        let sources = Sources::of(self.status);
        let order = if self.is_ascending { "ASC" } else { "DESC" };
        let mut conditions = Conditions::default();
        let (endpoint, from, to) = (conditions.place(self.endpoint), conditions.place(window.from), conditions.place(window.to));
        let limit = conditions.place(i64::try_from(wanted).unwrap_or(i64::MAX));
        let mut parts = Vec::new();
        let mut part = |table: &str, more: &str, group: &str| {
            parts.push(format!(
                "(SELECT message FROM {table} WHERE endpoint = {endpoint} AND message >= {from} AND message < {to}{more}{group} \
                 ORDER BY message {order} LIMIT {limit})"
            ));
        };
        if sources.queue {
            part("queue", "", "");
        }
        if sources.retry {
            part("retry", "", "");
        }
        match sources.outcome {
            Some(Some(state)) => part("outcome", &format!(" AND state = {state}"), ""),
            Some(None) => part("outcome", "", ""),
            None => {}
        }
        if sources.attempts {
            // A delivery has one success at most but for repeats, and few failures: grouping costs little.
            let more = self.status.map_or_else(String::new, |status| format!(" AND status = {}", status as u8));
            part("attempt", &more, " GROUP BY message");
        }
        if parts.is_empty() {
            return None;
        }
        let sql = format!(
            "SELECT DISTINCT message FROM ({}) AS found ORDER BY message {order} LIMIT {limit}",
            parts.join(" UNION ALL ")
        );
        Some((sql, conditions))
    }
}

async fn payloads_of(conn: &Conn, budget: &Budget, app: AppId, keys: Vec<i64>) -> Outcome<BTreeMap<i64, Message>> {
    let sql = format!("SELECT {MESSAGE_COLUMNS}, {WITH_PAYLOAD} FROM message WHERE id = ANY($1) AND app = $2");
    let rows = budget.query(conn, &sql, &[p(&keys), p(&app.key())]).await?;
    rows.iter()
        .map(|found| {
            let message = row::message(found, 0, app)?.unpack()?;
            Ok((message.id.key(), message))
        })
        .collect()
}

/// See [`crate::AttemptStore::list_attempted_messages`].
pub async fn messages(
    conn: &Conn,
    app: AppId,
    endpoint: EndpointId,
    status: Option<AttemptStatus>,
    filter: &MessageFilter,
    keyset: &Keyset<i64>,
    with_content: bool,
) -> Outcome<Page<AttemptedMessage>> {
    let budget = Budget::new();
    let search = Search { endpoint: endpoint.key(), status, is_ascending: keyset.is_ascending };
    let mut found: Vec<AttemptedMessage> = Vec::new();
    let mut take = if has_content(filter) { keyset.wanted().max(CANDIDATES_MIN) } else { keyset.wanted() };
    'windows: for mut window in windows(conn, key_range(filter, keyset), keyset.is_ascending).await? {
        loop {
            let Some((sql, conditions)) = search.candidates(window, take) else { break 'windows };
            let rows = budget.query(conn, &sql, &conditions.params()).await?;
            let keys = rows.iter().map(|found| row::get(found, 0)).collect::<Outcome<Vec<i64>>>()?;
            let states = state::of_endpoint(conn, &budget, &keys, endpoint.key()).await?;
            let mut messages = messages_of(conn, &budget, app, keys.clone(), filter).await?;
            for key in &keys {
                let Some((is, next_attempt)) = states.get(key).copied() else { continue };
                if status.is_some_and(|wanted| wanted != is) {
                    continue;
                }
                let Some(message) = messages.remove(key) else { continue };
                found.push(AttemptedMessage { message, status: is, next_attempt });
                if found.len() == keyset.wanted() {
                    break 'windows;
                }
            }
            let Some(last) = keys.last().filter(|_| keys.len() >= take) else { break };
            window = beyond(window, *last, keyset.is_ascending);
            take = take.saturating_mul(4).clamp(CANDIDATES_MIN, CANDIDATES_MAX);
        }
    }
    if with_content {
        let mut whole = payloads_of(conn, &budget, app, found.iter().map(|row| row.message.id.key()).collect()).await?;
        for row in &mut found {
            if let Some(message) = whole.remove(&row.message.id.key()) {
                row.message = message;
            }
        }
    }
    Ok(keyset.page(found))
}
