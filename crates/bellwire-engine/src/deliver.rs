//! Running attempts. Invariant: every job taken from the queue ends in exactly one record, whatever happens on the way; but for
//! those of a membership that is over, which are another node's.
//!
//! A worker is a task that runs one job after another for one endpoint over one connection, as long as there are any.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bellwire_core::retry::parse_retry_after;
use bellwire_core::{AttemptOutcome, Message, Timestamp};
use bellwire_store::StoreError;
use bytes::Bytes;

use crate::Engine;
use crate::pool::Pool;
use crate::record::Done;
use crate::route::Route;
use crate::scheduler::{Feedback, Job};
use crate::sign::RequestWriter;
use crate::transport::{Connection, Response, TransportError};

/// A store that does not answer keeps a job waiting for this long before it is asked again.
const STORE_RETRY: Duration = Duration::from_millis(250);
/// A job that had to wait for the store looks this often whether its node is still alive for the others.
const LEASE_LOOK: Duration = Duration::from_millis(25);

/// What a worker keeps from job to job.
#[derive(Default)]
struct Worker {
    connection: Option<(Connection, Arc<Pool>)>,
    request: RequestWriter,
}

impl Engine {
    /// Starts the jobs that may run now.
    pub(crate) fn pump(&self) {
        if !self.may_start() {
            return;
        }
        let mut jobs = Vec::new();
        self.queue.poll(&mut jobs);
        for job in jobs {
            self.spawn_worker(job);
        }
    }

    /// Not while stopping, and not while other nodes may have declared this one dead.
    fn may_start(&self) -> bool {
        !self.is_stopping() && self.shards.is_sure()
    }

    /// Waits until nobody else can have the job's delivery. False: it is another node's, or the engine stops.
    async fn is_still_ours(&self, job: &Job) -> bool {
        loop {
            if self.shards.epoch() != job.epoch {
                return false;
            }
            if self.shards.is_sure() {
                return true;
            }
            if self.is_stopping() {
                return false;
            }
            tokio::time::sleep(LEASE_LOOK).await;
        }
    }

    fn spawn_worker(&self, job: Job) {
        if let Some(engine) = self.this.upgrade() {
            self.runtime.spawn(engine.work(job));
        }
    }

    async fn work(self: Arc<Self>, mut job: Job) {
        let mut worker = Worker::default();
        let mut ready = Vec::new();
        loop {
            let feedback = self.run(&mut worker, &job).await;
            self.queue.finished(job.endpoint, feedback, &mut ready, self.may_start());
            // Go on with a job of the same endpoint if there is one: its connection is warm.
            let next = ready.iter().position(|next| next.endpoint == job.endpoint).map(|at| ready.swap_remove(at));
            for other in ready.drain(..) {
                self.spawn_worker(other);
            }
            match next {
                Some(next) => job = next,
                None => break,
            }
        }
        if let Some((connection, pool)) = worker.connection {
            pool.put(connection);
        }
    }

    /// One attempt: from the job to its record.
    async fn run(&self, worker: &mut Worker, job: &Job) -> Feedback {
        let route = match self.route_of(job).await {
            Ok(route) => route,
            Err(why) => return self.record(job, None, Done::Cancelled(why)),
        };
        if route.endpoint.disabled {
            return self.record(job, Some(&route), Done::Cancelled("the endpoint is disabled"));
        }
        let loaded;
        let message: &Message = match &job.content {
            Some(content) => &content.message,
            None => match self.load(job).await {
                Some(message) => {
                    loaded = message;
                    &loaded
                }
                None => return self.record(job, Some(&route), Done::Cancelled("the message was removed")),
            },
        };
        let Some(payload) = &message.payload else {
            return self.record(job, Some(&route), Done::Cancelled("the payload was deleted or has expired"));
        };
        while self.is_still_ours(job).await {
            let now = self.now();
            let began = Instant::now();
            let result = self.exchange(worker, job, &route, message, payload, now).await;
            let duration = began.elapsed();
            match result {
                Ok(Some(response)) => return self.answered(job, &route, response, now, duration),
                Ok(None) => {}
                Err(error) => return self.failed(job, &route, &error, now, duration),
            }
        }
        self.queue.dropped(job);
        Feedback::NotSent
    }

    /// `None`: not sent, as the delivery may be another node's by now.
    async fn exchange(
        &self,
        worker: &mut Worker,
        job: &Job,
        route: &Route,
        message: &Message,
        payload: &Bytes,
        now: Timestamp,
    ) -> Result<Option<Response>, TransportError> {
        let destination = route.destination.as_ref().map_err(Clone::clone)?;
        let deadline = tokio::time::Instant::now() + self.config.request_timeout;
        worker.request.prepare(self.config.header_prefix, route, destination, message, payload, now)?;
        let mut slot = match worker.connection.take() {
            Some((connection, pool)) if Arc::ptr_eq(&pool, &destination.pool) => Some(connection),
            _ => destination.pool.take(),
        };
        let is_ours = || self.shards.epoch() == job.epoch && self.shards.is_sure();
        let result =
            self.client.exchange(&mut slot, &destination.target, worker.request.head(), payload, deadline, is_ours).await;
        worker.connection = slot.map(|connection| (connection, destination.pool.clone()));
        result
    }

    fn answered(&self, job: &Job, route: &Arc<Route>, response: Response, now: Timestamp, duration: Duration) -> Feedback {
        let retry_after = response.retry_after.as_deref().and_then(|text| parse_retry_after(text, now));
        let feedback = match response.status {
            429 | 503 => Feedback::Overloaded(retry_after),
            _ => Feedback::Answered(duration),
        };
        let outcome = AttemptOutcome { response_status: response.status, response: response.body, retry_after, duration };
        self.record(job, Some(route), Done::Answered { outcome, at: now });
        feedback
    }

    fn failed(&self, job: &Job, route: &Arc<Route>, error: &TransportError, now: Timestamp, duration: Duration) -> Feedback {
        let reason = error.operator_reason();
        if let Some(reason) = &reason {
            tracing::debug!(endpoint.id = %job.endpoint, error.code = error.code(), reason, "attempt not sent");
        }
        let is_ours = matches!(error, TransportError::Local(_));
        if is_ours {
            tracing::error!(endpoint.id = %job.endpoint, reason, "attempts fail because of a fault of this machine");
        }
        let response = Bytes::from(format!("{}: {error}", error.code()));
        let outcome = AttemptOutcome { response_status: 0, response, retry_after: None, duration };
        self.record(job, Some(route), Done::Failed { outcome, at: now, is_ours });
        Feedback::Failed(duration)
    }

    /// The endpoint made ready, or why there is none.
    async fn route_of(&self, job: &Job) -> Result<Arc<Route>, &'static str> {
        loop {
            if let Some(route) = self.routes.cached(job.endpoint) {
                return Ok(route);
            }
            match self.routes.load(&*self.store, job.endpoint, &self.config, &self.pools).await {
                Ok(route) => {
                    if let Some(route) = &route {
                        self.set_rates(route).await;
                    }
                    return route.ok_or("the endpoint was deleted");
                }
                Err(error @ (StoreError::Corrupt(_) | StoreError::Cipher(_))) => {
                    tracing::error!(endpoint.id = %job.endpoint, %error, "an endpoint cannot be read; its delivery is cancelled");
                    return Err("the endpoint cannot be read");
                }
                Err(error) => self.wait_for_store("endpoint", &error).await,
            }
        }
    }

    /// An endpoint's rate is its node's to keep. That of an application is divided among the nodes by how many of its endpoints
    /// each has: together they never exceed it.
    async fn set_rates(&self, route: &Route) {
        let (application, endpoint) = (&route.application, &route.endpoint);
        let mut app_rate = application.throttle_rate.map(f64::from);
        if self.shards.is_shared()
            && let Some(rate) = &mut app_rate
            && let Ok(Some(entry)) = self.application_by_id(application.id).await
        {
            let live = || entry.endpoints.iter().filter(|endpoint| !endpoint.disabled);
            let (all, ours) = (live().count(), live().filter(|endpoint| self.shards.has(endpoint.id)).count());
            *rate *= ours.max(1) as f64 / all.max(1) as f64;
        }
        self.queue.set_rates(application.id, endpoint.id, endpoint.throttle_rate.map(f64::from), app_rate);
    }

    async fn load(&self, job: &Job) -> Option<Message> {
        loop {
            match self.store.load_message(job.message).await {
                Ok(message) => return message,
                Err(StoreError::Corrupt(detail)) => {
                    // Never sign and send damaged bytes.
                    tracing::error!(message.id = %job.message, detail, "a stored message is damaged; its delivery is cancelled");
                    return None;
                }
                Err(error) => self.wait_for_store("message", &error).await,
            }
        }
    }

    async fn wait_for_store(&self, what: &'static str, error: &StoreError) {
        // Every job that waits comes by here: one line a second says it for all.
        let second = self.queue.now().as_secs();
        if self.store_silent.swap(second, Ordering::Relaxed) != second {
            tracing::warn!(what, %error, "the store does not answer; trying again");
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}
