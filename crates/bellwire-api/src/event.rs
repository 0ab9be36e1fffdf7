//! Operational events that control writes cause; their shapes are those of the Svix API.

use bellwire_core::{Application, ApplicationKind, Endpoint};
use serde_json::{Value, json};

use crate::call::Call;

fn data(app: &Application, endpoint: &Endpoint) -> Value {
    json!({
        "appId": app.id.to_string(),
        "appUid": app.uid,
        "endpointId": endpoint.id.to_string(),
        "endpointUid": endpoint.uid,
    })
}

/// Tells the organisation's operational webhooks; endpoints of the operational application itself are not news.
pub fn endpoint(call: &Call, event_type: &'static str, app: &Application, endpoint: &Endpoint) {
    if app.kind == ApplicationKind::Customer {
        call.engine().emit_operational(app.org, event_type, data(app, endpoint));
    }
}

/// An endpoint was updated: says so, and says too if it was switched off or on by it.
pub fn endpoint_updated(call: &Call, app: &Application, before: &Endpoint, after: &Endpoint) {
    endpoint(call, "endpoint.updated", app, after);
    if app.kind != ApplicationKind::Customer || before.disabled == after.disabled {
        return;
    }
    let mut data = data(app, after);
    if let Value::Object(fields) = &mut data {
        fields.insert("trigger".into(), json!("manual"));
    }
    let event_type = if after.disabled { "endpoint.disabled" } else { "endpoint.enabled" };
    call.engine().emit_operational(app.org, event_type, data);
}
