//! Sources: create, read, change, delete, replace the URL, look into the log. Paths and shapes are those of the Svix API.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwire_core::{Application, ApplicationKind, Direction, IdKind, OrgId, Secret, Source, SourceId, limits};
use http::StatusCode;

use super::{BODY_MAX, page};
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::ApiError;
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, list_of, of};
use crate::receive;
use crate::tries::Tries;
use crate::wire::field::Patch;
use crate::wire::source::{IngestLogOut, IngestSourceIn, IngestSourceOut, IngestSourcePatch, RotateTokenOut};
use crate::wire::text::Uid;

use super::source_setting::check_settings;

const BASE: Operation = Operation { tag: "Source", answers: &[(200, of::<IngestSourceOut>())], ..OPERATION };

pub const LIST: Operation = Operation {
    id: "v1.ingest.source.list",
    summary: "List sources",
    params: &[Param::Limit, Param::Iterator("src_"), Param::Order],
    answers: &[(200, list_of::<IngestSourceOut>())],
    ..BASE
};

pub async fn list(call: Call) -> Answer {
    let query = call.query()?.page(Direction::Ascending)?;
    let found = call.store().list_sources(call.principal()?.org, query).await?;
    page(found, |source| shown(&call, &source), |source| source.id.clone())
}

pub(super) fn shown(call: &Call, source: &Source) -> IngestSourceOut {
    let url = (source.kind != receive::CRON).then(|| url_of(call, source));
    IngestSourceOut::new(source, url, receive::warnings_of(call.api().receive(), source))
}

fn url_of(call: &Call, source: &Source) -> String {
    format!("{}{}{}", call.api().public_url(), receive::PREFIX, source.token.expose())
}

pub const CREATE: Operation = Operation {
    id: "v1.ingest.source.create",
    summary: "Create a source: a URL whose requests are verified and become messages",
    params: &[Param::IdempotencyKey],
    body: of::<IngestSourceIn>(),
    answers: &[(201, of::<IngestSourceOut>())],
    ..BASE
};

pub async fn create(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let mut input: IngestSourceIn = body::parse(&body)?;
    let pending = match idempotency::begin(&call, &body).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let uid = uid_of(std::mem::take(&mut input.uid))?;
    let (source, application) = new_source(&call, input, uid).await?;
    let bytes = answer::to_bytes(&shown(&call, &source))?;
    let record = pending.record(StatusCode::CREATED, &bytes);
    let written = call.store().create_source(source, application, record).await?;
    Ok(answer_of(written, StatusCode::CREATED, bytes))
}

async fn new_source(call: &Call, input: IngestSourceIn, uid: Option<String>) -> Result<(Source, Option<Application>), ApiError> {
    let (org, id): (OrgId, SourceId) = (call.principal()?.org, call.engine().new_id());
    let own = match &input.app_id {
        Some(_) => None,
        None => Some(own_application(call, org, &input.name.0)),
    };
    let app = match (&own, &input.app_id) {
        (Some(own), _) => own.id,
        (None, Some(part)) => match call.engine().application(org, &part.0).await? {
            Some(entry) => entry.application.id,
            None => return Err(ApiError::field("appId", format!("there is no application {:?} here", part.0))),
        },
        (None, None) => return Err(ApiError::internal("a source without an application")),
    };
    let mut config = BTreeMap::new();
    input.config.unwrap_or_default().apply(&mut config);
    let settings = input.settings.unwrap_or_default();
    check_settings(&settings, &["body", "settings"])?;
    let source = Source {
        id,
        org,
        app,
        is_app_own: own.is_some(),
        uid,
        name: input.name.into(),
        kind: input.kind.0,
        token: new_token(call),
        config,
        settings,
        state: BTreeMap::new(),
        metadata: input.metadata.0,
        created_at: id.created(),
        updated_at: id.created(),
    };
    check(call, &source)?;
    Ok((source, own))
}

fn own_application(call: &Call, org: OrgId, name: &str) -> Application {
    let id: bellwire_core::AppId = call.engine().new_id();
    Application {
        id,
        org,
        kind: ApplicationKind::Customer,
        uid: None,
        name: name.to_owned(),
        throttle_rate: None,
        metadata: BTreeMap::new(),
        created_at: id.created(),
        updated_at: id.created(),
    }
}

fn new_token(call: &Call) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(call.engine().random_bytes::<{ limits::SOURCE_TOKEN_BYTES }>()))
}

/// A uid that looks like an id would hide the source of that id.
fn uid_of(uid: Patch<Uid>) -> Result<Option<String>, ApiError> {
    match uid {
        Patch::Value(uid) if uid.0.parse::<SourceId>().is_ok() => {
            Err(ApiError::field("uid", format!("{:?} has the form of an id (src_…); choose another uid", uid.0)))
        }
        Patch::Value(uid) => Ok(Some(uid.0)),
        Patch::Null | Patch::Absent => Ok(None),
    }
}

/// Whether the kind is known and the config can ever fit. What is only missing may come later: until then nothing is taken.
fn check(call: &Call, source: &Source) -> Result<(), ApiError> {
    if source.kind == receive::GENERIC {
        return Ok(());
    }
    if source.kind == receive::CRON {
        return receive::check_cron(source)
            .map_err(|(name, text)| ApiError::invalid(&["body", "config", name], text, "value_error"));
    }
    let Some(preset) = call.api().receive().preset(&source.kind) else {
        let similar = bellwire_verify::Presets::builtin().resembling(&source.kind);
        let hint = if similar.is_empty() { String::new() } else { format!("; did you mean {}?", similar.join(" or ")) };
        let text =
            format!("there is no provider {:?}{hint} GET /api/v1/provider lists them; generic-webhook takes any", source.kind);
        return Err(ApiError::field("type", text));
    };
    let credentials = receive::credentials_of(Some(preset), receive::flow_of(Some(preset), source), source);
    match preset.check_credentials(&credentials) {
        Err(refusal) if !receive::is_missing(&refusal) => {
            Err(ApiError::invalid(&["body", "config"], format!("the config can never fit: {refusal}"), "value_error"))
        }
        _ => Ok(()),
    }
}

/// The source of the path, or 404.
pub(super) async fn find(call: &Call) -> Result<Source, ApiError> {
    let part = call.param("source_id")?;
    let found = call.store().find_source(call.principal()?.org, part).await?;
    found.ok_or_else(|| ApiError::not_found("source", part))
}

pub const GET: Operation = Operation { id: "v1.ingest.source.get", summary: "Get a source", ..BASE };

pub async fn get(call: Call) -> Answer {
    let source = find(&call).await?;
    answer::json(StatusCode::OK, &shown(&call, &source))
}

pub const UPSERT: Operation = Operation {
    id: "v1.ingest.source.upsert",
    summary: "Replace a source, or create one with the uid of the path; its URL and, if none is given, its config stay",
    body: of::<IngestSourceIn>(),
    answers: &[(200, of::<IngestSourceOut>()), (201, of::<IngestSourceOut>())],
    ..BASE
};

pub async fn upsert(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let mut input: IngestSourceIn = body::parse(&body)?;
    let (org, part) = (call.principal()?.org, call.param("source_id")?);
    let uid = std::mem::take(&mut input.uid);
    let mut tries = Tries::new(&call);
    while call.store().find_source(org, part).await?.is_none() {
        if part.parse::<SourceId>().is_ok() {
            return Err(ApiError::not_found("source", part));
        }
        if let Patch::Value(uid) = &uid
            && uid.0 != part
        {
            let text = format!("{:?} is not the uid in the path ({part:?}); they must be the same to create a source", uid.0);
            return Err(ApiError::field("uid", text));
        }
        let (source, application) = new_source(&call, input.clone(), Some(part.to_owned())).await?;
        let bytes = answer::to_bytes(&shown(&call, &source))?;
        match call.store().create_source(source, application, None).await {
            Ok(written) => return Ok(answer_of(written, StatusCode::CREATED, bytes)),
            Err(error) => tries.again_if_made(error, "source").await?,
        }
    }
    if input.app_id.is_some() {
        return Err(ApiError::field("appId", "a source stays with its application; create another one"));
    }
    if let Some(settings) = &input.settings {
        check_settings(settings, &["body", "settings"])?;
    }
    change(&call, |source| {
        let input = input.clone();
        match uid.clone() {
            Patch::Absent => {}
            uid => source.uid = uid_of(uid)?,
        }
        source.name = input.name.into();
        source.metadata = input.metadata.0;
        set_kind(source, input.kind.0)?;
        if let Some(config) = input.config {
            source.config.clear();
            config.apply(&mut source.config);
        }
        if let Some(settings) = input.settings {
            source.settings = settings;
        }
        check(&call, source)
    })
    .await
}

/// What one provider's secret opened must not open for another's requests.
fn set_kind(source: &mut Source, kind: String) -> Result<(), ApiError> {
    if source.kind != kind {
        source.config.clear();
        source.kind = kind;
    }
    Ok(())
}

/// Changes the source of the path and shows it.
async fn change(call: &Call, apply: impl Fn(&mut Source) -> Result<(), ApiError>) -> Answer {
    let source = write(call, apply).await?;
    answer::json(StatusCode::OK, &shown(call, &source))
}

/// Reads, changes and writes the source of the path in its turn, again if another node was quicker.
pub(super) async fn write(call: &Call, apply: impl Fn(&mut Source) -> Result<(), ApiError>) -> Result<Source, ApiError> {
    let _turn = call.turn(find(call).await?.app).await?;
    let mut tries = Tries::new(call);
    loop {
        let read = find(call).await?;
        let mut source = read.clone();
        apply(&mut source)?;
        source.updated_at = call.now();
        match call.store().change_source(&read, source.clone(), None).await {
            Ok(_) => {
                tell_changed(call, &read, &source);
                return Ok(source);
            }
            Err(error) => tries.again(error).await?,
        }
    }
}

/// Requests under the old token and the new one see the source as it is now.
fn tell_changed(call: &Call, read: &Source, source: &Source) {
    for token in [&read.token, &source.token] {
        call.api().receive().source_changed(token.expose());
    }
}

pub const PATCH: Operation = Operation {
    id: "v1.ingest.source.patch",
    summary: "Change a source; what is absent stays, null empties",
    body: of::<IngestSourcePatch>(),
    ..BASE
};

pub async fn patch(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let patch: IngestSourcePatch = body::parse(&body)?;
    change(&call, |source| {
        let patch = patch.clone();
        if let Some(name) = patch.name {
            source.name = name.into();
        }
        match patch.uid {
            Patch::Absent => {}
            uid => source.uid = uid_of(uid)?,
        }
        if let Some(metadata) = patch.metadata {
            source.metadata = metadata.0;
        }
        if let Some(kind) = patch.kind {
            set_kind(source, kind.0)?;
        }
        patch.config.unwrap_or_default().apply(&mut source.config);
        check(&call, source)
    })
    .await
}

pub const DELETE: Operation = Operation {
    id: "v1.ingest.source.delete",
    summary: "Delete a source with its log, and its application if that was made for it",
    answers: &[(204, None)],
    ..BASE
};

pub async fn delete(call: Call) -> Answer {
    let source = find(&call).await?;
    let _turn = call.turn(source.app).await?;
    if !call.store().delete_source(source.org, source.id, call.now()).await? {
        return Err(ApiError::not_found("source", call.param("source_id")?));
    }
    call.api().receive().source_changed(source.token.expose());
    if source.is_app_own {
        call.engine().application_changed(source.app);
        call.api().sessions().forget_all();
    }
    answer::no_content()
}

pub const ROTATE_TOKEN: Operation = Operation {
    id: "v1.ingest.source.rotate-token",
    summary: "Give a source another URL; the old one is gone at once",
    params: &[Param::IdempotencyKey],
    answers: &[(200, of::<RotateTokenOut>())],
    ..BASE
};

pub async fn rotate_token(call: Call) -> Answer {
    let pending = match idempotency::begin(&call, &[]).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let token = new_token(&call);
    let _turn = call.turn(find(&call).await?.app).await?;
    let mut tries = Tries::new(&call);
    loop {
        let read = find(&call).await?;
        let source = Source { token: token.clone(), updated_at: call.now(), ..read.clone() };
        let bytes = answer::to_bytes(&RotateTokenOut { ingest_url: url_of(&call, &source) })?;
        let record = pending.record(StatusCode::OK, &bytes);
        match call.store().change_source(&read, source.clone(), record).await {
            Ok(written) => {
                tell_changed(&call, &read, &source);
                return Ok(answer_of(written, StatusCode::OK, bytes));
            }
            Err(error) => tries.again(error).await?,
        }
    }
}

pub const LOG: Operation = Operation {
    id: "v1.ingest.log.list",
    summary: "List what came to a source and became no message of its own, newest first",
    params: &[Param::Limit, Param::Iterator("log"), Param::Order],
    answers: &[(200, list_of::<IngestLogOut>())],
    ..BASE
};

pub async fn log(call: Call) -> Answer {
    let query = call.query()?.page(Direction::Descending)?;
    let source = find(&call).await?;
    let found = call.store().list_receipts(source.id, query).await?;
    page(found, IngestLogOut::from, |entry| entry.id.clone())
}
