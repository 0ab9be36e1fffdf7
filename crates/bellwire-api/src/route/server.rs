//! The server's own pages: health for balancers, metrics, the OpenAPI document and a page to browse it.

use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::answer::Answer;
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::openapi;
use crate::openapi::operation::{OPERATION, Operation};

const BASE: Operation = Operation { tag: "Server", ..OPERATION };
pub const HEALTHZ: Operation = Operation { id: "server.healthz", ..BASE };
pub const READYZ: Operation = Operation { id: "server.readyz", ..BASE };
pub const METRICS: Operation = Operation { id: "server.metrics", ..BASE };
pub const OPENAPI: Operation = Operation { id: "server.openapi", ..BASE };
pub const DOCS: Operation = Operation { id: "server.docs", ..BASE };
pub const DOCS_SCRIPT: Operation = Operation { id: "server.docs-script", ..BASE };
pub const DOCS_STYLE: Operation = Operation { id: "server.docs-style", ..BASE };
pub const LANDING: Operation = Operation { id: "server.landing", ..BASE };

fn page(content_type: &'static str, body: impl Into<Body>) -> Answer {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// HTML that may load our own script and style and nothing else, and that nobody may frame.
fn html(body: &'static str) -> Answer {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
    let mut response = page("text/html; charset=utf-8", body)?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("permissions-policy", HeaderValue::from_static("camera=(), microphone=(), geolocation=()"));
    Ok(response)
}

/// The process is alive.
pub async fn healthz(_call: Call) -> Answer {
    page("text/plain; charset=utf-8", "ok\n")
}

/// It can take work: the store answers, has space, and is not being closed.
pub async fn readyz(call: Call) -> Answer {
    if call.api().is_closing() {
        return Err(ApiError::new(Code::Closing, "the server is stopping"));
    }
    if let Err(error) = call.store().ping().await {
        // The reason stays in the log: this page is open to all.
        tracing::warn!(%error, "not ready");
        return match ApiError::from(error) {
            ApiError::Internal { .. } => Err(ApiError::new(Code::Busy, "the store does not answer")),
            other => Err(other),
        };
    }
    page("text/plain; charset=utf-8", "ready\n")
}

pub async fn metrics(call: Call) -> Answer {
    use std::fmt::Write;
    let mut text = call.engine().metrics_text().await;
    let end = text.rfind("# EOF").unwrap_or(text.len());
    text.truncate(end);
    let _ = write!(
        text,
        "# HELP bellwire_api_responses Answers of the HTTP server by class.\n# TYPE bellwire_api_responses counter\n"
    );
    for (class, count) in call.api().counts() {
        let _ = writeln!(text, "bellwire_api_responses_total{{class=\"{class}xx\"}} {count}");
    }
    let dropped = call.api().receive().receipts_dropped();
    let _ = write!(
        text,
        "# HELP bellwire_source_log_dropped Entries of sources' logs that were not kept: too many came.\n\
         # TYPE bellwire_source_log_dropped counter\nbellwire_source_log_dropped_total {dropped}\n"
    );
    text.push_str("# EOF\n");
    page("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
}

pub async fn openapi(_call: Call) -> Answer {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| Bytes::from(openapi::openapi_json()));
    page("application/json", document.clone())
}

pub async fn docs(_call: Call) -> Answer {
    html(include_str!("../assets/docs.html"))
}

pub async fn docs_script(_call: Call) -> Answer {
    page("text/javascript; charset=utf-8", include_str!("../assets/docs.js"))
}

pub async fn docs_style(_call: Call) -> Answer {
    page("text/css; charset=utf-8", include_str!("../assets/docs.css"))
}

pub async fn landing(_call: Call) -> Answer {
    html(include_str!("../assets/landing.html"))
}
