//! Signing keys: read, and rotate with a grace period in which the old key signs too.

use std::time::Duration;

use bellwire_core::{Endpoint, limits};
use bellwire_verify::Key;
use bytes::Bytes;
use http::{StatusCode, header};

use super::BODY_MAX;
use super::endpoint::signing_key;
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::ApiError;
use crate::event;
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, of};
use crate::tries::Tries;
use crate::wire::endpoint_part::{EndpointSecretOut, EndpointSecretRotateIn};

const BASE: Operation = Operation { tag: "Endpoint", ..OPERATION };

pub const GET: Operation = Operation {
    id: "v1.endpoint.get-secret",
    summary: "Get the key receivers verify with: the secret (whsec_…), or the public half (whpk_…) of an asymmetric key",
    answers: &[(200, of::<EndpointSecretOut>())],
    ..BASE
};

pub async fn get(call: Call) -> Answer {
    let app = call.application().await?;
    let endpoint = call.endpoint(app.id).await?;
    answer::json(StatusCode::OK, &shown(&endpoint)?)
}

/// What receivers verify with.
fn shown(endpoint: &Endpoint) -> Result<EndpointSecretOut, ApiError> {
    let stored = Key::parse(endpoint.secret.current.expose());
    let key = match stored.map_err(|error| ApiError::internal(format!("stored signing key of {}: {error}", endpoint.id)))? {
        Key::Signing(key) => key.verifying_key().to_string(),
        key => key.expose(),
    };
    Ok(EndpointSecretOut { key })
}

pub const ROTATE: Operation = Operation {
    id: "v1.endpoint.rotate-secret",
    summary: "Replace the signing key; the old one signs too until the grace period ends",
    params: &[Param::IdempotencyKey],
    body: of::<EndpointSecretRotateIn>(),
    answers: &[(204, None), (200, of::<EndpointSecretOut>())],
    ..BASE
};

/// Whether the caller is a generation of the official clients that reads the key from the answer (its document says 204,
/// but `rotate_secret` of `svix` 2.x for Python fails on an empty body).
fn reads_rotated_key(call: &Call) -> bool {
    let agent = call.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((version, rest)) = agent.strip_prefix("svix-libs/").and_then(|rest| rest.split_once('/')) else { return false };
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    rest.starts_with("python") && major.is_some_and(|major| major >= 2)
}

pub async fn rotate(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EndpointSecretRotateIn = body::parse(&body)?;
    let grace = input.grace_period_seconds.unwrap_or(limits::ROTATION_GRACE_SECONDS_DEFAULT);
    if grace > limits::ROTATION_GRACE_SECONDS_MAX {
        let text = format!("{grace} is more than {} seconds (7 days)", limits::ROTATION_GRACE_SECONDS_MAX);
        return Err(ApiError::field("gracePeriodSeconds", text));
    }
    let key = input.key.map(|text| signing_key(&text, "key")).transpose()?;
    let app = call.application().await?;
    let pending = match idempotency::begin(&call, &body).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let key = key.unwrap_or_else(|| call.engine().new_signing_secret());
    let _turn = call.turn(app.id).await?;
    let mut tries = Tries::new(&call);
    loop {
        let read = call.endpoint(app.id).await?;
        let (mut endpoint, now) = (read.clone(), call.now());
        endpoint.secret.rotate(key.clone(), now, now.plus(Duration::from_secs(grace)), limits::OLD_SECRETS_MAX);
        endpoint.updated_at = now;
        let (status, answer) = if reads_rotated_key(&call) {
            (StatusCode::OK, answer::to_bytes(&shown(&endpoint)?)?)
        } else {
            (StatusCode::NO_CONTENT, Bytes::new())
        };
        let record = pending.record(status, &answer);
        match call.store().change_endpoint(&read, endpoint.clone(), record).await {
            Ok(written) => {
                call.engine().endpoint_changed(app.id, endpoint.id);
                event::endpoint(&call, "endpoint.updated", &app, &endpoint);
                return Ok(answer_of(written, status, answer));
            }
            Err(error) => tries.again(error).await?,
        }
    }
}
