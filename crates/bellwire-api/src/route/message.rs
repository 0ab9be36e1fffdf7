//! Messages: publish (the hot path), list, read, delete the payload.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{AppId, Direction, IdKind, Message, MessageId, Timestamp, limits};
use bellwire_engine::{AppEntry, Published};
use bellwire_store::MessageFilter;
use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;

use super::{application, page};
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::idempotency;
use crate::openapi::operation::{OPERATION, Operation, Param, WITH_CONTENT, list_of, of};
use crate::query::Query;
use crate::wire::list::{Channels, Tags};
use crate::wire::message::{MessageIn, MessageOut, TransformationsParams};
use crate::wire::payload::{EMPTY, PayloadOut};
use crate::wire::text::{Channel, EventTypeName, Tag};

const BASE: Operation = Operation { tag: "Message", answers: &[(200, of::<MessageOut<'static>>())], ..OPERATION };

pub const CREATE: Operation = Operation {
    id: "v1.message.create",
    summary: "Publish a message to every endpoint of the application that wants it",
    params: &[WITH_CONTENT, Param::IdempotencyKey],
    body: of::<MessageIn<'static>>(),
    answers: &[(202, of::<MessageOut<'static>>())],
    ..BASE
};

pub async fn create(call: Call) -> Answer {
    let with_content = call.query()?.bool("with_content", true)?;
    let body = call.body(limits::MESSAGE_BODY_BYTES_MAX).await?;
    let mut input: MessageIn<'_> = body::parse(&body)?;
    let idem = idempotency::key_of(&call, &body)?;
    let payload = input.payload;
    check_payload(payload)?;
    let raw = take_raw(&mut input)?;
    let entry = match call.find_entry().await? {
        Some(entry) => entry,
        // In a box, like everything here that happens seldom: a message does not carry it along.
        None => Box::pin(create_application(&call, &mut input)).await?,
    };
    let app = &entry.application;
    if call.api().is_archived(app.org, &input.event_type.0).await? {
        let text = format!("the event type {:?} is archived; bring it back, or use another one", input.event_type.0);
        return Err(ApiError::field("eventType", text));
    }
    let mut message = new_message(&call, app.id, input, body.slice_ref(payload.get().as_bytes()))?;
    let is_raw = raw.is_some();
    if let Some((raw, content_type)) = raw {
        (message.payload, message.content_type) = (Some(Bytes::from(raw)), content_type);
    }
    match call.engine().publish(&entry, message, idem).await? {
        Published::Fresh(message) if !is_raw => {
            let payload = if with_content { PayloadOut::Raw(payload) } else { PayloadOut::Fixed(EMPTY) };
            answer::json(StatusCode::ACCEPTED, &MessageOut::with_payload(message, payload))
        }
        published => Box::pin(answer_published(&call, app.id, published, with_content)).await,
    }
}

fn check_payload(payload: &RawValue) -> Result<(), ApiError> {
    let text = payload.get();
    if !text.starts_with('{') {
        return Err(ApiError::invalid(&["body", "payload"], "the payload is not a JSON object", "type_error"));
    }
    check_size(text.len())
}

fn check_size(bytes: usize) -> Result<(), ApiError> {
    if bytes > limits::PAYLOAD_BYTES_MAX {
        let text =
            format!("the payload has {bytes} bytes; at most {} are allowed; nothing was stored", limits::PAYLOAD_BYTES_MAX);
        return Err(ApiError::new(Code::PayloadTooLarge, text));
    }
    Ok(())
}

/// The payload and content type to send as they stand, if the caller brings them.
fn take_raw(input: &mut MessageIn<'_>) -> Result<Option<(String, String)>, ApiError> {
    let Some(raw) = input.transformations_params.take().and_then(TransformationsParams::into_raw) else { return Ok(None) };
    let loc = ["body", "transformationsParams", "headers", "content-type"];
    let (payload, content_type) = raw.map_err(|()| ApiError::invalid(&loc, "this cannot be a content type", "value_error"))?;
    check_size(payload.len())?;
    Ok(Some((payload, content_type)))
}

/// The application named in the path is unknown: the body may say what to create.
async fn create_application(call: &Call, input: &mut MessageIn<'_>) -> Result<Arc<AppEntry>, ApiError> {
    let part = call.param("app_id")?;
    let missing = || ApiError::not_found("application", part);
    let application = input.application.take().filter(|_| call.principal().is_ok_and(|p| p.app.is_none())).ok_or_else(missing)?;
    let app = application::create_at(call, part, application, &["body", "application", "uid"]).await?;
    call.engine().application_by_id(app.id).await?.ok_or_else(missing)
}

fn new_message(call: &Call, app: AppId, input: MessageIn<'_>, payload: Bytes) -> Result<Message, ApiError> {
    let mut message = plain(call, app, input.event_type.into(), payload);
    let created_at = message.created_at;
    message.event_id = input.event_id.map(String::from);
    message.channels = input.channels.map(Channels::into_texts).unwrap_or_default();
    message.tags = input.tags.map(Tags::into_texts).unwrap_or_default();
    if let Some(at) = input.deliver_at {
        check_deliver_at(at.0, call.now())?;
        message.deliver_at = Some(at.0);
    }
    let hours = match (input.payload_retention_period, input.payload_retention_hours) {
        (Some(_), Some(_)) => {
            let text = "give payloadRetentionPeriod (days) or payloadRetentionHours, not both";
            return Err(ApiError::field("payloadRetentionHours", text));
        }
        (Some(days), None) => 24 * between("payloadRetentionPeriod", days, limits::PAYLOAD_RETENTION_DAYS_MAX)?,
        (None, Some(hours)) => between("payloadRetentionHours", hours, limits::PAYLOAD_RETENTION_HOURS_MAX)?,
        (None, None) => return Ok(message),
    };
    let asked = created_at.plus(Duration::from_secs(hours.unsigned_abs() * 3_600));
    // What is removed with its message cannot stay longer than it.
    message.payload_expires_at = asked.min(message.payload_expires_at);
    Ok(message)
}

fn between(field: &str, value: i64, max: i64) -> Result<i64, ApiError> {
    if (1..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::field(field, format!("{value} is not between 1 and {max}")))
    }
}

fn check_deliver_at(at: Timestamp, now: Timestamp) -> Result<(), ApiError> {
    let earliest = now.plus(Duration::from_secs(limits::DELIVER_AT_SECONDS_MIN));
    let latest = now.plus(Duration::from_secs(limits::DELIVER_AT_SECONDS_MAX));
    // A second of grace on both sides: clocks differ, and requests take time.
    let grace = Duration::from_secs(1);
    if at < earliest.minus(grace) || at > latest.plus(grace) {
        return Err(ApiError::field(
            "deliverAt",
            format!("{at} is not one minute to 24 hours from now ({earliest} to {latest})"),
        ));
    }
    Ok(())
}

/// A new message with nothing but type and payload.
pub(super) fn plain(call: &Call, app: AppId, event_type: String, payload: Bytes) -> Message {
    let id: MessageId = call.engine().new_id();
    Message {
        id,
        app,
        event_type,
        event_id: None,
        payload: Some(payload),
        content_type: "application/json".to_owned(),
        channels: Vec::new(),
        tags: Vec::new(),
        created_at: id.created(),
        deliver_at: None,
        payload_expires_at: id.created().plus(call.engine().config().retention),
        origin: None,
    }
}

/// 202 with the message: the one just made, or the one that the idempotency key made before.
pub(super) async fn answer_published(call: &Call, app: AppId, published: Published, with_content: bool) -> Answer {
    let message = match published {
        Published::Fresh(message) => message,
        Published::Replayed(id) => {
            let found = call.store().find_message(app, &id.to_string()).await?;
            found.ok_or_else(|| ApiError::not_found("message", &id.to_string()))?
        }
    };
    answer::json(StatusCode::ACCEPTED, &MessageOut::new(message, with_content))
}

pub const LIST: Operation = Operation {
    id: "v1.message.list",
    summary: "List an application's messages, newest first",
    params: &[
        Param::Limit,
        Param::Iterator("msg_"),
        Param::Order,
        Param::Channel,
        Param::Before,
        Param::After,
        WITH_CONTENT,
        Param::Tag,
        Param::EventTypes,
    ],
    answers: &[(200, list_of::<MessageOut<'static>>())],
    ..BASE
};

/// The filters that all lists of messages and attempts share.
pub(super) fn filter_of(query: &Query) -> Result<MessageFilter, ApiError> {
    Ok(MessageFilter {
        channel: query.text::<Channel>("channel")?.map(String::from),
        tag: query.text::<Tag>("tag")?.map(String::from),
        event_types: query.list::<EventTypeName>("event_types")?.into_iter().map(String::from).collect(),
        before: query.timestamp("before")?,
        after: query.timestamp("after")?,
    })
}

pub async fn list(call: Call) -> Answer {
    let query = call.query()?;
    let (filter, with_content) = (filter_of(&query)?, query.bool("with_content", true)?);
    let asked = query.page(Direction::Descending)?;
    let app = call.application().await?;
    let found = call.store().list_messages(app.id, filter, asked, with_content).await?;
    page(found, |message| MessageOut::new(message, with_content), |message| message.id.clone())
}

/// The message of the path by id or eventId, or 404.
pub(super) async fn find(call: &Call, app: AppId) -> Result<Message, ApiError> {
    let part = call.param("msg_id")?;
    call.store().find_message(app, part).await?.ok_or_else(|| ApiError::not_found("message", part))
}

pub const GET: Operation =
    Operation { id: "v1.message.get", summary: "Get a message by id or eventId", params: &[WITH_CONTENT], ..BASE };

pub async fn get(call: Call) -> Answer {
    let with_content = call.query()?.bool("with_content", true)?;
    let app = call.application().await?;
    let message = find(&call, app.id).await?;
    answer::json(StatusCode::OK, &MessageOut::new(message, with_content))
}

pub const EXPUNGE: Operation =
    Operation { id: "v1.message.expunge-content", summary: "Delete a message's payload", answers: &[(204, None)], ..BASE };

pub async fn expunge(call: Call) -> Answer {
    let app = call.application().await?;
    let message = find(&call, app.id).await?;
    if !call.store().expunge_message_content(app.id, message.id).await? {
        return Err(ApiError::not_found("message", call.param("msg_id")?));
    }
    answer::no_content()
}
