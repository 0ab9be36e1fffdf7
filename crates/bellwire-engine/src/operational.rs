//! Bellwire's own events, sent as webhooks through the organisation's hidden application.
//! Invariant: emitting never fails and never delays what caused it.

use std::sync::Arc;

use bellwire_core::{IdKind, Message, OrgId, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{Engine, random};

/// Events waiting to be published; beyond it they are dropped, and counted.
pub const QUEUE_MAX: usize = 1_024;

pub struct Event {
    pub org: OrgId,
    pub event_type: &'static str,
    pub data: Value,
}

impl Engine {
    /// Sends `{"type", "timestamp", "data"}` to the organisation's operational webhook endpoints that want it.
    pub fn emit_operational(&self, org: OrgId, event_type: &'static str, data: Value) {
        if self.operational.try_send(Event { org, event_type, data }).is_err() {
            self.metrics.operational_dropped.inc();
            tracing::warn!(event_type, org.id = %org, "operational event dropped: too many are waiting");
        }
    }
}

/// Publishes events one after another until the engine goes.
pub async fn run(engine: std::sync::Weak<Engine>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let Some(engine) = engine.upgrade() else { return };
        let (org, event_type) = (event.org, event.event_type);
        if let Err(error) = publish(&engine, event).await {
            tracing::warn!(event_type, org.id = %org, %error, "operational event not published");
        }
    }
}

async fn publish(engine: &Arc<Engine>, event: Event) -> Result<(), bellwire_store::StoreError> {
    let now = engine.now();
    // The application exists from the first event on; its id never changes.
    let known = engine.operational_apps.lock().get(&event.org).copied();
    let id = match known {
        Some(id) => id,
        None => {
            let id = engine.store.operational_application(event.org, engine.new_id(), now).await?.id;
            engine.operational_apps.lock().insert(event.org, id);
            id
        }
    };
    let Some(app) = engine.application_by_id(id).await? else { return Ok(()) };
    if app.endpoints.iter().all(|endpoint| endpoint.disabled) {
        return Ok(());
    }
    let body = json!({ "type": event.event_type, "timestamp": now.to_string(), "data": event.data });
    let message = Message {
        id: engine.ids.generate(now, random::id_tail()),
        app: app.application.id,
        event_type: event.event_type.to_owned(),
        event_id: None,
        payload: Some(body.to_string().into()),
        content_type: "application/json".to_owned(),
        channels: vec![],
        tags: vec![],
        created_at: now,
        deliver_at: None,
        payload_expires_at: expires(now, engine),
        origin: None,
    };
    let message = Message { created_at: message.id.created(), ..message };
    engine.publish(&app, message, None).await?;
    Ok(())
}

fn expires(now: Timestamp, engine: &Engine) -> Timestamp {
    now.plus(engine.config.retention)
}
