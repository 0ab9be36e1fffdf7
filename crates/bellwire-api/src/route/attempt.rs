//! Attempts: by endpoint, by message, one; the deliveries they stand for; resending.

use bellwire_core::{AppId, Attempt, AttemptId, AttemptStatus, Direction, EndpointId};
use bellwire_store::{AttemptFilter, StoreError};
use bytes::Bytes;
use http::StatusCode;

use super::{endpoint_action, message, page};
use crate::answer::{self, Answer};
use crate::call::Call;
use crate::error::ApiError;
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{EXPANDED_STATUSES, OPERATION, Operation, Param, WITH_CONTENT, list_of, of};
use crate::query::Query;
use crate::wire::attempt::{EndpointMessageOut, MessageAttemptOut, MessageEndpointOut, Statuses};
use crate::wire::endpoint_part::EmptyOut;
use crate::wire::text::IdOrUid;

const BASE: Operation = Operation { tag: "Message Attempt", ..OPERATION };

pub const LIST_BY_ENDPOINT: Operation = Operation {
    id: "v1.message-attempt.list-by-endpoint",
    summary: "List the attempts to an endpoint, newest first",
    params: &[
        Param::Limit,
        Param::Iterator("atmpt_"),
        Param::Order,
        Param::Status,
        Param::StatusCodeClass,
        Param::Channel,
        Param::Tag,
        Param::Before,
        Param::After,
        WITH_CONTENT,
        Param::Flag { name: "with_msg", default: false, about: "The message too, without its payload." },
        EXPANDED_STATUSES,
        Param::EventTypes,
    ],
    answers: &[(200, list_of::<MessageAttemptOut>())],
    ..BASE
};

fn statuses_of(query: &Query) -> Result<Statuses, ApiError> {
    Ok(if query.bool("expanded_statuses", false)? { Statuses::Expanded } else { Statuses::Compatible })
}

fn status_of(query: &Query) -> Result<Option<AttemptStatus>, ApiError> {
    Ok(query.one_of("status", &[0, 1, 2, 3, 4])?.and_then(AttemptStatus::from_code))
}

fn filter_of(query: &Query) -> Result<AttemptFilter, ApiError> {
    let class = query.one_of("status_code_class", &[0, 100, 200, 300, 400, 500])?;
    Ok(AttemptFilter {
        status: status_of(query)?,
        status_code_class: class.and_then(|class| u16::try_from(class).ok()),
        endpoint: None,
        message: message::filter_of(query)?,
    })
}

pub async fn list_by_endpoint(call: Call) -> Answer {
    let query = call.query()?;
    let (filter, statuses) = (filter_of(&query)?, statuses_of(&query)?);
    let (with_content, with_message) = (query.bool("with_content", true)?, query.bool("with_msg", false)?);
    let asked = query.page(Direction::Descending)?;
    let app = call.application().await?;
    let endpoint = call.endpoint(app.id).await?;
    let found = call.store().list_attempts_of_endpoint(app.id, endpoint.id, filter, asked, with_content, with_message).await?;
    page(found, |(attempt, message)| MessageAttemptOut::new(attempt, message, statuses), |attempt| attempt.id.clone())
}

pub const LIST_BY_MESSAGE: Operation = Operation {
    id: "v1.message-attempt.list-by-msg",
    summary: "List the attempts of a message, newest first",
    params: &[
        Param::Limit,
        Param::Iterator("atmpt_"),
        Param::Order,
        Param::Status,
        Param::StatusCodeClass,
        Param::Channel,
        Param::Tag,
        Param::EndpointId,
        Param::Before,
        Param::After,
        WITH_CONTENT,
        EXPANDED_STATUSES,
        Param::EventTypes,
    ],
    answers: &[(200, list_of::<MessageAttemptOut>())],
    ..BASE
};

pub async fn list_by_message(call: Call) -> Answer {
    let query = call.query()?;
    let (mut filter, statuses) = (filter_of(&query)?, statuses_of(&query)?);
    let with_content = query.bool("with_content", true)?;
    let asked = query.page(Direction::Descending)?;
    let app = call.application().await?;
    let message = message::find(&call, app.id).await?;
    if let Some(IdOrUid(part)) = query.text("endpoint_id")? {
        filter.endpoint = Some(endpoint_id(&call, app.id, &part).await?);
    }
    let found = call.store().list_attempts_of_message(app.id, message.id, filter, asked, with_content).await?;
    page(found, |attempt| MessageAttemptOut::new(attempt, None, statuses), |attempt| attempt.id.clone())
}

/// The id may be of an endpoint deleted since: its attempts are still there.
async fn endpoint_id(call: &Call, app: AppId, part: &str) -> Result<EndpointId, ApiError> {
    if let Some(found) = call.store().find_endpoint(app, part).await? {
        return Ok(found.id);
    }
    part.parse().map_err(|_| ApiError::not_found("endpoint", part))
}

pub const LIST_MESSAGES: Operation = Operation {
    id: "v1.message-attempt.list-attempted-messages",
    summary: "List the messages for an endpoint and how their deliveries stand, newest first",
    params: &[
        Param::Limit,
        Param::Iterator("msg_"),
        Param::Order,
        Param::Channel,
        Param::Tag,
        Param::Status,
        Param::Before,
        Param::After,
        WITH_CONTENT,
        EXPANDED_STATUSES,
        Param::EventTypes,
    ],
    answers: &[(200, list_of::<EndpointMessageOut>())],
    ..BASE
};

pub async fn list_messages(call: Call) -> Answer {
    let query = call.query()?;
    let (filter, status, statuses) = (message::filter_of(&query)?, status_of(&query)?, statuses_of(&query)?);
    let with_content = query.bool("with_content", true)?;
    let asked = query.page(Direction::Descending)?;
    let app = call.application().await?;
    let endpoint = call.endpoint(app.id).await?;
    let found = call.store().list_attempted_messages(app.id, endpoint.id, status, filter, asked, with_content).await?;
    page(found, |message| EndpointMessageOut::new(message, with_content, statuses), |message| message.id.clone())
}

pub const LIST_ENDPOINTS: Operation = Operation {
    id: "v1.message-attempt.list-attempted-destinations",
    summary: "List the endpoints of a message and how its deliveries stand",
    params: &[Param::Limit, Param::Iterator("ep_"), Param::Order],
    answers: &[(200, list_of::<MessageEndpointOut>())],
    ..BASE
};

pub async fn list_endpoints(call: Call) -> Answer {
    let asked = call.query()?.page(Direction::Ascending)?;
    let app = call.application().await?;
    let message = message::find(&call, app.id).await?;
    let found = call.store().list_attempted_endpoints(app.id, message.id, asked).await?;
    page(found, MessageEndpointOut::from, |endpoint| endpoint.id.clone())
}

/// The attempt of the path, or 404.
async fn find(call: &Call, app: AppId) -> Result<Attempt, ApiError> {
    let part = call.param("attempt_id")?;
    let missing = || ApiError::not_found("attempt", part);
    let id: AttemptId = part.parse().map_err(|_| missing())?;
    let message = message::find(call, app).await?;
    call.store().get_attempt(app, message.id, id).await?.ok_or_else(missing)
}

pub const GET: Operation = Operation {
    id: "v1.message-attempt.get",
    summary: "Get an attempt",
    params: &[EXPANDED_STATUSES],
    answers: &[(200, of::<MessageAttemptOut>())],
    ..BASE
};

pub async fn get(call: Call) -> Answer {
    let statuses = statuses_of(&call.query()?)?;
    let app = call.application().await?;
    let attempt = find(&call, app.id).await?;
    answer::json(StatusCode::OK, &MessageAttemptOut::new(attempt, None, statuses))
}

pub const EXPUNGE: Operation = Operation {
    id: "v1.message-attempt.expunge-content",
    summary: "Delete the response body kept with an attempt",
    answers: &[(204, None)],
    ..BASE
};

pub async fn expunge(call: Call) -> Answer {
    let app = call.application().await?;
    let attempt = find(&call, app.id).await?;
    if !call.store().expunge_attempt_content(app.id, attempt.message, attempt.id).await? {
        return Err(ApiError::not_found("attempt", call.param("attempt_id")?));
    }
    answer::no_content()
}

pub const RESEND: Operation = Operation {
    id: "v1.message-attempt.resend",
    summary: "Send a message to an endpoint again, now",
    params: &[Param::IdempotencyKey],
    answers: &[(202, of::<EmptyOut>())],
    ..BASE
};

pub async fn resend(call: Call) -> Answer {
    let app = call.application().await?;
    let message = message::find(&call, app.id).await?;
    let endpoint = call.endpoint(app.id).await?;
    let pending = match idempotency::begin(&call, &[]).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    endpoint_action::check_enabled(&endpoint)?;
    if message.payload.is_none() {
        let text = "the message's payload was deleted or has expired; it cannot be sent again";
        return Err(ApiError::invalid(&["path", "msg_id"], text, "value_error"));
    }
    let bytes = Bytes::from_static(b"{}");
    let record = pending.record(StatusCode::ACCEPTED, &bytes);
    let written = match call.engine().resend(app.id, message.id, endpoint.id, record).await {
        Err(StoreError::NotFound(_)) => return Err(ApiError::not_found("message", call.param("msg_id")?)),
        written => written?,
    };
    Ok(answer_of(written, StatusCode::ACCEPTED, bytes))
}
