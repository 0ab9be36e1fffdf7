//! Portal access: handing out a token bound to one application, logging it out; and who one is.

use std::time::Duration;

use bellwire_core::{Application, TokenId, limits};
use http::StatusCode;

use super::{BODY_MAX, application};
use crate::answer::{self, Answer};
use crate::auth::{PortalToken, Source};
use crate::body;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, of};
use crate::wire::auth::{AppPortalAccessIn, AppPortalAccessOut, AppPortalCapability, WhoamiOut};

const BASE: Operation = Operation { tag: "Authentication", ..OPERATION };

pub const APP_PORTAL_ACCESS: Operation = Operation {
    id: "v1.authentication.app-portal-access",
    summary: "Get a link and a token for an application's portal",
    params: &[Param::IdempotencyKey],
    body: of::<AppPortalAccessIn>(),
    answers: &[(200, of::<AppPortalAccessOut>())],
    ..BASE
};

pub async fn app_portal_access(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let mut input: AppPortalAccessIn = body::parse(&body)?;
    let seconds = input.expiry.unwrap_or(limits::PORTAL_TOKEN_SECONDS_MAX);
    if !(limits::PORTAL_TOKEN_SECONDS_MIN..=limits::PORTAL_TOKEN_SECONDS_MAX).contains(&seconds) {
        let (min, max) = (limits::PORTAL_TOKEN_SECONDS_MIN, limits::PORTAL_TOKEN_SECONDS_MAX);
        return Err(ApiError::field(
            "expiry",
            format!("{seconds} is not between {min} and {max} seconds (one hour to seven days)"),
        ));
    }
    let pending = match idempotency::begin(&call, &body).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let app = find_or_create(&call, &mut input).await?;
    let now = call.now();
    let token = call.api().tokens().mint_portal(PortalToken {
        id: call.engine().new_id::<TokenId>(),
        org: app.org,
        app: app.id,
        capabilities: capabilities(&input),
        session_id: input.session_id.as_ref().map(|id| id.0.as_str()),
        now,
        expires_at: now.plus(Duration::from_secs(seconds)),
    });
    let token = token.map_err(|error| ApiError::internal(format!("portal token not signed: {error}")))?.expose().to_owned();
    // In the fragment, which browsers send to nobody.
    let url = format!("{}/portal#key={token}", call.api().public_url());
    let bytes = answer::to_bytes(&AppPortalAccessOut { url, token })?;
    match pending.record(StatusCode::OK, &bytes) {
        Some(record) => Ok(answer_of(call.store().store_idempotent(record).await?, StatusCode::OK, bytes)),
        None => Ok(answer::from_bytes(StatusCode::OK, bytes)),
    }
}

async fn find_or_create(call: &Call, input: &mut AppPortalAccessIn) -> Result<Application, ApiError> {
    let part = call.param("app_id")?;
    match (call.find_entry().await?, input.application.take()) {
        (Some(entry), _) => Ok(entry.application.clone()),
        (None, Some(new)) => application::create_at(call, part, new, &["body", "application", "uid"]).await,
        (None, None) => Err(ApiError::not_found("application", part)),
    }
}

fn capabilities(input: &AppPortalAccessIn) -> Vec<String> {
    let asked = match (&input.capabilities, input.read_only) {
        (Some(asked), _) => asked.as_slice(),
        (None, Some(true)) => &[],
        (None, _) => &AppPortalCapability::ALL,
    };
    let is_in = |capability: &AppPortalCapability| *capability == AppPortalCapability::ViewBase || asked.contains(capability);
    AppPortalCapability::ALL.iter().filter(|capability| is_in(capability)).map(|capability| format!("{capability:?}")).collect()
}

pub const LOGOUT: Operation = Operation {
    id: "v1.authentication.logout",
    summary: "Revoke the portal token this is asked with",
    params: &[Param::IdempotencyKey],
    answers: &[(204, None)],
    ..BASE
};

pub async fn logout(call: Call) -> Answer {
    let principal = call.principal()?;
    let (Source::Portal { token, expires_at }, Some(app)) = (&principal.source, principal.app) else {
        let text = "only portal tokens can be logged out; API keys are revoked (DELETE /api/v1/api-key/{key_id})";
        return Err(ApiError::new(Code::Forbidden, text));
    };
    call.store().revoke_token(*token, app, *expires_at).await?;
    call.api().sessions().forget_all();
    answer::no_content()
}

pub const WHOAMI: Operation = Operation {
    id: "v1.authentication.whoami",
    summary: "What the credential this is asked with stands for",
    answers: &[(200, of::<WhoamiOut>())],
    ..BASE
};

pub async fn whoami(call: Call) -> Answer {
    let principal = call.principal()?;
    let permission_source = match principal.source {
        Source::ApiKey(_) => "Unknown",
        Source::Jwt | Source::Portal { .. } => "SvixJwt",
    };
    answer::json(
        StatusCode::OK,
        &WhoamiOut {
            env_id: Some(principal.org.to_string()),
            app_id: principal.app.map(|app| app.to_string()),
            stream_app_id: None,
            permission_source,
            session_id: principal.session_id.clone(),
        },
    )
}
