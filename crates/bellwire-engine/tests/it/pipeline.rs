//! The pipe end to end, on both stores: each test is one promise to a sender or a receiver.

use std::time::Duration;

use bellwire_core::{AttemptStatus, HeaderSet, IdKind, Secret, Timestamp};
use bellwire_store::{Task, TaskKind, TaskStatus};
use bellwire_testkit::{Backend, Received, Receiver, Reply, TestApp, test_config};
use bellwire_verify::{Key, SignedHeaders, verify};
use bytes::Bytes;

use crate::wait_until;

const PAYLOAD: &str = r#"{"order": 1, "spaces":   "kept", "u": "\u00e9"}"#;

fn assert_signed(request: &Received, secrets: &[&str]) {
    let verifiers: Vec<_> = secrets.iter().map(|secret| Key::parse(secret).unwrap().verifier()).collect();
    let timestamp = request.header("webhook-timestamp").unwrap().parse().unwrap();
    for verifier in &verifiers {
        let headers = SignedHeaders::read(|name| request.header(name));
        verify(&headers, &request.body, std::slice::from_ref(verifier), timestamp, 300).unwrap();
    }
}

async fn a_message_arrives_byte_exact_and_signed_at_every_endpoint_that_wants_it(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let all = app.endpoint(&application, receiver.url("/all"), |_| {}).await;
    app.endpoint(&application, receiver.url("/some"), |e| e.event_types = Some(vec!["order.paid".into()])).await;
    app.endpoint(&application, receiver.url("/other"), |e| e.event_types = Some(vec!["order.lost".into()])).await;
    app.endpoint(&application, receiver.url("/off"), |e| e.disabled = true).await;
    let message = app.publish(&application, "order.paid", PAYLOAD).await;
    app.drain().await;
    let got = receiver.received("/all");
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].body, PAYLOAD.as_bytes());
    assert_eq!(got[0].header("webhook-id"), Some(message.to_string().as_str()));
    assert_eq!(got[0].header("content-type"), Some("application/json"));
    assert_signed(&got[0], &[all.secret.current.expose()]);
    assert_eq!(receiver.received("/some").len(), 1);
    assert!(receiver.received("/other").is_empty() && receiver.received("/off").is_empty());
    assert_eq!(app.attempts(&application, message).await, [(AttemptStatus::Success, 200); 2]);
}

async fn what_fails_is_retried_with_the_same_id_until_it_is_delivered(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/"), |_| {}).await;
    // (A drop on a kept-alive connection would be repeated at once on a fresh one, within the same attempt.)
    receiver.script("/", [Reply::Drop, Reply::Status(500), Reply::Status(302)]);
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    let got = receiver.received("/");
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|request| request.header("webhook-id") == Some(message.to_string().as_str())));
    assert!(got.iter().all(|request| request.body == PAYLOAD.as_bytes()));
    let statuses = app.attempts(&application, message).await;
    let fail = |code| (AttemptStatus::Fail, code);
    assert_eq!(statuses, [fail(0), fail(500), fail(302), (AttemptStatus::Success, 200)]);
}

async fn an_exhausted_delivery_is_kept_and_can_be_resent(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let endpoint = app.endpoint(&application, receiver.url("/"), |_| {}).await;
    receiver.script("/", vec![Reply::Status(500); 4]);
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    assert_eq!(receiver.received("/").len(), 4, "one try and three retries");
    app.engine.resend(application.id, message, endpoint.id, None).await.unwrap();
    app.drain().await;
    assert_eq!(app.attempts(&application, message).await.last(), Some(&(AttemptStatus::Success, 200)));
}

async fn retry_after_is_honoured(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/"), |_| {}).await;
    let busy = Reply::Full { status: 429, headers: vec![("retry-after", "1".into())], body: Bytes::new() };
    receiver.script("/", [busy]);
    app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    let got = receiver.received("/");
    let pause = got[1].at - got[0].at;
    assert!(pause >= Duration::from_millis(990), "only {pause:?} after it asked for a second");
}

async fn gone_disables_the_endpoint_and_says_so(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let operational = app.store().operational_application(app.org, app.engine.new_id(), app.now()).await.unwrap();
    app.endpoint(&operational, receiver.url("/ops"), |_| {}).await;
    let endpoint = app.endpoint(&application, receiver.url("/gone"), |_| {}).await;
    receiver.always("/gone", Reply::Status(410));
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    let events = receiver.wait_for("/ops", 2).await;
    let types: Vec<_> =
        events.iter().map(|e| serde_json::from_slice::<serde_json::Value>(&e.body).unwrap()["type"].clone()).collect();
    assert!(types.contains(&"endpoint.disabled".into()) && types.contains(&"message.attempt.exhausted".into()), "{types:?}");
    app.drain().await;
    assert!(app.store().find_endpoint(application.id, &endpoint.id.to_string()).await.unwrap().unwrap().disabled);
    assert_eq!(app.attempts(&application, message).await, [(AttemptStatus::Fail, 410)], "and it is not tried again");
}

async fn an_endpoint_that_only_fails_is_disabled_and_recovers_what_it_missed_on_request(backend: Backend) {
    let config = bellwire_engine::EngineConfig { disable_after: Some(Duration::from_millis(120)), ..test_config() };
    let (app, receiver) = (TestApp::on_with(backend, config).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let endpoint = app.endpoint(&application, receiver.url("/"), |_| {}).await;
    receiver.always("/", Reply::Status(500));
    let since = app.now();
    app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    let id = endpoint.id.to_string();
    wait_until(|| async { app.store().find_endpoint(application.id, &id).await.unwrap().unwrap().disabled }).await;
    app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    receiver.always("/", Reply::Status(200));
    let before = receiver.received("/").len();
    let mut endpoint = app.store().find_endpoint(application.id, &id).await.unwrap().unwrap();
    endpoint.disabled = false;
    app.update(endpoint.clone()).await;
    let task = Task {
        id: app.engine.new_id(),
        org: app.org,
        kind: TaskKind::EndpointRecover,
        status: TaskStatus::Running,
        app: application.id,
        endpoint: endpoint.id,
        since: Timestamp(since.0 - 1_000),
        until: app.now(),
        position: None,
        messages_sent: 0,
        created_at: app.now(),
        updated_at: app.now(),
    };
    let task_id = task.id;
    app.engine.recover(task, None).await.unwrap();
    receiver.wait_for("/", before + 2).await;
    wait_until(|| async { app.store().get_task(app.org, task_id).await.unwrap().unwrap().status == TaskStatus::Finished }).await;
    app.drain().await;
    assert_eq!(app.store().get_task(app.org, task_id).await.unwrap().unwrap().messages_sent, 2);
    assert_eq!(receiver.received("/").len(), before + 2, "each missed message once");
}

async fn how_long_an_endpoint_has_been_failing_is_known_after_a_stop(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let endpoint = app.endpoint(&application, receiver.url("/"), |_| {}).await;
    receiver.always("/", Reply::Status(500));
    let before = app.now();
    app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    let app = app.restart().await;
    let stored = app.store().find_endpoint(application.id, &endpoint.id.to_string()).await.unwrap().unwrap();
    let since = stored.health.failing_since.expect("it has been failing");
    assert!(before <= since && since <= app.now(), "{before} {since}");
}

async fn deliveries_waiting_at_a_stop_are_made_after_the_restart(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/hang"), |_| {}).await;
    app.endpoint(&application, receiver.url("/fail"), |_| {}).await;
    receiver.script("/hang", [Reply::Hang]);
    receiver.script("/fail", vec![Reply::Status(500); 2]);
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for("/hang", 1).await;
    receiver.wait_for("/fail", 1).await;
    let app = app.restart().await;
    app.drain().await;
    let delivered = app.attempts(&application, message).await.iter().filter(|(s, _)| *s == AttemptStatus::Success).count();
    assert_eq!(delivered, 2);
}

async fn both_keys_sign_during_a_rotation_and_custom_headers_go_along(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let mut endpoint = app.endpoint(&application, receiver.url("/"), |_| {}).await;
    let old = endpoint.secret.current.clone();
    endpoint.secret.rotate(app.engine.new_signing_secret(), app.now(), app.now().plus(Duration::from_secs(60)), 10);
    endpoint.headers =
        HeaderSet(vec![("x-team".into(), Secret::new("payments")), ("authorization".into(), Secret::new("Bearer x"))]);
    app.update(endpoint.clone()).await;
    app.publish(&application, "a.b", PAYLOAD).await;
    let got = &receiver.wait_for("/", 1).await[0];
    assert_signed(got, &[old.expose(), endpoint.secret.current.expose()]);
    assert_eq!(got.header("x-team"), Some("payments"));
    assert_eq!(got.header("authorization"), Some("Bearer x"));
}

async fn a_hanging_endpoint_does_not_hold_up_another(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/hang"), |_| {}).await;
    app.endpoint(&application, receiver.url("/quick"), |_| {}).await;
    receiver.always("/hang", Reply::Hang);
    for _ in 0..200 {
        app.publish(&application, "a.b", PAYLOAD).await;
    }
    let got = receiver.wait_for("/quick", 200).await;
    let spread = got[199].at - got[0].at;
    assert!(spread < Duration::from_secs(3), "the timeout of the hanging one is seen in {spread:?}");
}

async fn a_forbidden_address_is_never_dialled_whatever_is_stored(backend: Backend) {
    let mut config = test_config();
    config.egress = bellwire_core::egress::EgressPolicy::default();
    config.retry.schedule.clear();
    let (app, receiver) = (TestApp::on_with(backend, config).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/"), |_| {}).await;
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    assert_eq!(app.attempts(&application, message).await, [(AttemptStatus::Fail, 0)]);
    assert!(receiver.received("/").is_empty());
}

async fn a_message_with_a_delivery_time_waits_for_it(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/"), |_| {}).await;
    let mut message = app.message(&application, "a.b", PAYLOAD);
    message.deliver_at = Some(app.now().plus(Duration::from_millis(600)));
    let began = tokio::time::Instant::now();
    app.publish_message(&application, message).await;
    let got = receiver.wait_for("/", 1).await;
    assert!(got[0].at - began >= Duration::from_millis(590));
}

async fn content_deleted_before_the_retry_is_not_sent(backend: Backend) {
    let mut config = test_config();
    config.retry.schedule = vec![Duration::from_millis(300)];
    let (app, receiver) = (TestApp::on_with(backend, config).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/"), |_| {}).await;
    receiver.always("/", Reply::Status(500));
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for("/", 1).await;
    app.store().expunge_message_content(application.id, message).await.unwrap();
    app.drain().await;
    assert_eq!(receiver.received("/").len(), 1);
}

async fn ids_made_by_the_engine_continue_above_what_the_store_holds(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    app.endpoint(&application, receiver.url("/"), |_| {}).await;
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    app.drain().await;
    let app = app.restart().await;
    let next: bellwire_core::MessageId = app.engine.new_id();
    assert!(next.key() > message.key());
}

async fn a_resend_that_succeeds_while_the_first_try_hangs_ends_the_delivery(backend: Backend) {
    let mut config = test_config();
    config.request_timeout = Duration::from_millis(700);
    let (app, receiver) = (TestApp::on_with(backend, config).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let endpoint = app.endpoint(&application, receiver.url("/"), |_| {}).await;
    receiver.script("/", [Reply::Hang]);
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for("/", 1).await;
    app.engine.resend(application.id, message, endpoint.id, None).await.unwrap();
    receiver.wait_for("/", 2).await;
    wait_until(|| async { app.attempts(&application, message).await.len() == 2 }).await;
    app.drain().await;
    let mut attempts = app.attempts(&application, message).await;
    attempts.sort_by_key(|(_, code)| *code);
    assert_eq!(attempts, [(AttemptStatus::Fail, 0), (AttemptStatus::Success, 200)], "no retry follows a success");
    assert_eq!(receiver.received("/").len(), 2);
}

async fn people_hear_of_a_delivery_that_keeps_failing_and_of_its_recovery(backend: Backend) {
    let (app, receiver) = (TestApp::on(backend).await, Receiver::start().await.unwrap());
    let application = app.application("acme").await;
    let operational = app.store().operational_application(app.org, app.engine.new_id(), app.now()).await.unwrap();
    app.endpoint(&operational, receiver.url("/ops"), |_| {}).await;
    let endpoint = app.endpoint(&application, receiver.url("/"), |_| {}).await;
    receiver.script("/", vec![Reply::Status(500); 3]);
    let message = app.publish(&application, "a.b", PAYLOAD).await;
    let mut events = vec![];
    for request in receiver.wait_for("/ops", 2).await {
        let event: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(event["data"]["msgId"], message.to_string());
        assert_eq!(event["data"]["endpointId"], endpoint.id.to_string());
        events.push((
            event["type"].as_str().unwrap().to_owned(),
            event["data"]["lastAttempt"]["responseStatusCode"].as_i64().unwrap(),
        ));
    }
    events.sort();
    let expected = [("message.attempt.failing".to_owned(), 500), ("message.attempt.recovered".to_owned(), 200)];
    assert_eq!(events, expected, "the third failure of four tries, and the success after it");
}

crate::on_both_stores! {
    a_message_arrives_byte_exact_and_signed_at_every_endpoint_that_wants_it,
    what_fails_is_retried_with_the_same_id_until_it_is_delivered,
    an_exhausted_delivery_is_kept_and_can_be_resent,
    retry_after_is_honoured,
    gone_disables_the_endpoint_and_says_so,
    an_endpoint_that_only_fails_is_disabled_and_recovers_what_it_missed_on_request,
    how_long_an_endpoint_has_been_failing_is_known_after_a_stop,
    deliveries_waiting_at_a_stop_are_made_after_the_restart,
    both_keys_sign_during_a_rotation_and_custom_headers_go_along,
    a_hanging_endpoint_does_not_hold_up_another,
    a_forbidden_address_is_never_dialled_whatever_is_stored,
    a_message_with_a_delivery_time_waits_for_it,
    content_deleted_before_the_retry_is_not_sent,
    ids_made_by_the_engine_continue_above_what_the_store_holds,
    a_resend_that_succeeds_while_the_first_try_hangs_ends_the_delivery,
    people_hear_of_a_delivery_that_keeps_failing_and_of_its_recovery,
}
