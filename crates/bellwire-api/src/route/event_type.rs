//! Event types of an organisation, with JSON Schemas by version.

use bellwire_core::{Direction, EventType, PageQuery};
use http::StatusCode;

use super::{BODY_MAX, page};
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::ApiError;
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, list_of, of};
use crate::tries::Tries;
use crate::wire::event_type::{EventTypeIn, EventTypeOut, EventTypePatch, EventTypeUpsertIn};
use crate::wire::list::FeatureFlags;
use crate::wire::text::EventTypeName;

const BASE: Operation = Operation { tag: "Event Type", answers: &[(200, of::<EventTypeOut>())], ..OPERATION };

pub const LIST: Operation = Operation {
    id: "v1.event-type.list",
    summary: "List event types by name",
    params: &[
        Param::Limit,
        Param::NameIterator,
        Param::Order,
        Param::Flag { name: "include_archived", default: false, about: "Archived ones too." },
        Param::Flag { name: "with_content", default: false, about: "Schemas too." },
    ],
    answers: &[(200, list_of::<EventTypeOut>())],
    ..BASE
};

pub async fn list(call: Call) -> Answer {
    let query = call.query()?;
    let (archived, schemas) = (query.bool("include_archived", false)?, query.bool("with_content", false)?);
    let asked = query.page::<EventTypeName>(Direction::Ascending)?;
    let asked =
        PageQuery { limit: asked.limit, order: asked.order, after: asked.after.map(String::from), backwards: asked.backwards };
    let found = call.store().list_event_types(call.principal()?.org, archived, asked).await?;
    page(found, |event_type| EventTypeOut::new(event_type, schemas), |event_type| event_type.name.clone())
}

pub const CREATE: Operation = Operation {
    id: "v1.event-type.create",
    summary: "Create an event type, or bring an archived one back",
    params: &[Param::IdempotencyKey],
    body: of::<EventTypeIn>(),
    answers: &[(201, of::<EventTypeOut>())],
    ..BASE
};

pub async fn create(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EventTypeIn = body::parse(&body)?;
    let pending = match idempotency::begin(&call, &body).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let (org, now) = (call.principal()?.org, call.now());
    let event_type = EventType {
        org,
        name: input.name.into(),
        description: input.description.into(),
        archived: input.archived,
        deprecated: input.deprecated,
        schemas: input.schemas.map(|schemas| schemas.0),
        feature_flags: input.feature_flags.map(FeatureFlags::into_texts),
        group_name: input.group_name.map(String::from),
        created_at: now,
        updated_at: now,
    };
    let name = event_type.name.clone();
    let bytes = answer::to_bytes(&EventTypeOut::new(event_type.clone(), true))?;
    let record = pending.record(StatusCode::CREATED, &bytes);
    let written = call.store().create_event_type(event_type, record).await?;
    call.api().event_type_changed(org, &name);
    Ok(answer_of(written, StatusCode::CREATED, bytes))
}

/// The event type of the path, archived or not, or 404.
async fn find(call: &Call) -> Result<EventType, ApiError> {
    let name = call.param("event_type_name")?;
    let found = call.store().get_event_type(call.principal()?.org, name).await?;
    found.ok_or_else(|| ApiError::not_found("event type", name))
}

pub const GET: Operation = Operation { id: "v1.event-type.get", summary: "Get an event type", ..BASE };

pub async fn get(call: Call) -> Answer {
    answer::json(StatusCode::OK, &EventTypeOut::new(find(&call).await?, true))
}

/// The turn to change this event type.
macro_rules! turn {
    ($call:expr) => {
        $call.api().app_locks().lock(($call.principal()?.org, $call.param("event_type_name")?)).await?
    };
}

/// Reads, changes and writes the event type of the path in its turn, again if another node was quicker.
async fn change(call: &Call, apply: impl Fn(&mut EventType)) -> Result<EventType, ApiError> {
    let _turn = turn!(call);
    let mut tries = Tries::new(call);
    loop {
        let read = find(call).await?;
        let mut event_type = read.clone();
        apply(&mut event_type);
        event_type.updated_at = call.now();
        match call.store().change_event_type(&read, event_type).await {
            Ok(event_type) => {
                call.api().event_type_changed(event_type.org, &event_type.name);
                return Ok(event_type);
            }
            Err(error) => tries.again(error).await?,
        }
    }
}

pub const UPSERT: Operation = Operation {
    id: "v1.event-type.upsert",
    summary: "Replace an event type, or create it",
    body: of::<EventTypeUpsertIn>(),
    answers: &[(200, of::<EventTypeOut>()), (201, of::<EventTypeOut>())],
    ..BASE
};

pub async fn upsert(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EventTypeUpsertIn = body::parse(&body)?;
    let name: EventTypeName = call
        .param("event_type_name")?
        .parse()
        .map_err(|text| ApiError::invalid(&["path", "event_type_name"], text, "value_error"))?;
    let _turn = turn!(call);
    let now = call.now();
    let event_type = EventType {
        org: call.principal()?.org,
        name: name.into(),
        description: input.description.into(),
        archived: input.archived,
        deprecated: input.deprecated,
        schemas: input.schemas.map(|schemas| schemas.0),
        feature_flags: input.feature_flags.map(FeatureFlags::into_texts),
        group_name: input.group_name.map(String::from),
        created_at: now,
        updated_at: now,
    };
    let (event_type, is_new) = call.store().put_event_type(event_type).await?;
    call.api().event_type_changed(event_type.org, &event_type.name);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    answer::json(status, &EventTypeOut::new(event_type, true))
}

pub const PATCH: Operation = Operation {
    id: "v1.event-type.patch",
    summary: "Change an event type; what is absent stays, null empties",
    body: of::<EventTypePatch>(),
    ..BASE
};

pub async fn patch(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let patch: EventTypePatch = body::parse(&body)?;
    let event_type = change(&call, |event_type| {
        let patch = patch.clone();
        if let Some(description) = patch.description {
            event_type.description = description.into();
        }
        event_type.archived = patch.archived.unwrap_or(event_type.archived);
        event_type.deprecated = patch.deprecated.unwrap_or(event_type.deprecated);
        patch.schemas.apply(&mut event_type.schemas, |schemas| schemas.0);
        patch.feature_flags.apply(&mut event_type.feature_flags, FeatureFlags::into_texts);
        patch.group_name.apply(&mut event_type.group_name, String::from);
    })
    .await?;
    answer::json(StatusCode::OK, &EventTypeOut::new(event_type, true))
}

pub const DELETE: Operation = Operation {
    id: "v1.event-type.delete",
    summary: "Archive an event type: no more messages of it; with `expunge` remove it",
    params: &[Param::Flag { name: "expunge", default: false, about: "Remove it for good." }],
    answers: &[(204, None)],
    ..BASE
};

pub async fn delete(call: Call) -> Answer {
    let expunge = call.query()?.bool("expunge", false)?;
    if expunge {
        let _turn = turn!(call);
        let event_type = find(&call).await?;
        call.store().expunge_event_type(event_type.org, &event_type.name).await?;
        call.api().event_type_changed(event_type.org, &event_type.name);
    } else {
        change(&call, |event_type| event_type.archived = true).await?;
    }
    answer::no_content()
}
