//! Portal access and the answer to `whoami`, on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::application::ApplicationIn;
use super::list::FeatureFlags;
use super::text::SessionId;

/// What a portal token may do. `ViewBase` is always part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum AppPortalCapability {
    ViewBase,
    ViewEndpointSecret,
    ManageEndpointSecret,
    ManageTransformations,
    CreateAttempts,
    ManageEndpoint,
}

impl AppPortalCapability {
    pub const ALL: [Self; 6] = [
        Self::ViewBase,
        Self::ViewEndpointSecret,
        Self::ManageEndpointSecret,
        Self::ManageTransformations,
        Self::CreateAttempts,
        Self::ManageEndpoint,
    ];
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppPortalAccessIn {
    /// Creates the application if the one in the path is unknown.
    #[serde(default)]
    pub application: Option<ApplicationIn>,
    /// Deprecated: the same as `capabilities: ["ViewBase"]`.
    #[serde(default)]
    pub read_only: Option<bool>,
    /// All, when absent.
    #[serde(default)]
    pub capabilities: Option<Vec<AppPortalCapability>>,
    /// Taken for compatibility.
    #[serde(default)]
    pub feature_flags: Option<FeatureFlags>,
    /// Seconds the token is valid: one hour to seven days.
    #[serde(default)]
    #[schema(minimum = 3600, maximum = 604800, default = 604800)]
    pub expiry: Option<u64>,
    #[serde(default)]
    pub session_id: Option<SessionId>,
}

/// A link to the portal, and the token in it.
#[derive(Serialize, ToSchema)]
pub struct AppPortalAccessOut {
    pub url: String,
    pub token: String,
}

/// The credential this was asked with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhoamiOut {
    /// The organisation.
    #[schema(required = true)]
    pub env_id: Option<String>,
    /// The application it is bound to.
    #[schema(required = true)]
    pub app_id: Option<String>,
    #[schema(required = true)]
    pub stream_app_id: Option<String>,
    /// `SvixJwt` for tokens, `Unknown` for API keys (the field's values are Svix's).
    pub permission_source: &'static str,
    #[schema(required = true)]
    pub session_id: Option<String>,
}
