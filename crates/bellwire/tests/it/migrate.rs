//! `bellwire migrate` on the folder of a real server: what moved is served by another, and what keeps it from moving is named.

use std::time::Duration;

use bellwire_postgres_testkit::{Postgres, query};

use crate::receiver::Receiver;
use crate::support::{Server, run, stderr, stdout, until};

const OTHER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Broken: after a move keys are refused, messages are gone, secrets cannot be read, or what was to be repeated is forgotten; or an
/// operator is not told what is wrong.
#[test]
fn a_servers_folder_is_moved_and_served_from_the_database() {
    let database = Postgres::shared().create_database();
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(Duration::ZERO);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let key = server.key.clone().unwrap();
    let call = |url: &str, args: &[&str]| {
        let output = run(folder.path(), &[("BELLWIRE_SERVER", url), ("BELLWIRE_TOKEN", &key)], args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        stdout(&output)
    };
    call(&server.url, &["app", "create", "--name", "a", "--uid", "a"]);
    call(&server.url, &["endpoint", "create", "--app", "a", "--url", &receiver.url]);
    call(&server.url, &["endpoint", "create", "--app", "a", "--url", &format!("http://{closed}/hook"), "--uid", "closed"]);
    call(&server.url, &["send", "--app", "a", "--event-type", "a.b", "--payload", "{\"n\":1}"]);
    until("the delivery before the move", || (receiver.bodies() == ["{\"n\":1}"]).then_some(()));
    until("the failure before the move", || {
        call(&server.url, &["attempt", "list", "--app", "a", "--endpoint", "closed", "--json"])
            .contains("\"status\"")
            .then_some(())
    });

    let migrate =
        |variables: &[(&str, &str)], to: &str| run(folder.path(), variables, &["migrate", "--from", "sqlite://data", "--to", to]);
    let in_use = migrate(&[], &database);
    assert_eq!(in_use.status.code(), Some(5), "{}", stderr(&in_use));
    assert!(stderr(&in_use).contains("in use"), "{}", stderr(&in_use));
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));

    let wrong = migrate(&[("BELLWIRE_SECURITY__MASTER_KEY", OTHER_KEY)], &database);
    assert!(!wrong.status.success() && stderr(&wrong).contains("master key"), "{}", stderr(&wrong));
    let nowhere = run(folder.path(), &[], &["migrate", "--from", "sqlite://elsewhere", "--to", &database]);
    assert!(!nowhere.status.success() && stderr(&nowhere).contains("control.db"), "{}", stderr(&nowhere));
    let no_target = run(folder.path(), &[], &["migrate", "--from", "sqlite://data"]);
    assert_eq!(no_target.status.code(), Some(2), "{}", stderr(&no_target));

    let moved = migrate(&[("BELLWIRE_DATA_DIR", "unused")], &database);
    assert!(moved.status.success(), "{}", stderr(&moved));
    let text = stdout(&moved);
    assert!(text.contains("message ") && text.contains("read back") && text.contains("master.key"), "{text}");
    assert_eq!(query(&database, "SELECT count(*) FROM message").unwrap().trim(), "1");
    assert!(folder.path().join("data/control.db").exists(), "the source stays");
    let again = migrate(&[], &database);
    assert!(again.status.success(), "a finished move says so again: {}", stderr(&again));

    let server = Server::start(folder.path(), &[("BELLWIRE_STORAGE__URL", database.as_str())]);
    assert_eq!(server.key, None, "the keys of the folder count");
    assert!(call(&server.url, &["message", "list", "--app", "a", "--json"]).contains("a.b"));
    call(&server.url, &["send", "--app", "a", "--event-type", "a.b", "--payload", "{\"n\":2}"]);
    until("the delivery after the move", || (receiver.bodies() == ["{\"n\":1}", "{\"n\":2}"]).then_some(()));
    until("the repetition of what had failed", || {
        let tries = query(&database, "SELECT coalesce(max(tries), 0) FROM retry").unwrap();
        (tries.trim().parse::<u32>().unwrap() >= 2).then_some(())
    });
    drop(server);

    // A database with something in it.
    let other = Postgres::shared().create_database();
    drop(Server::start(tempfile::tempdir().unwrap().path(), &[("BELLWIRE_STORAGE__URL", other.as_str())]));
    let taken = migrate(&[], &other);
    assert!(!taken.status.success(), "{}", stdout(&taken));
}
