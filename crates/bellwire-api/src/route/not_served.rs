//! Operations of the API's family that this server does not have: it says so (501) instead of claiming that there is no such path.

use axum::response::Response;
use http::{Method, Uri};

use crate::error::{ApiError, Code};

/// Method and path of each.
#[rustfmt::skip]
pub static NOT_SERVED: &[(Method, &str)] = &[
    (Method::POST, "/api/v1/auth/app/{app_id}/expire-all"),
    (Method::GET, "/api/v1/auth/app/{app_id}/poller/{endpoint_id}/token"),
    (Method::POST, "/api/v1/auth/app/{app_id}/create-message-token"),
    (Method::PATCH, "/api/v1/app/{app_id}/alert-email"),
    (Method::GET, "/api/v1/app/stats/count-active"),
    (Method::GET, "/api/v1/app/{app_id}/stats/attempts"),
    (Method::POST, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/cancel-msgs"),
    (Method::GET, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/transformation"),
    (Method::PATCH, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/transformation"),
    (Method::POST, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/transformation/simulate"),
    (Method::POST, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/replay-missing"),
    (Method::POST, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/bulk-replay"),
    (Method::GET, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth"),
    (Method::PUT, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth"),
    (Method::DELETE, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth"),
    (Method::GET, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/oauth-config"),
    (Method::GET, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/ca"),
    (Method::PUT, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/ca"),
    (Method::GET, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls"),
    (Method::PUT, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls"),
    (Method::DELETE, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls"),
    (Method::GET, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/mtls-config"),
    (Method::GET, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/rate-limit-status"),
    (Method::POST, "/api/v1/event-type/import/openapi"),
    (Method::GET, "/api/v1/event-type/{event_type_name}/retry-schedule"),
    (Method::PUT, "/api/v1/event-type/{event_type_name}/retry-schedule"),
    (Method::POST, "/api/v1/event-type/export/openapi"),
    (Method::POST, "/api/v1/app/{app_id}/msg/precheck/active"),
    (Method::GET, "/api/v1/app/{app_id}/events"),
    (Method::POST, "/api/v1/app/{app_id}/msg/bulk-expunge"),
    (Method::POST, "/api/v1/app/{app_id}/msg/search"),
    (Method::POST, "/api/v1/app/{app_id}/msg/expunge-all-contents"),
    (Method::GET, "/api/v1/app/{app_id}/msg/{msg_id}/raw"),
    (Method::POST, "/api/v1/app/{app_id}/endpoint/{endpoint_id}/msg/test-attempt"),
    (Method::GET, "/api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}/count"),
    (Method::GET, "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/headers"),
    (Method::PUT, "/api/v1/stats/usage/event-types"),
    (Method::POST, "/api/v1/stats/usage/app"),
    (Method::GET, "/api/v1/stats/endpoint/count"),
    (Method::GET, "/api/v1/stats/app/{app_id}/attempt"),
    (Method::GET, "/api/v1/app/{app_id}/poller/{sink_id}"),
    (Method::POST, "/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}/seek"),
    (Method::GET, "/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}"),
    (Method::POST, "/api/v1/msg/broadcast"),
    (Method::POST, "/ingest/api/v1/source/{source_id}/dashboard"),
    (Method::GET, "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/transformation"),
    (Method::PATCH, "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/transformation"),
];

pub async fn answer(method: Method, uri: Uri) -> Response {
    let shown: String = uri.path().chars().take(128).collect();
    let text = format!("{method} {shown} is part of the Svix API, but this server does not have it; /docs shows what it has");
    ApiError::new(Code::NotImplemented, text).into_response("")
}
