//! What is done with an endpoint: count, recover, send an example.

use bellwire_core::{Endpoint, Timestamp};
use bellwire_store::{Task, TaskKind, TaskStatus};
use http::StatusCode;

use super::BODY_MAX;
use super::message;
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::ApiError;
use crate::example;
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, of};
use crate::wire::endpoint_part::{EndpointStats, EventExampleIn, RecoverIn};
use crate::wire::message::MessageOut;
use crate::wire::task::RecoverOut;

const BASE: Operation = Operation { tag: "Endpoint", ..OPERATION };

pub const STATS: Operation = Operation {
    id: "v1.endpoint.get-stats",
    summary: "Count an endpoint's deliveries by status",
    params: &[Param::Since, Param::Until],
    answers: &[(200, of::<EndpointStats>())],
    ..BASE
};

pub async fn stats(call: Call) -> Answer {
    let query = call.query()?;
    let (since, until) = (query.timestamp("since")?, query.timestamp("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::invalid(&["query", "since"], format!("{since} is after until ({until})"), "value_error"));
    }
    let app = call.application().await?;
    let endpoint = call.endpoint(app.id).await?;
    let counts = call.store().count_deliveries(endpoint.id, since, until).await?;
    answer::json(StatusCode::OK, &EndpointStats::from(counts))
}

/// Nothing is sent to a disabled endpoint, so nothing that asks for it is accepted.
///
/// # Errors
/// 422.
pub(super) fn check_enabled(endpoint: &Endpoint) -> Result<(), ApiError> {
    if endpoint.disabled {
        let text = "the endpoint is disabled; enable it first";
        return Err(ApiError::invalid(&["path", "endpoint_id"], text, "value_error"));
    }
    Ok(())
}

pub const RECOVER: Operation = Operation {
    id: "v1.endpoint.recover",
    summary: "Send again what failed, or was missed while disabled, since a time; a background task",
    params: &[Param::IdempotencyKey],
    body: of::<RecoverIn>(),
    answers: &[(202, of::<RecoverOut>())],
    ..BASE
};

pub async fn recover(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: RecoverIn = body::parse(&body)?;
    let app = call.application().await?;
    let endpoint = call.endpoint(app.id).await?;
    let pending = match idempotency::begin(&call, &body).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    check_enabled(&endpoint)?;
    let now = call.now();
    let (since, until) = window(&call, &input, now)?;
    let task = Task {
        id: call.engine().new_id(),
        org: app.org,
        kind: TaskKind::EndpointRecover,
        status: TaskStatus::Running,
        app: app.id,
        endpoint: endpoint.id,
        since,
        until,
        position: None,
        messages_sent: 0,
        created_at: now,
        updated_at: now,
    };
    let bytes = answer::to_bytes(&RecoverOut::from(&task))?;
    let record = pending.record(StatusCode::ACCEPTED, &bytes);
    let written = call.engine().recover(task, record).await?;
    Ok(answer_of(written, StatusCode::ACCEPTED, bytes))
}

fn window(call: &Call, input: &RecoverIn, now: Timestamp) -> Result<(Timestamp, Timestamp), ApiError> {
    let since = input.since.0;
    let until = input.until.map_or(now, |until| until.0.min(now));
    let oldest = now.minus(call.engine().config().retention);
    if since < oldest {
        return Err(ApiError::field("since", format!("{since} is older than what is kept; the oldest possible is {oldest}")));
    }
    if since >= until {
        return Err(ApiError::field("since", format!("{since} is not before the end of the window ({until})")));
    }
    Ok((since, until))
}

pub const SEND_EXAMPLE: Operation = Operation {
    id: "v1.endpoint.send-example",
    summary: "Send an example of an event type to this endpoint, whatever it subscribes to",
    params: &[Param::IdempotencyKey],
    body: of::<EventExampleIn>(),
    answers: &[(202, of::<MessageOut<'static>>())],
    ..BASE
};

pub async fn send_example(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EventExampleIn = body::parse(&body)?;
    let entry = call.entry().await?;
    let app = &entry.application;
    let endpoint = call.endpoint(app.id).await?;
    check_enabled(&endpoint)?;
    let found = call.store().get_event_type(app.org, &input.event_type.0).await?.filter(|found| !found.archived);
    let event_type = found.ok_or_else(|| {
        ApiError::field(
            "eventType",
            format!("there is no event type {:?} to take an example from; create it first", input.event_type.0),
        )
    })?;
    let payload = example::payload(&event_type, input.example_index).map_err(|text| ApiError::field("exampleIndex", text))?;
    let idem = idempotency::key_of(&call, &body)?;
    let message = message::plain(&call, app.id, event_type.name, payload);
    let published = call.engine().publish_to(&entry, endpoint.id, message, idem).await?;
    message::answer_published(&call, app.id, published, true).await
}
