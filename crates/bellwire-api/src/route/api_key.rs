//! API keys: list, create (the secret is shown once), revoke. Beyond the Svix API.

use bellwire_core::{ApiKeyId, Direction, IdKind, Page};
use http::StatusCode;

use super::{BODY_MAX, page};
use crate::answer::{self, Answer};
use crate::auth::{API_KEY_SECRET_BYTES, NewApiKey, Scope, ScopeSet, new_api_key};
use crate::body;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::idempotency::{self, Begun, answer_of};
use crate::openapi::operation::{OPERATION, Operation, Param, list_of, of};
use crate::wire::api_key::{ApiKeyCreatedOut, ApiKeyIn, ApiKeyOut};
use crate::wire::text::DateTime;

const BASE: Operation = Operation { tag: "API Key", ..OPERATION };

pub const LIST: Operation = Operation {
    id: "v1.api-key.list",
    summary: "List the organisation's API keys, newest first, revoked ones too",
    params: &[Param::Limit, Param::Iterator("key_"), Param::Order],
    answers: &[(200, list_of::<ApiKeyOut>())],
    ..BASE
};

pub async fn list(call: Call) -> Answer {
    let asked = call.query()?.page::<ApiKeyId>(Direction::Descending)?;
    let mut keys = call.store().list_api_keys(Some(call.principal()?.org)).await?;
    // The store hands out all (at most 1,000): the page is cut here. Travelling backwards is travelling in the other order.
    let travel = if asked.backwards { asked.order.reversed() } else { asked.order };
    keys.sort_by_key(|key| key.id);
    if travel == Direction::Descending {
        keys.reverse();
    }
    if let Some(after) = asked.after {
        keys.retain(|key| if travel == Direction::Ascending { key.id > after } else { key.id < after });
    }
    let done = keys.len() <= asked.limit;
    keys.truncate(asked.limit);
    if asked.backwards {
        keys.reverse();
    }
    page(Page { rows: keys, done }, ApiKeyOut::from, |key| key.id.clone())
}

pub const CREATE: Operation = Operation {
    id: "v1.api-key.create",
    summary: "Create an API key; its text is shown this once",
    params: &[Param::IdempotencyKey],
    body: of::<ApiKeyIn>(),
    answers: &[(201, of::<ApiKeyCreatedOut>())],
    ..BASE
};

pub async fn create(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: ApiKeyIn = body::parse(&body)?;
    let principal = call.principal()?;
    // The answer holds the key: it is repeated only to who could make that key. What decides is in the request: the scopes
    // named, which are checked first, or else those of the credential, which then belong to the request.
    let mut request = body.to_vec();
    let scopes = match input.scopes {
        Some(names) => names,
        None => {
            let names = names_of(principal.scopes);
            request.extend_from_slice(names.join(" ").as_bytes());
            names
        }
    };
    if scopes.is_empty() || scopes.len() > Scope::ALL.len() + 1 {
        return Err(ApiError::field("scopes", format!("{} scopes; name 1 to {}", scopes.len(), Scope::ALL.len() + 1)));
    }
    let set = ScopeSet::parse(scopes.iter().map(String::as_str)).map_err(|error| ApiError::field("scopes", error.to_string()))?;
    if !set.is_within(principal.scopes) {
        let text = "a key cannot be given scopes that the credential creating it lacks";
        return Err(ApiError::new(Code::Forbidden, text));
    }
    let pending = match idempotency::begin(&call, &request).await? {
        Begun::Replay(response) => return Ok(response),
        Begun::Go(pending) => pending,
    };
    let id: ApiKeyId = call.engine().new_id();
    let expires_at = input.expires_at.map(|at| at.0);
    if expires_at.is_some_and(|at| at <= call.now()) {
        return Err(ApiError::field("expiresAt", "is not in the future"));
    }
    let new = NewApiKey {
        id,
        secret: call.engine().random_bytes::<API_KEY_SECRET_BYTES>(),
        org: principal.org,
        name: &input.name.0,
        scopes: &scopes,
        created_at: id.created(),
        expires_at,
    };
    let (text, record) = new_api_key(&new).map_err(|error| ApiError::field("scopes", error.to_string()))?;
    let bytes = answer::to_bytes(&ApiKeyCreatedOut {
        key: text.expose().to_owned(),
        id: id.to_string(),
        name: record.name.clone(),
        scopes: record.scopes.clone(),
        created_at: DateTime(record.created_at),
        expires_at: record.expires_at.map(DateTime),
    })?;
    let written = call.store().create_api_key(record, pending.record(StatusCode::CREATED, &bytes)).await?;
    Ok(answer_of(written, StatusCode::CREATED, bytes))
}

fn names_of(scopes: ScopeSet) -> Vec<String> {
    if scopes == ScopeSet::ALL {
        return vec!["*".to_owned()];
    }
    Scope::ALL.iter().filter(|scope| scopes.contains(**scope)).map(|scope| scope.as_str().to_owned()).collect()
}

pub const REVOKE: Operation =
    Operation { id: "v1.api-key.revoke", summary: "Revoke an API key, at once", answers: &[(204, None)], ..BASE };

pub async fn revoke(call: Call) -> Answer {
    let part = call.param("key_id")?;
    let missing = || ApiError::not_found("API key", part);
    let id: ApiKeyId = part.parse().map_err(|_| missing())?;
    if !call.store().revoke_api_key(Some(call.principal()?.org), id, call.now()).await? {
        return Err(missing());
    }
    call.api().sessions().forget_all();
    answer::no_content()
}
