//! A server's life: keys, publishing, stopping, and what keeps it from starting.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::receiver::Receiver;
use crate::support::{Server, run, stderr, stdout, until};

/// Broken: an operator whose port is taken gets a code that scripts do not know, or a data folder left behind.
#[test]
fn a_taken_port_ends_with_code_4() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(folder.path(), &[], &["serve", "--listen", &address]);
    assert_eq!(refused.status.code(), Some(4), "{}", stderr(&refused));
    assert!(stderr(&refused).contains(&address) && !folder.path().join("bellwire-data").exists());
}

/// Broken: two processes write into one store.
#[test]
fn a_locked_store_ends_with_code_5_for_servers_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let _server = Server::start(folder.path(), &[]);
    let second = run(folder.path(), &[], &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    assert_eq!(second.status.code(), Some(5), "{}", stderr(&second));
    let key = run(folder.path(), &[], &["key", "create", "--name", "x", "--data-dir", "data"]);
    assert_eq!(key.status.code(), Some(5));
    assert!(stderr(&key).contains("--server") && stderr(&key).contains("--token"), "{}", stderr(&key));
    let doctor = run(folder.path(), &[], &["doctor", "--data-dir", "data"]);
    assert!(stdout(&doctor).contains("running server"), "{}", stdout(&doctor));
}

/// Broken: the way of a first message, from a key to a delivery, as an operator walks it.
#[test]
fn a_key_made_offline_publishes_a_message_that_is_delivered_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Duration::ZERO);
    let mut server = Server::start(folder.path(), &[]);
    assert!(server.key.is_some(), "the first start prints a key");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));

    let made = run(folder.path(), &[], &["key", "create", "--name", "ops", "--data-dir", "data"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let key = stdout(&made).trim().to_owned();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.key, None, "the key is shown once");
    let there = [("BELLWIRE_SERVER", server.url.as_str()), ("BELLWIRE_TOKEN", key.as_str())];
    let ok = |args: &[&str]| {
        let output = run(folder.path(), &there, args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    let json = |args: &[&str]| serde_json::from_str::<Value>(&ok(args)).unwrap();
    ok(&["app", "create", "--name", "First", "--uid", "first"]);
    let endpoint = json(&["endpoint", "create", "--app", "first", "--url", &receiver.url, "--json"]);
    let payload = "{\"amount\":  1.10, \"id\": 12345678901234567890}";
    let message = json(&[
        "send", "--app", "first", "--event-type", "invoice.paid", "--payload", payload, "--idempotency-key", "k", "--json",
    ]);
    until("the delivery", || (receiver.bodies() == [payload]).then_some(()));
    let again = json(&[
        "send", "--app", "first", "--event-type", "invoice.paid", "--payload", payload, "--idempotency-key", "k", "--json",
    ]);
    assert_eq!(message["id"], again["id"]);

    let id = message["id"].as_str().unwrap();
    let attempts = || json(&["attempt", "list", "--app", "first", "--message", id, "--json"]);
    let attempt = until("the attempt on record", || attempts()["data"].get(0).cloned());
    assert_eq!((attempt["responseStatusCode"].as_i64(), attempt["endpointId"].clone()), (Some(200), endpoint["id"].clone()));
    assert_eq!(json(&["message", "get", "--app", "first", id, "--json"])["payload"]["amount"], 1.10);
    for (args, wanted) in [
        (vec!["app", "list"], "first"),
        (vec!["endpoint", "list", "--app", "first"], receiver.url.as_str()),
        (vec!["message", "list", "--app", "first"], id),
        (vec!["attempt", "list", "--app", "first", "--endpoint", endpoint["id"].as_str().unwrap()], id),
        (vec!["attempt", "get", "--app", "first", "--message", id, attempt["id"].as_str().unwrap()], id),
        (vec!["endpoint", "get", "--app", "first", endpoint["id"].as_str().unwrap()], receiver.url.as_str()),
        (vec!["app", "get", "first"], "first"),
        (vec!["key", "list"], "ops"),
    ] {
        let text = ok(&args);
        assert!(text.contains(wanted), "{args:?}: {text}");
    }
    let missing = run(folder.path(), &there, &["app", "get", "no-such"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("not_found"), "{}", stderr(&missing));
    assert_eq!(receiver.bodies().len(), 1, "published once");
}

/// Broken: a key that was revoked or made through a running server does not do what its owner was told.
#[test]
fn keys_are_made_and_revoked_through_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let first = server.key.clone().unwrap();
    let run_as =
        |key: &str, args: &[&str]| run(folder.path(), &[("BELLWIRE_SERVER", &server.url), ("BELLWIRE_TOKEN", key)], args);
    let made = run_as(&first, &["key", "create", "--name", "reader", "--scope", "application:read", "--json"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert!(run_as(key, &["app", "list"]).status.success());
    assert_eq!(run_as(key, &["app", "create", "--name", "x"]).status.code(), Some(1), "it may only read");
    assert!(run_as(&first, &["key", "revoke", id]).status.success());
    until("the revocation", || (!run_as(key, &["app", "list"]).status.success()).then_some(()));
    let bad = run_as(&first, &["key", "create", "--name", "x", "--scope", "no:such"]);
    assert!(!bad.status.success() && stderr(&bad).contains("no:such"), "{}", stderr(&bad));
}

/// Broken: a deployment repeats or loses what is in flight.
#[test]
fn a_signal_lets_the_attempt_in_flight_finish_and_be_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Duration::from_millis(700));
    let mut server = Server::start(folder.path(), &[]);
    let key = server.key.clone().unwrap();
    let url = server.url.clone();
    let as_first = |url: &str, args: &[&str]| run(folder.path(), &[("BELLWIRE_SERVER", url), ("BELLWIRE_TOKEN", &key)], args);
    assert!(as_first(&url, &["app", "create", "--name", "a", "--uid", "a"]).status.success());
    assert!(as_first(&url, &["endpoint", "create", "--app", "a", "--url", &receiver.url]).status.success());
    let sent = as_first(&url, &["send", "--app", "a", "--event-type", "a.b", "--payload", "{}", "--json"]);
    let message: Value = serde_json::from_slice(&sent.stdout).unwrap();
    until("the attempt under way", || (receiver.bodies().len() == 1).then_some(()));
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));

    let server = Server::start(folder.path(), &[]);
    let id = message["id"].as_str().unwrap();
    let attempts = as_first(&server.url, &["attempt", "list", "--app", "a", "--message", id, "--json"]);
    let attempts: Value = serde_json::from_slice(&attempts.stdout).unwrap();
    assert_eq!(attempts["data"].as_array().map(Vec::len), Some(1), "{attempts}");
    assert_eq!(attempts["data"][0]["responseStatusCode"], 200);
    assert_eq!(receiver.bodies().len(), 1, "not repeated after the restart");
}

/// Broken: a server whose receiver hangs cannot be stopped without `kill -9`.
#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Duration::from_secs(40));
    let mut server =
        Server::start(folder.path(), &[("BELLWIRE_DELIVERY__REQUEST_TIMEOUT", "50s"), ("BELLWIRE_STOP_GRACE", "50s")]);
    let variables = [("BELLWIRE_SERVER", server.url.as_str()), ("BELLWIRE_TOKEN", server.key.as_deref().unwrap())];
    for args in [
        &["app", "create", "--name", "a", "--uid", "a"][..],
        &["endpoint", "create", "--app", "a", "--url", &receiver.url],
        &["send", "--app", "a", "--event-type", "a.b", "--payload", "{}"],
    ] {
        assert!(run(folder.path(), &variables, args).status.success());
    }
    until("the attempt under way", || (receiver.bodies().len() == 1).then_some(()));
    server.signal("TERM");
    let log = || std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    until("the first signal noticed", || log().contains("stopping").then_some(()));
    server.signal("TERM");
    assert_eq!(server.wait(), Some(130));
}

/// Broken: the key that opens everything stands in the log.
#[test]
fn the_first_key_is_printed_and_not_logged_and_doctor_finds_the_store_sound() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[("BELLWIRE_LOG__LEVEL", "trace")]);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    assert!(!log.contains("bw_"), "{log}");
    let doctor = run(folder.path(), &[], &["doctor", "--data-dir", "data"]);
    let text = stdout(&doctor);
    assert!(doctor.status.success() && text.contains("every file is sound") && !text.contains("FAIL"), "{text}");
    std::fs::remove_file(folder.path().join("data/master.key")).unwrap();
    let doctor = run(folder.path(), &[], &["doctor", "--data-dir", "data"]);
    assert_eq!(doctor.status.code(), Some(1), "{}", stdout(&doctor));
    assert!(stdout(&doctor).contains("FAIL") && stdout(&doctor).contains("master.key"));
}
