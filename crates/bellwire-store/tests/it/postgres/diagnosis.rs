//! What the diagnosis of a server says, and that it says nothing where all is well.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bellwire_postgres_testkit::{Postgres, query};
use bellwire_store::postgres::diagnose::{Severity, diagnose};

use super::database;

async fn texts(url: &str, severity: Severity) -> Vec<String> {
    let found = diagnose(url).await.unwrap();
    assert!(found.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)), "the worst comes first");
    found.into_iter().filter(|finding| finding.severity == severity).map(|finding| finding.text).collect()
}

fn with_options(url: &str, options: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}options={}", options.replace(' ', "%20").replace('=', "%3D"))
}

/// Broken: a store is served from a connection whose commits may be lost, or a sound one is refused.
#[tokio::test]
async fn connections_that_may_lose_commits_are_refused_and_sound_ones_are_not() {
    let url = database().await;
    assert_eq!(texts(&url, Severity::Refuse).await, Vec::<String>::new());
    assert!(texts(&url, Severity::Warn).await.iter().any(|text| text.contains("no synchronous standby")));
    for (value, is_refused) in [("off", true), ("local", true), ("remote_write", true), ("on", false), ("remote_apply", false)] {
        let refused = texts(&with_options(&url, &format!("-c synchronous_commit={value}")), Severity::Refuse).await;
        assert_eq!(refused.len(), usize::from(is_refused), "{value}: {refused:?}");
        assert!(refused.iter().all(|text| text.contains(value) && text.contains("remote_apply")), "{refused:?}");
    }
    let refused = texts(&with_options(&url, "-c default_transaction_isolation=serializable"), Severity::Refuse).await;
    assert!(refused[0].contains("serializable") && refused[0].contains("ALTER ROLE"), "{refused:?}");
    let warned = texts(&with_options(&url, "-c statement_timeout=700"), Severity::Warn).await;
    assert!(warned.iter().any(|text| text.contains("statement_timeout is 700 ms")), "{warned:?}");
}

/// Broken: texts that the encoding does not know are refused one by one, when it is too late to choose another.
#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let url = Postgres::shared().create_database();
    let name = format!("{}_latin", url.rsplit('/').next().unwrap().split('?').next().unwrap());
    let sql = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    query(Postgres::shared().admin_url(), &sql).unwrap();
    let latin = Postgres::shared().url(&name);
    let refused = texts(&latin, Severity::Refuse).await;
    assert!(refused.len() == 1 && refused[0].contains("LATIN1"), "{refused:?}");
    Postgres::shared().drop_database(&latin);
    Postgres::shared().drop_database(&url);
}

/// Broken: a server that may destroy its files in a crash is served from.
#[tokio::test]
async fn a_server_that_does_not_sync_is_refused() {
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "scripts", "postgres"].iter().collect();
    let mut server = Command::new(script)
        .args(["run", "--set", "fsync=off", "--set", "full_page_writes=off", "--set", "autovacuum=off"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let (refused, warned) = (texts(url.trim(), Severity::Refuse).await, texts(url.trim(), Severity::Warn).await);
    // It ends with its standard input.
    drop(server.stdin.take());
    server.wait().unwrap();
    assert!(refused.len() == 2 && refused[0].starts_with("fsync is off") && refused[1].starts_with("full_page_writes is off"));
    assert!(warned.iter().any(|text| text.starts_with("autovacuum is off")), "{warned:?}");
}
