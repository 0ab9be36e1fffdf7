//! The binary on PostgreSQL: keys, roles, what keeps a node from starting, and the doctor.

use std::time::Duration;

use bellwire_postgres_testkit::{Postgres, query};

use crate::receiver::Receiver;
use crate::support::{PATIENCE, Server, bellwire, run, stderr, stdout, until, wait};

/// 32 bytes, for nodes that share a configured key.
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn status(url: &str, path: &str) -> String {
    let address = url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Broken: two nodes with different keys share a store, and half of what they write cannot be read by the other; or an operator
/// is not told which file to copy.
#[test]
fn a_node_with_another_master_key_is_refused_with_the_way_out() {
    let database = Postgres::shared().create_database();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = [("BELLWIRE_STORAGE__URL", database.as_str())];
    let first = Server::start(one.path(), &url);
    assert!(first.key.is_some(), "the first start prints a key");
    let log = std::fs::read_to_string(one.path().join("server.log")).unwrap();
    assert!(log.contains("a master key was made") && log.contains("master.key"), "{log}");

    let refused = run(two.path(), &url, &["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("master.key") && stderr(&refused).contains("another node"), "{}", stderr(&refused));
    assert!(!two.path().join("data/master.key").exists(), "a key that opens nothing is left behind");

    let other = [url[0], ("BELLWIRE_SECURITY__MASTER_KEY", MASTER_KEY)];
    let refused = run(two.path(), &other, &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = stderr(&refused);
    assert!(text.contains("all nodes") && text.contains("BELLWIRE_SECURITY__MASTER_KEY") && !text.contains(MASTER_KEY), "{text}");

    std::fs::create_dir(two.path().join("data")).unwrap();
    std::fs::copy(one.path().join("data/master.key"), two.path().join("data/master.key")).unwrap();
    let second = Server::start(two.path(), &url);
    assert_eq!(second.key, None, "the key is shown once");
}

/// Broken: what is published through one node is not delivered by another, a node that only delivers takes requests, or a node
/// that stops takes its shards along.
#[test]
fn one_node_takes_and_another_delivers() {
    let database = Postgres::shared().create_database();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |node: usize, roles: &str| {
        let name = format!("n{node}");
        Server::start(
            folders[node].path(),
            &[
                ("BELLWIRE_STORAGE__URL", database.as_str()),
                ("BELLWIRE_SECURITY__MASTER_KEY", MASTER_KEY),
                ("BELLWIRE_NODE__ROLES", roles),
                ("BELLWIRE_NODE__NAME", &name),
            ],
        )
    };
    let mut worker = start(0, "worker");
    assert_eq!(worker.key, None, "nobody can use a key there");
    assert_eq!(
        ["/healthz", "/readyz", "/metrics", "/api/v1/app"].map(|path| status(&worker.url, path)),
        ["200", "200", "200", "404"]
    );
    let api = start(1, "api");
    let key = api.key.clone().unwrap();
    assert!(!folders[1].path().join("data/master.key").exists(), "a configured key is stored nowhere");
    let receiver = Receiver::start(Duration::ZERO);
    let ok = |args: &[&str]| {
        let output = run(folders[1].path(), &[("BELLWIRE_SERVER", &api.url), ("BELLWIRE_TOKEN", &key)], args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    ok(&["app", "create", "--name", "a", "--uid", "a"]);
    ok(&["endpoint", "create", "--app", "a", "--url", &receiver.url]);
    let send = |payload: &str| ok(&["send", "--app", "a", "--event-type", "a.b", "--payload", payload]);
    send("{\"n\":1}");
    until("the delivery by the worker", || (receiver.bodies() == ["{\"n\":1}"]).then_some(()));

    let nodes = "SELECT name || ' ' || is_worker FROM node ORDER BY name";
    assert_eq!(query(&database, nodes).unwrap().lines().collect::<Vec<_>>(), ["n0 true", "n1 false"]);
    worker.signal("TERM");
    assert_eq!(worker.wait(), Some(0));
    assert_eq!(query(&database, "SELECT count(owner) FROM shard").unwrap().trim(), "0", "shards are given up");
    send("{\"n\":2}");
    let _worker = start(2, "worker");
    until("the delivery by the next worker", || (receiver.bodies() == ["{\"n\":1}", "{\"n\":2}"]).then_some(()));
}

/// Broken: a start beside a database that is not up yet fails, or hangs for ever, with a code that scripts do not know.
#[test]
fn a_database_that_does_not_answer_ends_with_code_9_after_the_configured_time() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = "postgres://joe:hunter2@127.0.0.1:1/x";
    let variables = [("BELLWIRE_STORAGE__START_TIMEOUT", "1s"), ("BELLWIRE_LISTEN", "127.0.0.1:0")];
    let started = std::time::Instant::now();
    let refused = run(folder.path(), &variables, &["serve", "--database", nowhere]);
    assert_eq!(refused.status.code(), Some(9), "{}", stderr(&refused));
    assert!(started.elapsed() < Duration::from_secs(20));
    let text = stderr(&refused);
    assert!(text.contains("waiting for the database") && text.contains("storage.url") && !text.contains("hunter2"), "{text}");
    for args in [&["key", "list", "--database", nowhere][..], &["doctor", "--database", nowhere]] {
        let output = run(folder.path(), &[], args);
        assert!(!output.status.success() && !(stdout(&output) + &stderr(&output)).contains("hunter2"), "{args:?}");
    }
}

/// Broken: a node that waits for its database cannot be stopped, and a deployment hangs.
#[test]
fn a_start_that_waits_for_its_database_stops_at_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("server.log");
    let variables = [
        ("BELLWIRE_STORAGE__URL", "postgres://joe@127.0.0.1:1/x"),
        ("BELLWIRE_STORAGE__START_TIMEOUT", "10m"),
        ("BELLWIRE_LISTEN", "127.0.0.1:0"),
    ];
    let mut child = bellwire(folder.path(), &variables, &["serve"]).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    until("the wait", || std::fs::read_to_string(&log).unwrap().contains("waiting for the database").then_some(()));
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let ended = wait(&mut child, PATIENCE).or_else(|| {
        child.kill().ok();
        None
    });
    assert_eq!(ended.expect("it ends").code(), Some(0));
}

/// Broken: without its database a node looks ready to balancers, or cannot be stopped without `kill -9`.
#[test]
fn a_node_whose_database_is_gone_is_not_ready_and_stops_within_its_grace_time() {
    let postgres = Postgres::start();
    let database = postgres.create_database();
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[("BELLWIRE_STORAGE__URL", &database), ("BELLWIRE_STOP_GRACE", "3s")]);
    assert_eq!(status(&server.url, "/readyz"), "200");
    drop(postgres);
    until("the node not to be ready", || (status(&server.url, "/readyz") == "503").then_some(()));
    assert_eq!(status(&server.url, "/healthz"), "200", "a restart of the node would not bring the database back");
    let started = std::time::Instant::now();
    server.signal("TERM");
    server.wait();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

/// Broken: a server acknowledges what its database may lose, and nobody is told.
#[test]
fn an_unsafe_database_is_refused_by_servers_and_by_the_doctor() {
    let database = Postgres::shared().create_database();
    let folder = tempfile::tempdir().unwrap();
    let mark = if database.contains('?') { '&' } else { '?' };
    let careless = format!("{database}{mark}options=-c%20synchronous_commit%3Doff");
    let refused = run(folder.path(), &[], &["serve", "--listen", "127.0.0.1:0", "--database", &careless]);
    assert_eq!(refused.status.code(), Some(10), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("synchronous_commit"), "{}", stderr(&refused));
    let doctor = run(folder.path(), &[], &["doctor", "--database", &careless]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(stdout(&doctor).lines().any(|line| line.starts_with("FAIL") && line.contains("synchronous_commit")));
}

/// Broken: the doctor changes what it looks at, stays silent about the database, or cannot look while nodes run.
#[test]
fn the_doctor_looks_at_a_database_without_changing_it() {
    let database = Postgres::shared().create_database();
    let folder = tempfile::tempdir().unwrap();
    let doctor = || run(folder.path(), &[("BELLWIRE_STORAGE__URL", &database)], &["doctor", "--data-dir", "data"]);
    let before = doctor();
    assert!(before.status.success(), "{}", stdout(&before));
    assert!(stdout(&before).contains("none in postgres://"), "{}", stdout(&before));
    assert_eq!(query(&database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").unwrap().trim(), "0");
    assert!(!folder.path().join("data").exists());

    let server = Server::start(folder.path(), &[("BELLWIRE_STORAGE__URL", &database)]);
    let during = doctor();
    assert!(during.status.success(), "{}", stdout(&during));
    let text = stdout(&during);
    assert!(text.contains("tables are sound") && text.contains("database"), "{text}");
    let made =
        run(folder.path(), &[("BELLWIRE_STORAGE__URL", &database)], &["key", "create", "--name", "x", "--data-dir", "data"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let key = stdout(&made).trim().to_owned();
    let there = [("BELLWIRE_SERVER", server.url.as_str()), ("BELLWIRE_TOKEN", key.as_str())];
    assert!(run(folder.path(), &there, &["app", "list"]).status.success(), "a key made beside a running server opens it");
}
