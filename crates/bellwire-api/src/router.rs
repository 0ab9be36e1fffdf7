//! Every route on one page: method, path, who may, what it runs, how it is documented.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use http::{Method, Uri};
use tower::Service;

use crate::ApiState;
use crate::auth::Scope;
use crate::call::{Call, Run, Serve};
use crate::error::{ApiError, Code};
use crate::openapi::operation::Operation;
use crate::receive;
use crate::route::{
    api_key, application, attempt, auth, endpoint, endpoint_action, endpoint_header, endpoint_secret, event_type, health,
    message, not_served, operational, server, source, source_endpoint, source_setting, task,
};

/// What a route asks of the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None at all.
    Public,
    /// Any valid one.
    Any,
    /// One with this scope.
    Scope(Scope),
}

/// Whose credential: one bound to an application is let in where the path names the application, or where it does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Organisation,
    Application,
}

/// One operation.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    pub reach: Reach,
    pub op: &'static Operation,
    pub run: Run,
}

impl Route {
    /// Whether the handler goes on when the caller goes away: everything that changes what the engine has cached.
    pub(crate) fn is_detached(&self) -> bool {
        self.method != Method::GET && self.op.id != message::CREATE.id
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $access:ident $reach:ident $doc:path => $run:path;)+) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            access: access!($access),
            reach: Reach::$reach,
            op: &$doc,
            run: |call: Call| Box::pin($run(call)),
        },)+]
    };
}

macro_rules! access {
    (Public) => {
        Access::Public
    };
    (Any) => {
        Access::Any
    };
    ($scope:ident) => {
        Access::Scope(Scope::$scope)
    };
}

/// All of them. `scope` and `reach` are checked before the handler runs.
#[rustfmt::skip]
pub static ROUTES: &[Route] = routes! {
    // Method, path, scope, reach, documentation, handler.
    GET    "/api/v1/health" Public Application health::GET => health::get;
    GET    "/api/v1/health/ping" Public Application health::PING => health::get;

    POST   "/api/v1/auth/app-portal-access/{app_id}" PortalWrite Organisation auth::APP_PORTAL_ACCESS => auth::app_portal_access;
    POST   "/api/v1/auth/logout" Any Application auth::LOGOUT => auth::logout;
    GET    "/api/v1/auth/whoami" Any Application auth::WHOAMI => auth::whoami;

    GET    "/api/v1/api-key" ApiKeyRead Organisation api_key::LIST => api_key::list;
    POST   "/api/v1/api-key" ApiKeyWrite Organisation api_key::CREATE => api_key::create;
    DELETE "/api/v1/api-key/{key_id}" ApiKeyWrite Organisation api_key::REVOKE => api_key::revoke;

    GET    "/api/v1/app" ApplicationRead Organisation application::LIST => application::list;
    POST   "/api/v1/app" ApplicationWrite Organisation application::CREATE => application::create;
    GET    "/api/v1/app/{app_id}" ApplicationRead Application application::GET => application::get;
    PUT    "/api/v1/app/{app_id}" ApplicationWrite Organisation application::UPSERT => application::upsert;
    PATCH  "/api/v1/app/{app_id}" ApplicationWrite Organisation application::PATCH => application::patch;
    DELETE "/api/v1/app/{app_id}" ApplicationWrite Organisation application::DELETE => application::delete;

    GET    "/api/v1/app/{app_id}/endpoint" EndpointRead Application endpoint::LIST => endpoint::list;
    POST   "/api/v1/app/{app_id}/endpoint" EndpointWrite Application endpoint::CREATE => endpoint::create;
    GET    "/api/v1/app/{app_id}/endpoint/{endpoint_id}" EndpointRead Application endpoint::GET => endpoint::get;
    PUT    "/api/v1/app/{app_id}/endpoint/{endpoint_id}" EndpointWrite Application endpoint::UPSERT => endpoint::upsert;
    PATCH  "/api/v1/app/{app_id}/endpoint/{endpoint_id}" EndpointWrite Application endpoint::PATCH => endpoint::patch;
    DELETE "/api/v1/app/{app_id}/endpoint/{endpoint_id}" EndpointWrite Application endpoint::DELETE => endpoint::delete;
    GET    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers" EndpointRead Application endpoint_header::GET => endpoint_header::get;
    PUT    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers" EndpointWrite Application endpoint_header::SET => endpoint_header::set;
    PATCH  "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers" EndpointWrite Application endpoint_header::PATCH => endpoint_header::patch;
    GET    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret" EndpointSecret Application endpoint_secret::GET => endpoint_secret::get;
    POST   "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret/rotate" EndpointSecretWrite Application endpoint_secret::ROTATE => endpoint_secret::rotate;
    GET    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/stats" AttemptRead Application endpoint_action::STATS => endpoint_action::stats;
    POST   "/api/v1/app/{app_id}/endpoint/{endpoint_id}/recover" AttemptWrite Application endpoint_action::RECOVER => endpoint_action::recover;
    POST   "/api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example" AttemptWrite Application endpoint_action::SEND_EXAMPLE => endpoint_action::send_example;

    GET    "/api/v1/event-type" EventTypeRead Application event_type::LIST => event_type::list;
    POST   "/api/v1/event-type" EventTypeWrite Organisation event_type::CREATE => event_type::create;
    GET    "/api/v1/event-type/{event_type_name}" EventTypeRead Application event_type::GET => event_type::get;
    PUT    "/api/v1/event-type/{event_type_name}" EventTypeWrite Organisation event_type::UPSERT => event_type::upsert;
    PATCH  "/api/v1/event-type/{event_type_name}" EventTypeWrite Organisation event_type::PATCH => event_type::patch;
    DELETE "/api/v1/event-type/{event_type_name}" EventTypeWrite Organisation event_type::DELETE => event_type::delete;

    GET    "/api/v1/app/{app_id}/msg" MessageRead Application message::LIST => message::list;
    POST   "/api/v1/app/{app_id}/msg" MessageWrite Application message::CREATE => message::create;
    GET    "/api/v1/app/{app_id}/msg/{msg_id}" MessageRead Application message::GET => message::get;
    DELETE "/api/v1/app/{app_id}/msg/{msg_id}/content" MessageWrite Application message::EXPUNGE => message::expunge;

    GET    "/api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}" AttemptRead Application attempt::LIST_BY_ENDPOINT => attempt::list_by_endpoint;
    GET    "/api/v1/app/{app_id}/attempt/msg/{msg_id}" AttemptRead Application attempt::LIST_BY_MESSAGE => attempt::list_by_message;
    GET    "/api/v1/app/{app_id}/endpoint/{endpoint_id}/msg" AttemptRead Application attempt::LIST_MESSAGES => attempt::list_messages;
    GET    "/api/v1/app/{app_id}/msg/{msg_id}/endpoint" AttemptRead Application attempt::LIST_ENDPOINTS => attempt::list_endpoints;
    GET    "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}" AttemptRead Application attempt::GET => attempt::get;
    DELETE "/api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content" MessageWrite Application attempt::EXPUNGE => attempt::expunge;
    POST   "/api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend" AttemptWrite Application attempt::RESEND => attempt::resend;

    GET    "/api/v1/background-task" TaskRead Organisation task::LIST => task::list;
    GET    "/api/v1/background-task/{task_id}" TaskRead Organisation task::GET => task::get;

    GET    "/api/v1/operational-webhook/endpoint" OperationalWebhookRead Organisation operational::LIST => endpoint::list;
    POST   "/api/v1/operational-webhook/endpoint" OperationalWebhookWrite Organisation operational::CREATE => endpoint::create;
    GET    "/api/v1/operational-webhook/endpoint/{endpoint_id}" OperationalWebhookRead Organisation operational::GET => endpoint::get;
    PUT    "/api/v1/operational-webhook/endpoint/{endpoint_id}" OperationalWebhookWrite Organisation operational::UPSERT => endpoint::upsert;
    DELETE "/api/v1/operational-webhook/endpoint/{endpoint_id}" OperationalWebhookWrite Organisation operational::DELETE => endpoint::delete;
    GET    "/api/v1/operational-webhook/endpoint/{endpoint_id}/headers" OperationalWebhookRead Organisation operational::GET_HEADERS => endpoint_header::get;
    PUT    "/api/v1/operational-webhook/endpoint/{endpoint_id}/headers" OperationalWebhookWrite Organisation operational::SET_HEADERS => endpoint_header::set;
    GET    "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret" OperationalWebhookWrite Organisation operational::GET_SECRET => endpoint_secret::get;
    POST   "/api/v1/operational-webhook/endpoint/{endpoint_id}/secret/rotate" OperationalWebhookWrite Organisation operational::ROTATE_SECRET => endpoint_secret::rotate;

    GET    "/ingest/api/v1/source" SourceRead Organisation source::LIST => source::list;
    POST   "/ingest/api/v1/source" SourceWrite Organisation source::CREATE => source::create;
    GET    "/ingest/api/v1/source/{source_id}" SourceRead Organisation source::GET => source::get;
    PUT    "/ingest/api/v1/source/{source_id}" SourceWrite Organisation source::UPSERT => source::upsert;
    PATCH  "/ingest/api/v1/source/{source_id}" SourceWrite Organisation source::PATCH => source::patch;
    DELETE "/ingest/api/v1/source/{source_id}" SourceWrite Organisation source::DELETE => source::delete;
    POST   "/ingest/api/v1/source/{source_id}/token/rotate" SourceWrite Organisation source::ROTATE_TOKEN => source::rotate_token;
    GET    "/ingest/api/v1/source/{source_id}/log" SourceRead Organisation source::LOG => source::log;
    GET    "/ingest/api/v1/source/{source_id}/endpoint" EndpointRead Organisation source_endpoint::LIST => endpoint::list;
    POST   "/ingest/api/v1/source/{source_id}/endpoint" EndpointWrite Organisation source_endpoint::CREATE => endpoint::create;
    GET    "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}" EndpointRead Organisation source_endpoint::GET => endpoint::get;
    PUT    "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}" EndpointWrite Organisation source_endpoint::UPSERT => endpoint::upsert;
    DELETE "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}" EndpointWrite Organisation source_endpoint::DELETE => endpoint::delete;
    GET    "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/secret" EndpointSecret Organisation source_endpoint::GET_SECRET => endpoint_secret::get;
    POST   "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/secret/rotate" EndpointSecretWrite Organisation source_endpoint::ROTATE_SECRET => endpoint_secret::rotate;
    GET    "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/headers" EndpointRead Organisation source_endpoint::GET_HEADERS => endpoint_header::get;
    PUT    "/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/headers" EndpointWrite Organisation source_endpoint::SET_HEADERS => endpoint_header::set;
    GET    "/api/v1/source/{source_id}/settings" SourceRead Organisation source_setting::GET => source_setting::get;
    PUT    "/api/v1/source/{source_id}/settings" SourceWrite Organisation source_setting::SET => source_setting::set;
    PATCH  "/api/v1/source/{source_id}/settings" SourceWrite Organisation source_setting::PATCH => source_setting::patch;
    GET    "/api/v1/source/{source_id}/log" SourceRead Organisation source_setting::LOG => source_setting::log;
    GET    "/api/v1/source/{source_id}/handshake" SourceWrite Organisation source_setting::HANDSHAKE => source_setting::handshake;
    DELETE "/api/v1/source/{source_id}/handshake" SourceWrite Organisation source_setting::FORGET_HANDSHAKE => source_setting::forget_handshake;
    GET    "/api/v1/provider" SourceRead Organisation source_setting::PROVIDERS => source_setting::providers;
    GET    "/api/v1/provider/{provider_id}" SourceRead Organisation source_setting::PROVIDER => source_setting::provider;

    // The server itself: not part of the API document's objects, but of the document.
    GET    "/healthz" Public Application server::HEALTHZ => server::healthz;
    GET    "/readyz" Public Application server::READYZ => server::readyz;
    GET    "/metrics" Public Application server::METRICS => server::metrics;
    GET    "/openapi.json" Public Application server::OPENAPI => server::openapi;
    GET    "/docs" Public Application server::DOCS => server::docs;
    GET    "/docs/docs.js" Public Application server::DOCS_SCRIPT => server::docs_script;
    GET    "/docs/docs.css" Public Application server::DOCS_STYLE => server::docs_style;
    GET    "/" Public Application server::LANDING => server::landing;
};

/// The whole API as one service.
#[derive(Clone)]
pub struct Api {
    router: Router,
    state: ApiState,
}

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

impl Api {
    pub fn new(state: ApiState) -> Self {
        let mut router: Router<ApiState> = Router::new();
        let serves_api = state.serves_api();
        for route in ROUTES.iter().filter(|route| serves_api || is_for_balancers(route)) {
            router = router.route(route.path, on(filter(&route.method), Serve(route)));
        }
        for (method, path) in not_served::NOT_SERVED.iter().filter(|_| serves_api) {
            router = router.route(path, on(filter(method), not_served::answer));
        }
        let router = router
            .fallback(move |uri: Uri| async move {
                let shown: String = uri.path().chars().take(128).collect();
                let text = if serves_api {
                    format!("there is no path {shown:?}; /docs shows all there are")
                } else {
                    format!("{shown:?} is not served here: this node only delivers (node.roles); ask one with the role api")
                };
                ApiError::new(Code::RouteNotFound, text).into_response("")
            })
            .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
                let shown: String = uri.path().chars().take(128).collect();
                let text = format!("{method} is not served at {shown:?}; the Allow header names what is");
                ApiError::new(Code::MethodNotAllowed, text).into_response("")
            })
            .with_state(state.clone());
        Self { router, state }
    }

    pub fn state(&self) -> &ApiState {
        &self.state
    }

    /// Answers one request.
    pub async fn handle(&self, mut request: Request<Body>) -> Response {
        if request.uri().path().starts_with(receive::PREFIX) && self.state.serves_api() {
            // The URL is left as it is: providers sign it. In a box: the API's requests would move that much, too.
            return Box::pin(receive::serve(&self.state, request)).await;
        }
        without_trailing_slash(&mut request);
        let mut router = self.router.clone();
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What a node serves that does not serve the API.
fn is_for_balancers(route: &Route) -> bool {
    matches!(route.path, "/healthz" | "/readyz" | "/metrics")
}

/// Clients of the Svix API end paths with a slash now and then.
fn without_trailing_slash(request: &mut Request<Body>) {
    let path = request.uri().path();
    if path.len() < 2 || !path.ends_with('/') {
        return;
    }
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    let text = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if let Ok(uri) = text.parse() {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_under_the_api_asks_for_a_scope() {
        let open = ["/api/v1/health", "/api/v1/health/ping", "/api/v1/auth/whoami", "/api/v1/auth/logout"];
        for route in ROUTES.iter().filter(|route| route.path.starts_with("/api/") || route.path.starts_with("/ingest/")) {
            let is_scoped = matches!(route.access, Access::Scope(_));
            assert!(is_scoped || open.contains(&route.path), "{} {} can be used without a scope", route.method, route.path);
            let writes = route.method != Method::GET;
            if let Access::Scope(scope) = route.access {
                assert!(
                    !writes || !(scope.as_str().ends_with(":read") || scope == Scope::EndpointSecret),
                    "{} {} writes with a reading scope",
                    route.method,
                    route.path
                );
            }
        }
    }

    #[test]
    fn an_application_is_named_wherever_its_credential_may_go() {
        let shared = ["/api/v1/event-type", "/api/v1/auth/", "/api/v1/health"];
        for route in ROUTES.iter().filter(|route| route.reach == Reach::Application && route.path.starts_with("/api/")) {
            let is_shared = shared.iter().any(|start| route.path.starts_with(start));
            assert!(route.path.contains("{app_id}") || is_shared, "{} is open to every application's credential", route.path);
        }
    }

    #[test]
    fn operation_ids_are_unique() {
        let mut ids: Vec<_> = ROUTES.iter().map(|route| route.op.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
