//! Which endpoints a message goes to. Invariant: decided once, before the message is stored, and stored with it.

use bellwire_core::{EndpointId, Message};

use crate::directory::AppEntry;

/// The enabled endpoints that want this message, in the order of their ids.
pub fn fan_out(app: &AppEntry, message: &Message) -> Vec<EndpointId> {
    app.endpoints
        .iter()
        .filter(|endpoint| !endpoint.disabled && endpoint.wants(&message.event_type, &message.channels))
        .map(|endpoint| endpoint.id)
        .collect()
}
