//! Shows that the throw-away server is one that tests can trust: durable, separate databases, nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use bellwire_postgres_testkit::{Postgres, query};

/// If this fails, tests of durability run on a server that promises nothing.
#[test]
fn the_shared_server_syncs_what_it_commits() {
    let server = Postgres::shared();
    assert_eq!(query(server.admin_url(), "SHOW fsync").unwrap().trim(), "on");
    assert_eq!(query(server.admin_url(), "SHOW synchronous_commit").unwrap().trim(), "on");
}

/// If this fails, tests see each other's rows, or a copied database lacks what its template had.
#[test]
fn each_test_gets_a_database_of_its_own_and_copies_keep_what_the_template_had() {
    let server = Postgres::shared();
    let (first, second) = (server.create_database(), server.create_database());
    query(&first, "CREATE TABLE mark AS SELECT 7 AS n").unwrap();
    assert!(query(&second, "SELECT n FROM mark").unwrap_err().contains("mark"));
    let copy = server.create_database_from(&first);
    query(&copy, "INSERT INTO mark VALUES (8)").unwrap();
    assert_eq!(query(&copy, "SELECT n FROM mark ORDER BY n").unwrap(), "7\n8\n");
    assert_eq!(query(&first, "SELECT n FROM mark").unwrap(), "7\n");
    for database in [first, second, copy] {
        server.drop_database(&database);
    }
}

/// If this fails, every run of the tests leaves a server and its folder behind.
#[test]
fn a_server_ends_and_its_folder_goes_when_it_is_dropped() {
    let server = Postgres::start();
    let url = server.admin_url().to_owned();
    let data = query(&url, "SHOW data_directory").unwrap();
    let folder = Path::new(data.trim()).parent().unwrap().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(query(&url, "SELECT 1").is_err(), "the server still answers");
    assert!(!folder.exists(), "{} is still there", folder.display());
}
