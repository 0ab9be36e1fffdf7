//! The catalogue of everything the API answers when it cannot do what was asked: one code, one status, one way out each.

use std::borrow::Cow;

use axum::response::Response;
use bellwire_core::limits;
use bellwire_store::StoreError;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::answer;

macro_rules! catalogue {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:literal;)+) => {
        /// A stable code of the catalogue. Codes are never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $variant,)+ }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The text in `code`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status it comes with.
            pub fn status(self) -> StatusCode {
                StatusCode::from_u16(match self { $(Self::$variant => $status,)+ }).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    };
}

catalogue! {
    /// The request is not HTTP as it should be, or its body broke off. Send it again, whole.
    BadRequest = "bad_request", 400;
    /// No `Authorization` header. Send `Authorization: Bearer <API key or token>`.
    AuthenticationRequired = "authentication_required", 401;
    /// The credential is unknown, malformed, expired or revoked. Get a new one.
    AuthenticationFailed = "authentication_failed", 401;
    /// The credential is good, but not for this. Use one with the named scope, or of the whole organisation.
    Forbidden = "forbidden", 403;
    /// There is no such object here, for this credential.
    NotFound = "not_found", 404;
    /// There is no such path. See `/docs`.
    RouteNotFound = "route_not_found", 404;
    /// The path exists, but not with this method; `Allow` names those that do.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The request did not arrive in time. Send it faster, or in smaller parts.
    RequestTimeout = "request_timeout", 408;
    /// A unique name is taken. Choose another one, or update what has it.
    Conflict = "conflict", 409;
    /// The idempotency key was used with another request within 24 hours. Use a new key for a new request.
    IdempotencyKeyMismatch = "idempotency_key_mismatch", 409;
    /// Too many of something; the text names the limit.
    LimitReached = "limit_reached", 409;
    /// The body is larger than allowed; the text names the limit. Nothing was stored or cut off.
    PayloadTooLarge = "payload_too_large", 413;
    /// The body is not JSON by its `Content-Type`, or is compressed by its `Content-Encoding`. Send
    /// `Content-Type: application/json`, and no `Content-Encoding`.
    UnsupportedMediaType = "unsupported_media_type", 415;
    /// Our fault. Nothing of it is told here; the log has it under the request id in the text.
    InternalError = "internal_error", 500;
    /// The operation is part of the API's family, but this server does not have it.
    NotImplemented = "not_implemented", 501;
    /// The disk is full. Nothing was stored; it goes on by itself when there is space. Retry after the time in `Retry-After`.
    StorageFull = "storage_full", 503;
    /// The database is away. Nothing was acknowledged; it goes on by itself when the database is back. Retry after the time in
    /// `Retry-After`.
    StorageAway = "storage_away", 503;
    /// Overloaded for the moment. Retry after the time in `Retry-After`.
    Busy = "busy", 503;
    /// The server is stopping. Retry: another one, or the same after its restart, will answer.
    Closing = "closing", 503;
}

/// One finding about a request that can be read but not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invalid {
    /// Where: `["body", "url"]`, `["query", "limit"]`, `["path", "app_id"]`, `["header", "idempotency-key"]`.
    pub loc: Vec<String>,
    pub msg: String,
    /// `type_error`, `value_error` or `value_error.missing`, `value_error.jsondecode`, ….
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
}

/// Why a request fails, as the caller is told.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{}: {detail}", code.as_str())]
    Coded { code: Code, detail: Cow<'static, str> },
    /// 422
    #[error("invalid request: {0:?}")]
    Invalid(Vec<Invalid>),
    /// 500; `cause` goes to the log, never to the caller.
    #[error("internal error: {cause}")]
    Internal { cause: String },
}

impl ApiError {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Coded { code, detail: detail.into() }
    }

    pub fn internal(cause: impl Into<String>) -> Self {
        Self::Internal { cause: cause.into() }
    }

    /// A value that does not hold what it must; `loc` as in [`Invalid::loc`].
    pub fn invalid(loc: &[&str], msg: impl Into<String>, kind: &'static str) -> Self {
        Self::Invalid(vec![Invalid {
            loc: loc.iter().map(ToString::to_string).collect(),
            msg: msg.into(),
            kind: Cow::Borrowed(kind),
        }])
    }

    /// A wrong value of a body field.
    pub fn field(name: &str, msg: impl Into<String>) -> Self {
        Self::invalid(&["body", name], msg, "value_error")
    }

    /// `what` with this id or uid is not here.
    pub fn not_found(what: &str, id: &str) -> Self {
        let shown: String = id.chars().take(64).collect();
        Self::new(Code::NotFound, format!("there is no {what} {shown:?} here; check the id and the credential it is asked with"))
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Coded { code, .. } => code.status(),
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer. `request_id` is shown with our own faults, so that the log line can be found.
    pub fn into_response(self, request_id: &str) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            code: &'a str,
            detail: &'a str,
        }
        #[derive(Serialize)]
        struct Findings {
            detail: Vec<Invalid>,
        }
        let status = self.status();
        let bytes = match &self {
            Self::Coded { code, detail } => answer::to_bytes(&Body { code: code.as_str(), detail }),
            Self::Invalid(findings) => answer::to_bytes(&Findings { detail: findings.clone() }),
            Self::Internal { .. } => {
                let detail = format!("something went wrong here; it is logged as request {request_id}");
                answer::to_bytes(&Body { code: Code::InternalError.as_str(), detail: &detail })
            }
        };
        let mut response = answer::from_bytes(status, bytes.unwrap_or_default());
        let headers = response.headers_mut();
        match &self {
            Self::Coded { code: Code::StorageFull, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER_FULL_SECONDS));
            }
            Self::Coded { code: Code::Busy | Code::Closing | Code::StorageAway, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER_BUSY_SECONDS));
            }
            Self::Coded { code: Code::PayloadTooLarge | Code::RequestTimeout | Code::BadRequest, .. } => {
                // The rest of the body is not read.
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ if status == StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { what, value } => {
                Self::new(Code::Conflict, format!("{what} {value:?} is taken; choose another one, or update what has it"))
            }
            StoreError::IdempotencyMismatch => Self::new(
                Code::IdempotencyKeyMismatch,
                "this idempotency-key was used with another request within 24 hours; use a new key for a new request",
            ),
            StoreError::NotFound(what) => Self::new(Code::NotFound, format!("there is no such {what} here (any more)")),
            StoreError::Outdated(what) => {
                Self::new(Code::Busy, format!("the {what} was changed by somebody else meanwhile; nothing was stored; retry"))
            }
            StoreError::Full => Self::new(Code::StorageFull, "the disk is full; nothing was stored; retry once there is space"),
            StoreError::Busy(what) => Self::new(Code::Busy, format!("the store is busy ({what}); nothing was stored; retry")),
            StoreError::Unavailable(_) => Self::new(Code::StorageAway, "the database is away; nothing was acknowledged; retry"),
            StoreError::Fenced => Self::new(Code::Busy, "this node is joining the others again; nothing was acknowledged; retry"),
            StoreError::Closed => Self::new(Code::Closing, "the server is stopping; retry"),
            other => Self::internal(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_faults_show_nothing_of_the_inside() {
        let response = ApiError::from(StoreError::Io("/var/lib/secret: EIO".into())).into_response("req1");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let shown = format!("{response:?}");
        assert!(!shown.contains("secret"), "{shown}");
    }

    /// Broken: a publisher whose request met a database that is away is not told to come again, or is told where it is.
    #[test]
    fn a_database_that_is_away_is_answered_with_503_and_a_time() {
        for error in [StoreError::Unavailable("db.internal: refused".into()), StoreError::Fenced] {
            let response = ApiError::from(error).into_response("req1");
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(header::RETRY_AFTER));
        }
        let shown = ApiError::from(StoreError::Unavailable("db.internal: refused".into())).to_string();
        assert!(!shown.contains("db.internal"), "{shown}");
    }

    #[test]
    fn codes_are_unique_and_errors() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len(), "two entries of the catalogue share a code");
        assert!(Code::ALL.iter().all(|code| code.status().as_u16() >= 400), "a code of the catalogue is no error");
    }
}
