//! One request on its way to its handler: credential checked against the route, path and query taken apart.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::handler::Handler;
use axum::response::Response;
use bellwire_core::{AppId, Application, Endpoint, Timestamp};
use bellwire_engine::{AppEntry, Engine};
use bellwire_store::Store;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method};
use tokio::sync::{Mutex, MutexGuard};

use crate::ApiState;
use crate::auth::{self, Principal};
use crate::error::{ApiError, Code};
use crate::query::Query;
use crate::router::{Access, Reach, Route};
use crate::wire::text::IdOrUid;
use crate::{answer::Answer, body};

/// A request as handlers see it.
pub struct Call {
    api: ApiState,
    route: &'static Route,
    principal: Option<Arc<Principal>>,
    path: Vec<(Box<str>, String)>,
    parts: Parts,
    body: Mutex<Option<Body>>,
}

/// The axum handler of a route.
#[derive(Clone, Copy)]
pub struct Serve(pub &'static Route);

impl Handler<(), ApiState> for Serve {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, api: ApiState) -> Self::Future {
        Box::pin(serve(self.0, request, api))
    }
}

/// Runs a handler, turns its failure into an answer, counts and logs. One wide line a request: our own faults always,
/// the rest at debug level.
async fn serve(route: &'static Route, request: Request, api: ApiState) -> Response {
    let started = tracing::enabled!(tracing::Level::DEBUG).then(Instant::now);
    let mut org = None;
    let result = match Call::new(&api, route, request).await {
        Ok(call) => {
            org = call.principal.as_ref().map(|principal| principal.org);
            run(route, call).await
        }
        Err(error) => Err(error),
    };
    let response = match result {
        Ok(response) => response,
        Err(error) => {
            let mut request_id = String::new();
            if let ApiError::Internal { cause } = &error {
                request_id = u64::from_be_bytes(api.engine().random_bytes()).to_string();
                tracing::error!(
                    request.id = request_id,
                    http.route = route.path,
                    operation = route.op.id,
                    cause,
                    "request failed"
                );
            }
            error.into_response(&request_id)
        }
    };
    let status = response.status().as_u16();
    api.count(status);
    if let Some(started) = started {
        let duration_ms = started.elapsed().as_secs_f64() * 1_000.0;
        tracing::debug!(
            http.method = %route.method, http.route = route.path, http.status = status,
            org.id = org.map(tracing::field::display), operation = route.op.id, duration_ms, "request"
        );
    }
    response
}

/// Runs the handler. What writes runs in a task of its own, so that it comes to its end even if the caller goes away: the
/// engine must be told of every write that commits. (Publishing tells nobody, and is spared the task.)
async fn run(route: &'static Route, call: Call) -> Answer {
    if !route.is_detached() {
        return (route.run)(call).await;
    }
    match tokio::spawn((route.run)(call)).await {
        Ok(answer) => answer,
        Err(error) => Err(ApiError::internal(format!("handler broke off: {error}"))),
    }
}

impl Call {
    async fn new(api: &ApiState, route: &'static Route, request: Request) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let principal = match route.access {
            Access::Public => None,
            Access::Any | Access::Scope(_) => Some(auth::authenticate(api, &parts.headers).await?),
        };
        if let (Access::Scope(scope), Some(principal)) = (route.access, &principal) {
            principal.require(scope)?;
        }
        if route.reach == Reach::Organisation && principal.as_ref().is_some_and(|principal| principal.app.is_some()) {
            let text = "this credential is bound to one application; here one of the whole organisation is needed";
            return Err(ApiError::new(Code::Forbidden, text));
        }
        let path = path_of(route, &mut parts).await?;
        Ok(Self { api: api.clone(), route, principal, path, parts, body: Mutex::new(Some(body)) })
    }

    pub fn api(&self) -> &ApiState {
        &self.api
    }

    pub fn engine(&self) -> &Arc<Engine> {
        self.api.engine()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.api.store()
    }

    pub fn now(&self) -> Timestamp {
        self.api.now()
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    pub fn query_text(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    pub fn query(&self) -> Result<Query, ApiError> {
        Query::parse(self.query_text())
    }

    /// Who asks. On public routes nobody does.
    pub fn principal(&self) -> Result<&Principal, ApiError> {
        self.principal.as_deref().ok_or_else(|| ApiError::internal("a public route asked who asks"))
    }

    /// A path parameter.
    pub fn param(&self, name: &str) -> Result<&str, ApiError> {
        let found = self.path.iter().find(|(known, _)| &**known == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| ApiError::internal(format!("the route has no {name}")))
    }

    /// Reads the JSON body's bytes, at most `max`.
    pub async fn body(&self, max: usize) -> Result<Bytes, ApiError> {
        body::check_content_type(self.headers())?;
        body::check_content_encoding(self.headers())?;
        let body = self.body.lock().await.take().unwrap_or_default();
        body::read(body, self.headers(), max).await
    }

    /// Whether this is about the organisation's operational webhooks.
    pub fn is_operational(&self) -> bool {
        self.route.reach == Reach::Organisation && self.route.path.contains("/operational-webhook/")
    }

    /// Whether this is about the application of a source.
    pub fn is_of_source(&self) -> bool {
        self.route.path.contains("{source_id}")
    }

    /// The application of the path (cached, with endpoints), or `None`. An application's credential sees its own only.
    pub async fn find_entry(&self) -> Result<Option<Arc<AppEntry>>, ApiError> {
        let (principal, id_or_uid) = (self.principal()?, self.param("app_id")?);
        let Some(own) = principal.app else { return Ok(self.engine().application(principal.org, id_or_uid).await?) };
        let entry = self.engine().application_by_id(own).await?;
        Ok(entry.filter(|entry| {
            let app = &entry.application;
            app.uid.as_deref() == Some(id_or_uid) || id_or_uid.parse::<AppId>().is_ok_and(|id| id == app.id)
        }))
    }

    /// The application of the path, or 404.
    pub async fn entry(&self) -> Result<Arc<AppEntry>, ApiError> {
        match self.find_entry().await? {
            Some(entry) => Ok(entry),
            None => Err(ApiError::not_found("application", self.param("app_id")?)),
        }
    }

    /// The application this is about: of the path, of the path's source, or the organisation's operational one.
    pub async fn application(&self) -> Result<Application, ApiError> {
        if self.is_operational() {
            let org = self.principal()?.org;
            return Ok(self.store().operational_application(org, self.engine().new_id(), self.now()).await?);
        }
        if self.is_of_source() {
            let (org, part) = (self.principal()?.org, self.param("source_id")?);
            let missing = || ApiError::not_found("source", part);
            let source = self.store().find_source(org, part).await?.ok_or_else(missing)?;
            return Ok(self.engine().application_by_id(source.app).await?.ok_or_else(missing)?.application.clone());
        }
        Ok(self.entry().await?.application.clone())
    }

    /// The endpoint of the path in `app` as the store has it now, or 404.
    pub async fn endpoint(&self, app: AppId) -> Result<Endpoint, ApiError> {
        let id_or_uid = self.param("endpoint_id")?;
        let found = self.store().find_endpoint(app, id_or_uid).await?;
        found.ok_or_else(|| ApiError::not_found("endpoint", id_or_uid))
    }

    /// The turn to change `app` or anything in it.
    pub async fn turn(&self, app: AppId) -> Result<MutexGuard<'_, ()>, ApiError> {
        self.api.app_locks().lock(app).await
    }
}

async fn path_of(route: &Route, parts: &mut Parts) -> Result<Vec<(Box<str>, String)>, ApiError> {
    if !route.path.contains('{') {
        return Ok(Vec::new());
    }
    let params = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| ApiError::new(Code::RouteNotFound, "the path is not valid UTF-8"))?;
    params
        .iter()
        .map(|(name, value)| {
            IdOrUid::check(value).map_err(|msg| ApiError::invalid(&["path", name], msg, "value_error"))?;
            Ok((Box::from(name), value.to_owned()))
        })
        .collect()
}

/// What a route runs.
pub type Run = fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Api;
    use crate::route::message;

    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// Broken: every request moves with it what it takes to read a credential or an application that is not cached, some ten kilobytes, several
    /// times. What happens seldom goes into a box.
    #[test]
    fn a_request_is_light() {
        let steps = [
            ("found", size(|(api, request): (&'static Api, Request)| api.handle(request))),
            ("checked", size(|(route, request, api)| serve(route, request, api))),
            ("published", size(message::create)),
        ];
        for (step, bytes) in steps {
            assert!(bytes <= 3_072, "{step}: {bytes} bytes");
        }
    }
}
