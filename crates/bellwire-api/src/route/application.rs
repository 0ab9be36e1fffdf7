//! Applications: create, read, change, delete.

use std::num::NonZeroU16;

use axum::response::Response;
use bellwire_core::{AppId, Application, ApplicationKind, Direction, IdKind};
use bellwire_store::{ApplicationFilter, StoreError};
use http::StatusCode;

use super::{BODY_MAX, page};
use crate::answer::{self, Answer};
use crate::auth::Scope;
use crate::body;
use crate::call::Call;
use crate::error::ApiError;
use crate::idempotency::{self, Begun, Pending, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, list_of, of};
use crate::tries::Tries;
use crate::wire::application::{ApplicationIn, ApplicationOut, ApplicationPatch};
use crate::wire::field::Patch;
use crate::wire::text::Uid;

const BASE: Operation = Operation { tag: "Application", answers: &[(200, of::<ApplicationOut>())], ..OPERATION };

pub const LIST: Operation = Operation {
    id: "v1.application.list",
    summary: "List applications",
    params: &[
        Param::Flag { name: "exclude_apps_with_no_endpoints", default: false, about: "Leave out those without endpoints." },
        Param::Flag {
            name: "exclude_apps_with_disabled_endpoints",
            default: false,
            about: "Leave out those whose endpoints are all disabled.",
        },
        Param::Flag {
            name: "exclude_apps_with_svix_play_endpoints",
            default: false,
            about: "Taken for compatibility; has no effect.",
        },
        Param::Limit,
        Param::Iterator("app_"),
        Param::Order,
    ],
    answers: &[(200, list_of::<ApplicationOut>())],
    ..BASE
};

pub async fn list(call: Call) -> Answer {
    let query = call.query()?;
    query.bool("exclude_apps_with_svix_play_endpoints", false)?;
    let filter = ApplicationFilter {
        exclude_without_endpoints: query.bool("exclude_apps_with_no_endpoints", false)?,
        exclude_with_disabled_endpoints: query.bool("exclude_apps_with_disabled_endpoints", false)?,
    };
    let found = call.store().list_applications(call.principal()?.org, filter, query.page(Direction::Ascending)?).await?;
    page(found, ApplicationOut::from, |app| app.id.clone())
}

pub const CREATE: Operation = Operation {
    id: "v1.application.create",
    summary: "Create an application, or with `get_if_exists` get the one with this uid",
    params: &[
        Param::Flag { name: "get_if_exists", default: false, about: "Answer an existing application of this uid with 200." },
        Param::IdempotencyKey,
    ],
    body: of::<ApplicationIn>(),
    answers: &[(200, of::<ApplicationOut>()), (201, of::<ApplicationOut>())],
    ..BASE
};

pub async fn create(call: Call) -> Answer {
    let get_if_exists = call.query()?.bool("get_if_exists", false)?;
    let body = call.body(BODY_MAX).await?;
    let mut input: ApplicationIn = body::parse(&body)?;
    let pending = match idempotency::begin(&call, &body).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let uid = uid_of(std::mem::take(&mut input.uid))?;
    if get_if_exists && let Some(found) = existing(&call, uid.as_ref()).await? {
        return answer_existing(&call, &pending, found).await;
    }
    let app = new_application(&call, input, uid.clone())?;
    let bytes = answer::to_bytes(&ApplicationOut::from(app.clone()))?;
    let record = pending.record(StatusCode::CREATED, &bytes);
    match call.store().create_application(app, record).await {
        Err(StoreError::Conflict { what, value }) if get_if_exists => match existing(&call, uid.as_ref()).await? {
            Some(found) => answer_existing(&call, &pending, found).await,
            None => Err(StoreError::Conflict { what, value }.into()),
        },
        written => Ok(answer_of(written?, StatusCode::CREATED, bytes)),
    }
}

async fn existing(call: &Call, uid: Option<&String>) -> Result<Option<Application>, ApiError> {
    let Some(uid) = uid else { return Ok(None) };
    Ok(call.store().find_application(call.principal()?.org, uid).await?)
}

/// A hit of `get_if_exists`: nothing is written but the answer under its key.
async fn answer_existing(call: &Call, pending: &Pending<'_>, found: Application) -> Result<Response, ApiError> {
    let bytes = answer::to_bytes(&ApplicationOut::from(found))?;
    match pending.record(StatusCode::OK, &bytes) {
        Some(record) => Ok(answer_of(call.store().store_idempotent(record).await?, StatusCode::OK, bytes)),
        None => Ok(answer::from_bytes(StatusCode::OK, bytes)),
    }
}

/// A uid that looks like an id would hide the application of that id.
fn uid_of(uid: Patch<Uid>) -> Result<Option<String>, ApiError> {
    match uid {
        Patch::Value(uid) if uid.0.parse::<AppId>().is_ok() => {
            Err(ApiError::field("uid", format!("{:?} has the form of an id (app_…); choose another uid", uid.0)))
        }
        Patch::Value(uid) => Ok(Some(uid.0)),
        Patch::Null | Patch::Absent => Ok(None),
    }
}

fn new_application(call: &Call, input: ApplicationIn, uid: Option<String>) -> Result<Application, ApiError> {
    let id: AppId = call.engine().new_id();
    Ok(Application {
        id,
        org: call.principal()?.org,
        kind: ApplicationKind::Customer,
        uid,
        name: input.name.into(),
        throttle_rate: input.throttle_rate.map(NonZeroU16::get),
        metadata: input.metadata.0,
        created_at: id.created(),
        updated_at: id.created(),
    })
}

/// The application to create for a path part that is unknown so far, with that part as its uid.
///
/// # Errors
/// 404 if the part has the form of an id; 403 without the scope to create applications, whatever the route itself asks for;
/// 422 if the body names another uid.
fn new_at(call: &Call, part: &str, mut input: ApplicationIn, loc: &[&str]) -> Result<Application, ApiError> {
    if part.parse::<AppId>().is_ok() {
        return Err(ApiError::not_found("application", part));
    }
    call.principal()?.require(Scope::ApplicationWrite)?;
    if let Patch::Value(uid) = std::mem::take(&mut input.uid)
        && uid.0 != part
    {
        let text = format!("{:?} is not the uid in the path ({part:?}); they must be the same to create an application", uid.0);
        return Err(ApiError::invalid(loc, text, "value_error"));
    }
    new_application(call, input, Some(part.to_owned()))
}

/// Creates the application of a path part that is unknown so far, or finds the one that another request has created meanwhile.
///
/// # Errors
/// As of [`new_at`]; those of the store.
pub(super) async fn create_at(call: &Call, part: &str, input: ApplicationIn, loc: &[&str]) -> Result<Application, ApiError> {
    let app = new_at(call, part, input, loc)?;
    match call.store().create_application(app.clone(), None).await {
        Ok(_) => {
            call.engine().application_changed(app.id);
            Ok(app)
        }
        Err(StoreError::Conflict { what, value }) => match call.store().find_application(app.org, part).await? {
            Some(found) => Ok(found),
            None => Err(StoreError::Conflict { what, value }.into()),
        },
        Err(error) => Err(error.into()),
    }
}

pub const GET: Operation = Operation { id: "v1.application.get", summary: "Get an application", ..BASE };

pub async fn get(call: Call) -> Answer {
    let app = call.application().await?;
    answer::json(StatusCode::OK, &ApplicationOut::from(app))
}

pub const UPSERT: Operation = Operation {
    id: "v1.application.upsert",
    summary: "Replace an application, or create one with the uid of the path",
    body: of::<ApplicationIn>(),
    answers: &[(200, of::<ApplicationOut>()), (201, of::<ApplicationOut>())],
    ..BASE
};

pub async fn upsert(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: ApplicationIn = body::parse(&body)?;
    let (org, part) = (call.principal()?.org, call.param("app_id")?);
    let mut tries = Tries::new(&call);
    let found = loop {
        if let Some(found) = call.store().find_application(org, part).await? {
            break found;
        }
        let app = new_at(&call, part, input.clone(), &["body", "uid"])?;
        match call.store().create_application(app.clone(), None).await {
            Ok(_) => {
                call.engine().application_changed(app.id);
                return answer::json(StatusCode::CREATED, &ApplicationOut::from(app));
            }
            Err(error) => tries.again_if_made(error, "application").await?,
        }
    };
    change(&call, found.id, |app| {
        let input = input.clone();
        match input.uid {
            Patch::Absent => {}
            uid => app.uid = uid_of(uid)?,
        }
        app.name = input.name.into();
        app.throttle_rate = input.throttle_rate.map(NonZeroU16::get);
        app.metadata = input.metadata.0;
        Ok(())
    })
    .await
}

/// Reads, changes and writes an application in its turn, again if another node was quicker.
async fn change(call: &Call, id: AppId, apply: impl Fn(&mut Application) -> Result<(), ApiError>) -> Answer {
    let _turn = call.turn(id).await?;
    let mut tries = Tries::new(call);
    loop {
        let found = call.store().get_application(id).await?;
        let read = found.ok_or_else(|| ApiError::not_found("application", &id.to_string()))?;
        let mut app = read.clone();
        apply(&mut app)?;
        app.updated_at = call.now();
        match call.store().change_application(&read, app).await {
            Ok(app) => {
                call.engine().application_changed(id);
                return answer::json(StatusCode::OK, &ApplicationOut::from(app));
            }
            Err(error) => tries.again(error).await?,
        }
    }
}

pub const PATCH: Operation = Operation {
    id: "v1.application.patch",
    summary: "Change an application; what is absent stays, null empties",
    body: of::<ApplicationPatch>(),
    ..BASE
};

pub async fn patch(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let patch: ApplicationPatch = body::parse(&body)?;
    let id = call.application().await?.id;
    change(&call, id, |app| {
        let patch = patch.clone();
        if let Some(name) = patch.name {
            app.name = name.into();
        }
        patch.throttle_rate.apply(&mut app.throttle_rate, |rate| rate);
        app.throttle_rate = app.throttle_rate.filter(|rate| *rate > 0);
        match patch.uid {
            Patch::Absent => {}
            uid => app.uid = uid_of(uid)?,
        }
        if let Some(metadata) = patch.metadata {
            app.metadata = metadata.0;
        }
        Ok(())
    })
    .await
}

pub const DELETE: Operation = Operation {
    id: "v1.application.delete",
    summary: "Delete an application and its endpoints; its pending deliveries are cancelled",
    answers: &[(204, None)],
    ..BASE
};

pub async fn delete(call: Call) -> Answer {
    let app = call.application().await?;
    let _turn = call.turn(app.id).await?;
    if !call.store().delete_application(app.org, app.id, call.now()).await? {
        return Err(ApiError::not_found("application", call.param("app_id")?));
    }
    call.engine().application_changed(app.id);
    call.api().sessions().forget_all();
    answer::no_content()
}
