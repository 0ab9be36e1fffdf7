//! Endpoints: create, read, change, delete. The same handlers serve an organisation's operational webhooks.

use std::num::NonZeroU16;

use bellwire_core::egress::EgressError;
use bellwire_core::{Application, Direction, Endpoint, EndpointHealth, EndpointId, IdKind, Secret, SigningSecret, limits};
use bellwire_store::Written;
use bellwire_verify::Key;
use http::StatusCode;

use super::{BODY_MAX, page};
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::event;
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, list_of, of};
use crate::tries::Tries;
use crate::wire::endpoint::{EndpointIn, EndpointOut, EndpointPatch, EndpointUpsertIn};
use crate::wire::field::Patch;
use crate::wire::list::{Channels, EventTypes};
use crate::wire::text::{EndpointUrl, SecretText, Uid};

const BASE: Operation = Operation { tag: "Endpoint", answers: &[(200, of::<EndpointOut>())], ..OPERATION };

pub const LIST: Operation = Operation {
    id: "v1.endpoint.list",
    summary: "List an application's endpoints",
    params: &[Param::Limit, Param::Iterator("ep_"), Param::Order],
    answers: &[(200, list_of::<EndpointOut>())],
    ..BASE
};

pub async fn list(call: Call) -> Answer {
    let query = call.query()?.page(Direction::Ascending)?;
    let app = call.application().await?;
    let found = call.store().list_endpoints(app.id, query).await?;
    page(found, |endpoint| EndpointOut::from(&endpoint), |endpoint| endpoint.id.clone())
}

pub const CREATE: Operation = Operation {
    id: "v1.endpoint.create",
    summary: "Create an endpoint",
    params: &[Param::IdempotencyKey],
    body: of::<EndpointIn>(),
    answers: &[(201, of::<EndpointOut>())],
    ..BASE
};

pub async fn create(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EndpointIn = body::parse(&body)?;
    let app = call.application().await?;
    let pending = match idempotency::begin(&call, &body).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let _turn = call.turn(app.id).await?;
    let endpoint = new_endpoint(&call, &app, input).await?;
    let bytes = answer::to_bytes(&EndpointOut::from(&endpoint))?;
    let record = pending.record(StatusCode::CREATED, &bytes);
    let written = call.store().create_endpoint(endpoint.clone(), record).await?;
    call.engine().endpoint_changed(app.id, endpoint.id);
    event::endpoint(&call, "endpoint.created", &app, &endpoint);
    Ok(answer_of(written, StatusCode::CREATED, bytes))
}

async fn new_endpoint(call: &Call, app: &Application, input: EndpointIn) -> Result<Endpoint, ApiError> {
    let live = call.engine().application_by_id(app.id).await?.map_or(0, |entry| entry.endpoints.len());
    if live >= limits::ENDPOINTS_PER_APPLICATION_MAX {
        let text =
            format!("the application has {live} endpoints, as many as are allowed; delete one, or use another application");
        return Err(ApiError::new(Code::LimitReached, text));
    }
    check_url(call, &input.url)?;
    let id: EndpointId = call.engine().new_id();
    let secret = match input.secret {
        Some(text) => signing_key(&text, "secret")?,
        None => call.engine().new_signing_secret(),
    };
    Ok(Endpoint {
        id,
        app: app.id,
        uid: uid_of(input.uid)?,
        url: input.url.into(),
        description: input.description.into(),
        event_types: input.event_types.map(EventTypes::into_texts),
        channels: channels_of(call, input.channels),
        throttle_rate: input.throttle_rate.map(NonZeroU16::get),
        disabled: input.disabled,
        metadata: input.metadata.0,
        headers: input.headers.unwrap_or_default().into_set(),
        secret: SigningSecret { current: secret, old: Vec::new() },
        health: EndpointHealth::default(),
        created_at: id.created(),
        updated_at: id.created(),
    })
}

/// Operational events have no channels: an endpoint that listens to some would never hear any.
fn channels_of(call: &Call, channels: Option<Channels>) -> Option<Vec<String>> {
    channels.filter(|_| !call.is_operational()).map(Channels::into_texts)
}

/// A uid that looks like an id would hide the endpoint of that id.
fn uid_of(uid: Patch<Uid>) -> Result<Option<String>, ApiError> {
    match uid {
        Patch::Value(uid) if uid.0.parse::<EndpointId>().is_ok() => {
            Err(ApiError::field("uid", format!("{:?} has the form of an id (ep_…); choose another uid", uid.0)))
        }
        Patch::Value(uid) => Ok(Some(uid.0)),
        Patch::Null | Patch::Absent => Ok(None),
    }
}

/// Judges where an endpoint wants to be sent to, as the connector will judge it again at every connection.
fn check_url(call: &Call, url: &EndpointUrl) -> Result<(), ApiError> {
    let Err(error) = call.engine().config().egress.judge_url(&url.0) else { return Ok(()) };
    let shown: String = url.0.chars().take(200).collect();
    let text = match &error {
        EgressError::Malformed(_) => format!("{error} ({shown:?})"),
        EgressError::Refused(refusal) => format!(
            "{shown:?} is refused: it is {}. Requests go to public addresses only; an operator allows others in the configuration \
             (egress.allow, or BELLWIRE_EGRESS__ALLOW=10.1.0.0/16,receiver.internal)",
            refusal.kind().as_str()
        ),
    };
    Err(ApiError::invalid(&["body", "url"], text, "value_error.url"))
}

/// A key that a caller brings, in its canonical form.
pub(super) fn signing_key(text: &SecretText, field: &str) -> Result<Secret, ApiError> {
    match Key::parse(&text.0) {
        Ok(Key::Verifying(_)) => Err(ApiError::field(field, "a public key (whpk_…) cannot sign; give the signing key (whsk_…)")),
        Ok(key) => Ok(Secret::new(key.expose())),
        Err(error) => Err(ApiError::field(field, error.to_string())),
    }
}

pub const GET: Operation = Operation { id: "v1.endpoint.get", summary: "Get an endpoint", ..BASE };

pub async fn get(call: Call) -> Answer {
    let app = call.application().await?;
    let endpoint = call.endpoint(app.id).await?;
    answer::json(StatusCode::OK, &EndpointOut::from(&endpoint))
}

pub const UPSERT: Operation = Operation {
    id: "v1.endpoint.upsert",
    summary: "Replace an endpoint, or create one with the uid of the path",
    body: of::<EndpointUpsertIn>(),
    answers: &[(200, of::<EndpointOut>()), (201, of::<EndpointOut>())],
    ..BASE
};

pub async fn upsert(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EndpointUpsertIn = body::parse(&body)?;
    let app = call.application().await?;
    let part = call.param("endpoint_id")?;
    let _turn = call.turn(app.id).await?;
    let mut tries = Tries::new(&call);
    loop {
        if call.store().find_endpoint(app.id, part).await?.is_some() {
            break;
        }
        let endpoint = new_at(&call, &app, part, input.clone()).await?;
        match call.store().create_endpoint(endpoint.clone(), None).await {
            Ok(_) => return answer_created(&call, &app, &endpoint),
            Err(error) => tries.again_if_made(error, "endpoint").await?,
        }
    }
    check_url(&call, &input.url)?;
    let channels = channels_of(&call, input.channels.clone());
    let endpoint = change(&call, &app, |endpoint| {
        let input = input.clone();
        match input.uid {
            Patch::Absent => {}
            uid => endpoint.uid = uid_of(uid)?,
        }
        endpoint.url = input.url.into();
        endpoint.description = input.description.into();
        endpoint.throttle_rate = input.throttle_rate.map(NonZeroU16::get);
        endpoint.disabled = input.disabled;
        endpoint.event_types = input.event_types.map(EventTypes::into_texts);
        endpoint.channels.clone_from(&channels);
        endpoint.metadata = input.metadata.0;
        Ok(())
    })
    .await?;
    answer::json(StatusCode::OK, &EndpointOut::from(&endpoint))
}

/// The endpoint to create for a path part that is unknown so far. The caller has the application's turn.
async fn new_at(call: &Call, app: &Application, part: &str, input: EndpointUpsertIn) -> Result<Endpoint, ApiError> {
    if part.parse::<EndpointId>().is_ok() {
        return Err(ApiError::not_found("endpoint", part));
    }
    if let Patch::Value(uid) = &input.uid
        && uid.0 != part
    {
        let text = format!("{:?} is not the uid in the path ({part:?}); they must be the same to create an endpoint", uid.0);
        return Err(ApiError::field("uid", text));
    }
    let endpoint = new_endpoint(call, app, input.into_new()).await?;
    Ok(Endpoint { uid: Some(part.to_owned()), ..endpoint })
}

fn answer_created(call: &Call, app: &Application, endpoint: &Endpoint) -> Answer {
    call.engine().endpoint_changed(app.id, endpoint.id);
    event::endpoint(call, "endpoint.created", app, endpoint);
    // The operational routes and those of sources know one success only.
    let status = if call.is_operational() || call.is_of_source() { StatusCode::OK } else { StatusCode::CREATED };
    answer::json(status, &EndpointOut::from(endpoint))
}

/// Reads, changes and writes the endpoint of the path, again if another node was quicker, and tells who must know. The caller has the
/// application's turn.
pub(super) async fn change(
    call: &Call,
    app: &Application,
    apply: impl Fn(&mut Endpoint) -> Result<(), ApiError>,
) -> Result<Endpoint, ApiError> {
    let mut tries = Tries::new(call);
    loop {
        let read = call.endpoint(app.id).await?;
        let mut endpoint = read.clone();
        apply(&mut endpoint)?;
        endpoint.updated_at = call.now();
        match call.store().change_endpoint(&read, endpoint.clone(), None).await {
            Ok(written) => {
                // As it is now: the engine may have noted its health since it was read.
                let endpoint = match written {
                    Written::Fresh(stored) => stored,
                    Written::Replayed { .. } => endpoint,
                };
                call.engine().endpoint_changed(app.id, endpoint.id);
                event::endpoint_updated(call, app, &read, &endpoint);
                return Ok(endpoint);
            }
            Err(error) => tries.again(error).await?,
        }
    }
}

pub const PATCH: Operation = Operation {
    id: "v1.endpoint.patch",
    summary: "Change an endpoint; what is absent stays, null empties",
    body: of::<EndpointPatch>(),
    ..BASE
};

pub async fn patch(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let patch: EndpointPatch = body::parse(&body)?;
    let app = call.application().await?;
    if let Some(url) = &patch.url {
        check_url(&call, url)?;
    }
    let _turn = call.turn(app.id).await?;
    let endpoint = change(&call, &app, |endpoint| {
        let patch = patch.clone();
        if let Some(url) = patch.url {
            endpoint.url = url.into();
        }
        if let Some(description) = patch.description {
            endpoint.description = description.into();
        }
        patch.throttle_rate.apply(&mut endpoint.throttle_rate, |rate| rate);
        endpoint.throttle_rate = endpoint.throttle_rate.filter(|rate| *rate > 0);
        match patch.uid {
            Patch::Absent => {}
            uid => endpoint.uid = uid_of(uid)?,
        }
        if let Some(disabled) = patch.disabled {
            endpoint.disabled = disabled;
        }
        patch.event_types.apply(&mut endpoint.event_types, EventTypes::into_texts);
        patch.channels.apply(&mut endpoint.channels, Channels::into_texts);
        if let Some(metadata) = patch.metadata {
            endpoint.metadata = metadata.0;
        }
        Ok(())
    })
    .await?;
    answer::json(StatusCode::OK, &EndpointOut::from(&endpoint))
}

pub const DELETE: Operation = Operation {
    id: "v1.endpoint.delete",
    summary: "Delete an endpoint; its pending deliveries are cancelled",
    answers: &[(204, None)],
    ..BASE
};

pub async fn delete(call: Call) -> Answer {
    let app = call.application().await?;
    let _turn = call.turn(app.id).await?;
    let endpoint = call.endpoint(app.id).await?;
    if !call.store().delete_endpoint(app.id, endpoint.id, call.now()).await? {
        return Err(ApiError::not_found("endpoint", call.param("endpoint_id")?));
    }
    call.engine().endpoint_changed(app.id, endpoint.id);
    event::endpoint(&call, "endpoint.deleted", &app, &endpoint);
    answer::no_content()
}
