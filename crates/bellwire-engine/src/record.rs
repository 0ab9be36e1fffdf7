//! Judging an attempt and handing it to the store. Invariant: the retry decision is taken before the write, so that an attempt
//! and its next due time commit together.

use std::sync::Arc;

use bellwire_core::{
    ApplicationKind, Attempt, AttemptOutcome, AttemptStatus, EndpointHealth, IdKind, RetryVerdict, Timestamp, Trigger,
};
use bellwire_store::{AttemptRecord, DeliveryNext};
use serde_json::json;

use crate::route::Route;
use crate::scheduler::{Feedback, Job};
use crate::{Engine, random};

/// How a job ended.
pub enum Done {
    Answered {
        outcome: AttemptOutcome,
        at: Timestamp,
    },
    /// No HTTP answer. `is_ours`: a fault of this machine, which says nothing about the receiver.
    Failed {
        outcome: AttemptOutcome,
        at: Timestamp,
        is_ours: bool,
    },
    /// Nothing was sent: by whom or what.
    Cancelled(&'static str),
}

/// After this many failed tries of one delivery `message.attempt.failing` is sent.
const FAILING_AFTER_TRIES: u32 = 4;

impl Engine {
    /// Judges and records; what the scheduler should learn of a job that was not sent.
    pub(crate) fn record(&self, job: &Job, route: Option<&Arc<Route>>, done: Done) -> Feedback {
        let (outcome, at, is_ours) = match done {
            Done::Answered { outcome, at } => (outcome, at, false),
            Done::Failed { outcome, at, is_ours } => (outcome, at, is_ours),
            Done::Cancelled(by) => {
                tracing::info!(message.id = %job.message, endpoint.id = %job.endpoint, by, outcome = "cancelled", "delivery");
                self.metrics.deliveries_cancelled.inc();
                let next = DeliveryNext::Cancelled { tries: job.tries, by: by.to_owned() };
                self.hand_over(job, None, next);
                return Feedback::NotSent;
            }
        };
        let tries = job.tries + u32::from(job.trigger == Trigger::Scheduled);
        let now = at.plus(outcome.duration);
        let verdict = self.config.retry.judge(now, tries, job.trigger, &outcome, random::quick_u64());
        let is_success = verdict == RetryVerdict::Delivered;
        let attempt = Attempt {
            id: self.ids.generate(now, random::id_tail()),
            message: job.message,
            endpoint: job.endpoint,
            status: if is_success { AttemptStatus::Success } else { AttemptStatus::Fail },
            trigger: job.trigger,
            timestamp: at,
            duration: outcome.duration,
            response_status: outcome.response_status,
            response: outcome.response.clone(),
            url: route.map_or_else(|| Arc::from(""), |route| route.url.clone()),
        };
        // A manual try that fails gives the delivery back to the schedule it interrupted.
        let next = match (verdict, job.resume_at) {
            (RetryVerdict::Delivered, _) => DeliveryNext::Delivered,
            (RetryVerdict::RetryAt(at), _) => DeliveryNext::RetryAt { at, tries },
            (RetryVerdict::Exhausted, Some(resume)) => DeliveryNext::RetryAt { at: resume.max(now), tries },
            (RetryVerdict::Exhausted | RetryVerdict::Gone, _) => DeliveryNext::Exhausted { tries },
        };
        self.metrics.attempt(is_success, outcome.duration);
        // One wide line an attempt. Successes are the usual thing: they cost a line only where it is wanted.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    message.id = %job.message,
                    endpoint.id = %job.endpoint,
                    attempt.number = tries,
                    duration_ms = outcome.duration.as_secs_f64() * 1e3,
                    http.status = outcome.response_status,
                    outcome = ?next,
                    "attempt"
                )
            };
        }
        if is_success {
            line!(debug)
        } else {
            line!(info)
        }
        if let Some(route) = route {
            self.watch_health(job, route, &attempt, &next, verdict, is_ours, now);
        }
        self.hand_over(job, Some(attempt), next);
        Feedback::NotSent
    }

    fn hand_over(&self, job: &Job, attempt: Option<Attempt>, next: DeliveryNext) {
        self.store.record_attempt(AttemptRecord {
            message: job.message,
            endpoint: job.endpoint,
            app: job.app,
            attempt,
            next,
            is_first_try: job.is_first_try,
        });
    }

    /// Endpoint health, disabling, and the operational events that follow.
    #[allow(clippy::too_many_arguments)] // Everything one attempt has shown.
    fn watch_health(
        &self,
        job: &Job,
        route: &Arc<Route>,
        attempt: &Attempt,
        next: &DeliveryNext,
        verdict: RetryVerdict,
        is_ours: bool,
        now: Timestamp,
    ) {
        let failing_after = FAILING_AFTER_TRIES.min(u32::try_from(self.config.retry.schedule.len()).unwrap_or(u32::MAX)).max(1);
        match next {
            DeliveryNext::Delivered => {
                if route.note_success() {
                    self.save_health(route, EndpointHealth { failing_since: None }, None, now);
                }
                if job.tries >= failing_after {
                    self.emit_attempt("message.attempt.recovered", route, attempt);
                }
                return;
            }
            DeliveryNext::Exhausted { .. } if job.trigger == Trigger::Scheduled => {
                self.emit_attempt("message.attempt.exhausted", route, attempt);
            }
            DeliveryNext::RetryAt { tries, .. } if *tries == failing_after && job.trigger == Trigger::Scheduled => {
                self.emit_attempt("message.attempt.failing", route, attempt);
            }
            _ => {}
        }
        if is_ours {
            return;
        }
        if route.note_failure(now) {
            self.save_health(route, EndpointHealth { failing_since: Some(now) }, None, now);
        }
        let since = route.failing_since().unwrap_or(now);
        let health = EndpointHealth { failing_since: Some(since) };
        if verdict == RetryVerdict::Gone {
            self.save_health(route, health, Some("it answered 410 Gone"), now);
        } else if self.config.disable_after.is_some_and(|limit| now.since(since) >= limit && job.trigger == Trigger::Scheduled) {
            self.save_health(route, health, Some("it did nothing but fail"), now);
        }
    }

    /// Stores health in the background; disables the endpoint if there is a reason to.
    fn save_health(&self, route: &Arc<Route>, health: EndpointHealth, disable: Option<&'static str>, now: Timestamp) {
        let (Some(engine), route) = (self.this.upgrade(), route.clone()) else { return };
        self.runtime.spawn(async move {
            let id = route.endpoint.id;
            match engine.store.set_endpoint_health(id, health, disable.is_some(), now).await {
                Ok(true) => {
                    let reason = disable.unwrap_or_default();
                    tracing::warn!(endpoint.id = %id, app.id = %route.application.id, reason, "endpoint disabled");
                    engine.endpoint_changed(route.application.id, id);
                    engine.metrics.endpoints_disabled.inc();
                    let data = json!({
                        "appId": route.application.id,
                        "appUid": route.application.uid,
                        "endpointId": id,
                        "endpointUid": route.endpoint.uid,
                        "failSince": health.failing_since.unwrap_or(now).to_string(),
                        "trigger": if reason.contains("410") { "gone" } else { "failing" },
                    });
                    engine.emit_for(&route, "endpoint.disabled", data);
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(endpoint.id = %id, %error, "endpoint health not stored"),
            }
        });
    }

    fn emit_attempt(&self, event_type: &'static str, route: &Route, attempt: &Attempt) {
        let data = json!({
            "appId": route.application.id,
            "appUid": route.application.uid,
            "endpointId": route.endpoint.id,
            "endpointUid": route.endpoint.uid,
            "msgId": attempt.message,
            "lastAttempt": {
                "id": attempt.id,
                "timestamp": attempt.timestamp.to_string(),
                "responseStatusCode": attempt.response_status,
            },
        });
        self.emit_for(route, event_type, data);
    }

    /// Events about operational endpoints themselves are not sent: they would feed on each other.
    fn emit_for(&self, route: &Route, event_type: &'static str, data: serde_json::Value) {
        if route.application.kind == ApplicationKind::Customer {
            self.emit_operational(route.application.org, event_type, data);
        }
    }

    /// A new id, made now.
    pub fn new_id<I: IdKind>(&self) -> I {
        self.ids.generate(self.now(), random::id_tail())
    }
}
