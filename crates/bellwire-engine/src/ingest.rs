//! The way in. Invariant: when [`Engine::publish`] returns, message, idempotency key and deliveries are durable.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{EndpointId, Message, MessageId};
use bellwire_store::{Accepted, Idempotency, NewMessage, StoreError};

use crate::directory::AppEntry;
use crate::{Engine, fan_out::fan_out};

/// What publishing came to.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // The large one is the usual one, and moved once: a box would cost every message.
pub enum Published {
    Fresh(Message),
    /// The idempotency key has made this message before.
    Replayed(MessageId),
}

/// Ingest waits this long for deliveries to catch up, then goes on: the rest is left to the queue's own limits.
const HOLD_BACK_MAX: Duration = Duration::from_secs(2);

impl Engine {
    /// Accepts a message for every endpoint of the application that wants it. Waits while deliveries to quick endpoints are
    /// behind, so that a burst lengthens the answer, not the backlog.
    pub async fn publish(&self, app: &AppEntry, message: Message, idem: Option<Idempotency>) -> Result<Published, StoreError> {
        let endpoints = fan_out(app, &message);
        self.accept(message, endpoints, idem).await
    }

    /// Accepts a message for one endpoint only, whatever it subscribes to.
    pub async fn publish_to(
        &self,
        _app: &AppEntry,
        endpoint: EndpointId,
        message: Message,
        idem: Option<Idempotency>,
    ) -> Result<Published, StoreError> {
        self.accept(message, vec![endpoint], idem).await
    }

    async fn accept(
        &self,
        message: Message,
        endpoints: Vec<EndpointId>,
        idem: Option<Idempotency>,
    ) -> Result<Published, StoreError> {
        if !endpoints.is_empty() {
            self.queue.hold_back(message.app, HOLD_BACK_MAX).await;
        }
        let new = Arc::new(NewMessage { message, endpoints, idempotency: idem, app_version: None });
        let accepted = self.store.accept(new.clone()).await?;
        // The commit sink has queued the deliveries; starting them here saves a wake-up. If this future is dropped before,
        // the pump task does it.
        self.pump();
        Ok(match accepted {
            Accepted::Fresh => {
                self.metrics.messages_accepted.inc();
                Published::Fresh(Arc::try_unwrap(new).map_or_else(|shared| shared.message.clone(), |owned| owned.message))
            }
            Accepted::Replayed(id) => Published::Replayed(id),
            Accepted::Outdated => return Err(StoreError::Busy("the application is being changed")),
        })
    }
}
