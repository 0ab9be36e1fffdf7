//! The way in. Invariant: when [`Engine::publish`] returns, message, idempotency key and deliveries are durable.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{AppId, EndpointId, Message, MessageId};
use bellwire_store::{Accepted, Idempotency, NewMessage, StoreError};

use tokio::time::Instant;

use crate::directory::AppEntry;
use crate::link::Forwarded;
use crate::shards::take_by_word;
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
/// So often endpoints are chosen anew when the application has changed meanwhile on another node.
const CHOICES_MAX: usize = 5;
/// So often a message is accepted that another node may be accepting too: either of them wins in the end.
const AGAIN_MAX: usize = 4;
/// A node that has lost touch with the store waits this long for it before it says so.
const TOUCH_WAIT: Duration = Duration::from_secs(1);
const TOUCH_LOOK: Duration = Duration::from_millis(20);

impl Engine {
    /// Accepts a message for every endpoint of the application that wants it. Waits while deliveries to quick endpoints are
    /// behind, so that a burst lengthens the answer, not the backlog.
    pub async fn publish(&self, app: &AppEntry, message: Message, idem: Option<Idempotency>) -> Result<Published, StoreError> {
        let is_shared = self.shards.is_shared();
        let mut new = Arc::new(NewMessage {
            endpoints: fan_out(app, &message),
            message,
            idempotency: idem,
            app_version: is_shared.then_some(app.version),
        });
        for _ in 0..CHOICES_MAX {
            let outdated = match self.accept(new).await? {
                Ok(published) => return Ok(published),
                Err(outdated) => outdated,
            };
            let app = Box::pin(self.choose_again(app.application.id)).await?;
            let mut again = Arc::unwrap_or_clone(outdated);
            again.endpoints = fan_out(&app, &again.message);
            again.app_version = Some(app.version);
            new = Arc::new(again);
        }
        Err(StoreError::Busy("the application is being changed"))
    }

    /// The application as it is now: what was known of it is out of date.
    async fn choose_again(&self, id: AppId) -> Result<Arc<AppEntry>, StoreError> {
        self.applications_changed(&[id]);
        self.application_by_id(id).await?.ok_or(StoreError::NotFound("application"))
    }

    /// Accepts a message for one endpoint only, whatever it subscribes to.
    pub async fn publish_to(
        &self,
        _app: &AppEntry,
        endpoint: EndpointId,
        message: Message,
        idem: Option<Idempotency>,
    ) -> Result<Published, StoreError> {
        let new = Arc::new(NewMessage { message, endpoints: vec![endpoint], idempotency: idem, app_version: None });
        self.accept(new).await?.map_err(|_| StoreError::Busy("the application is being changed"))
    }

    /// Gives the message back if the application has changed since its endpoints were chosen: nothing was written.
    async fn accept(&self, new: Arc<NewMessage>) -> Result<Result<Published, Arc<NewMessage>>, StoreError> {
        if !self.shards.is_sure() {
            self.wait_for_touch().await?;
        }
        let own = |new: &Arc<NewMessage>| take_by_word(self, vec![new.clone()]);
        let joined = self.links.join(&new);
        let accepted = match self.links.forward(&new, &joined, own).await {
            Forwarded::Done(accepted) => {
                self.metrics.forwarded.inc();
                accepted
            }
            Forwarded::NotSent => self.accept_here(new.clone()).await?,
            Forwarded::Unknown => Box::pin(self.accept_again(new.clone())).await?,
        };
        Ok(match accepted {
            Accepted::Fresh => {
                self.metrics.messages_accepted.inc();
                Ok(Published::Fresh(Arc::try_unwrap(new).map_or_else(|shared| shared.message.clone(), |owned| owned.message)))
            }
            Accepted::Replayed(id) => Ok(Published::Replayed(id)),
            Accepted::Outdated => Err(new),
        })
    }

    /// Deliveries are queued, not started: whoever has an answer to give first starts them afterwards.
    pub(crate) async fn accept_unstarted(&self, new: Arc<NewMessage>) -> Result<Accepted, StoreError> {
        if !new.endpoints.is_empty() {
            let deadline = Instant::now() + HOLD_BACK_MAX;
            self.queue.hold_back(new.message.app, HOLD_BACK_MAX).await;
            self.links.hold_back(&new, deadline).await;
        }
        self.store.accept(new).await
    }

    async fn accept_here(&self, new: Arc<NewMessage>) -> Result<Accepted, StoreError> {
        let accepted = self.accept_unstarted(new).await?;
        // The commit sink has queued the deliveries; starting them here saves a wake-up. If this future is dropped before,
        // the pump task does it.
        self.pump();
        Ok(accepted)
    }

    /// Accepts what another node may have accepted, or be accepting now. The id is the same, and the store takes it once: whoever comes
    /// second finds it there.
    async fn accept_again(&self, new: Arc<NewMessage>) -> Result<Accepted, StoreError> {
        self.metrics.forwards_unanswered.inc();
        let id = new.message.id;
        let mut tries = 0;
        loop {
            if self.store.load_message(id).await?.is_some() {
                return Ok(Accepted::Fresh);
            }
            tries += 1;
            match self.accept_here(new.clone()).await {
                Ok(Accepted::Replayed(made)) if made == id => return Ok(Accepted::Fresh),
                // It may be its own, written meanwhile.
                Ok(Accepted::Outdated) | Err(StoreError::Conflict { .. } | StoreError::Busy(_)) if tries < AGAIN_MAX => {}
                outcome => return outcome,
            }
        }
    }

    /// While others may have declared this node dead, the number in its ids may be another node's: nothing is accepted.
    async fn wait_for_touch(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + TOUCH_WAIT;
        while !self.shards.is_sure() {
            if Instant::now() >= deadline {
                return Err(StoreError::Unavailable("this node has not heard from it for longer than its lease".to_owned()));
            }
            tokio::time::sleep(TOUCH_LOOK).await;
        }
        Ok(())
    }
}
