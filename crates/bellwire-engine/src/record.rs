//! Judging an attempt and handing it to the store. Invariant: the retry decision is taken before the write, so that an attempt
//! and its next due time commit together.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{
    ApplicationKind, Attempt, AttemptOutcome, AttemptStatus, EndpointHealth, IdKind, RetryVerdict, Timestamp, Trigger,
};
use bellwire_store::{AttemptRecord, DeliveryNext, StoreError};
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

/// Why an endpoint is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disable {
    /// It answered 410.
    Gone,
    /// It did nothing but fail for as long as is allowed.
    OnlyFailed,
}

/// How long an endpoint has to be failing, or to be well again, until that is stored. What a crash takes is as much of `disable_after`.
const HEALTH_DELAY: Duration = Duration::from_secs(5);
/// A store that cannot take an endpoint's health (a full disk) is asked again this often, with this pause.
const HEALTH_TRIES: u32 = 60;
const HEALTH_PAUSE: Duration = Duration::from_secs(5);

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
            epoch: job.epoch,
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
                    self.save_health_soon(route);
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
        let is_first = route.note_failure(now);
        let since = route.failing_since().unwrap_or(now);
        let is_over = self.config.disable_after.is_some_and(|limit| now.since(since) >= limit);
        if verdict == RetryVerdict::Gone {
            self.disable(route, Disable::Gone, now);
        } else if is_over && job.trigger == Trigger::Scheduled {
            self.disable(route, Disable::OnlyFailed, now);
        } else if is_first {
            self.save_health_soon(route);
        }
    }

    /// Stores since when the endpoint has been failing, if that has changed a while from now: one that fails and succeeds by turns costs one
    /// write in that time at most, not one each turn.
    fn save_health_soon(&self, route: &Arc<Route>) {
        if !route.is_first_to_store() {
            return;
        }
        let (Some(engine), route, saving) = (self.this.upgrade(), route.clone(), self.saving_health.clone()) else { return };
        self.runtime.spawn(async move {
            let _saving = saving;
            engine.sleep(HEALTH_DELAY).await;
            if route.begin_storing() {
                engine.save_health(&route, None, engine.now()).await;
            }
        });
    }

    /// Disables the endpoint if it turns out that there is a reason to, in the background.
    fn disable(&self, route: &Arc<Route>, reason: Disable, now: Timestamp) {
        let (Some(engine), route, saving) = (self.this.upgrade(), route.clone(), self.saving_health.clone()) else { return };
        self.runtime.spawn(async move {
            let _saving = saving;
            engine.save_health(&route, Some(reason), now).await;
        });
    }

    /// Stores the endpoint's health as it is when its turn comes.
    async fn save_health(&self, route: &Route, disable: Option<Disable>, now: Timestamp) {
        let _turn = route.health.lock().await;
        for _ in 0..HEALTH_TRIES {
            match self.try_save_health(route, disable, now).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(endpoint.id = %route.endpoint.id, %error, "endpoint health not stored; trying again")
                }
            }
            self.sleep(HEALTH_PAUSE).await;
        }
    }

    async fn try_save_health(&self, route: &Route, mut disable: Option<Disable>, now: Timestamp) -> Result<(), StoreError> {
        let (app, endpoint) = (&route.application, &route.endpoint);
        if let (Some(Disable::OnlyFailed), Some(since)) = (disable, route.failing_since()) {
            // The record has the last word: a success that this route did not see (it was replaced meanwhile, or its end of
            // failing could not be stored) is one. Counters are by the minute: the one in which failing began does not count.
            let counts = self.store.count_deliveries(endpoint.id, Some(since.plus(Duration::from_secs(60))), None).await?;
            if counts.success > 0 {
                route.note_success();
                disable = None;
            }
        }
        let failing_since = route.failing_since();
        let is_disabled_now =
            self.store.set_endpoint_health(endpoint.id, EndpointHealth { failing_since }, disable.is_some(), now).await?;
        route.note_stored(failing_since);
        if let (true, Some(disable)) = (is_disabled_now, disable) {
            tracing::warn!(endpoint.id = %endpoint.id, app.id = %app.id, reason = ?disable, "endpoint disabled");
            self.endpoint_changed(app.id, endpoint.id);
            self.metrics.endpoints_disabled.inc();
            let data = json!({
                "appId": app.id,
                "appUid": app.uid,
                "endpointId": endpoint.id,
                "endpointUid": endpoint.uid,
                "failSince": failing_since.unwrap_or(now).to_string(),
                "trigger": match disable {
                    Disable::Gone => "gone",
                    Disable::OnlyFailed => "failing",
                },
            });
            self.emit_for(route, "endpoint.disabled", data);
        }
        Ok(())
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
