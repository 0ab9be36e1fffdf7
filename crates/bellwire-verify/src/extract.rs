//! An axum extractor: a handler that takes a [`Webhook`] runs for genuine requests only.
//!
//! ```
//! use axum::{Router, extract::FromRef, routing::post};
//! use bellwire_verify::{Credentials, Presets, Receiver, Webhook};
//!
//! #[derive(Clone)]
//! struct App {
//!     github: Receiver,
//! }
//!
//! impl FromRef<App> for Receiver {
//!     fn from_ref(app: &App) -> Self {
//!         app.github.clone()
//!     }
//! }
//!
//! async fn hook(webhook: Webhook) -> String {
//!     format!("{:?}: {} bytes", webhook.event.kind, webhook.body.len())
//! }
//!
//! let github = Presets::builtin().get("github").ok_or("no such preset")?;
//! let now_s = || 1_767_225_600; // your clock
//! let github = Receiver::new(github, Credentials::secret("It's a Secret to Everybody"), "https://hooks.example.com", now_s)?;
//! let app: Router = Router::new().route("/in/github", post(hook)).with_state(App { github });
//! # drop(app);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use axum_core::extract::{FromRef, FromRequest, Request};
use axum_core::response::{IntoResponse, Response};

use crate::{Receiver, Rejected, Webhook};

impl<S> FromRequest<S> for Webhook
where
    S: Send + Sync,
    Receiver: FromRef<S>,
{
    type Rejection = Rejected;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejected> {
        let (parts, body) = request.into_parts();
        Receiver::from_ref(state).receive(&parts, body).await
    }
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        self.status().into_response()
    }
}
