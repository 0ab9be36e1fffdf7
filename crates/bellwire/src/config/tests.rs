//! The layers together: precedence, refusals, and the generated pages.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn with_file(text: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(layer::FILE_NAME), text).unwrap();
    let sources = Sources { folder: folder.path().to_owned(), ..Sources::default() };
    (folder, sources)
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn error(sources: &Sources) -> String {
    Config::load(sources).unwrap_err().to_string()
}

/// Broken: without any configuration the server does not start, or with other defaults than documented.
#[test]
fn nothing_at_all_is_a_complete_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(&Sources { folder: folder.path().to_owned(), ..Sources::default() }).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8071");
    assert_eq!(config.storage.backend.to_string(), "sqlite://./bellwire-data");
    assert!(config.node.is_api && config.node.is_worker && !config.node.name.is_empty());
    let (ours, theirs) = (config.engine(), EngineConfig::default());
    assert_eq!(ours.retry, theirs.retry);
    assert_eq!(ours.request_timeout, theirs.request_timeout);
    assert_eq!(ours.disable_after, theirs.disable_after);
    assert_eq!(ours.user_agent, theirs.user_agent);
    assert_eq!((ours.in_flight_max, ours.endpoint_window_max), (theirs.in_flight_max, theirs.endpoint_window_max));
    assert_eq!(ours.retention, theirs.retention);
    assert_eq!((ours.is_worker, ours.lease), (theirs.is_worker, theirs.lease));
}

/// Broken: an operator's change is silently beaten by a weaker layer.
#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let (_folder, mut sources) = with_file(
        "[delivery]\nrequest_timeout = \"1s\"\nin_flight_max = 300\n[egress]\nallow = [\"127.0.0.0/8\", \"receiver\"]\n",
    );
    let timeout = |sources: &Sources| Config::load(sources).unwrap().delivery.request_timeout;
    assert_eq!(timeout(&sources), Duration::from_secs(1));
    assert_eq!(Config::load(&sources).unwrap().egress.policy.allow_names, ["receiver"]);
    sources.variables = variables(&[("BELLWIRE_DELIVERY__REQUEST_TIMEOUT", "2s"), ("OTHER", "x")]);
    assert_eq!(timeout(&sources), Duration::from_secs(2));
    sources.flags = vec![("--set".into(), "delivery.request_timeout".into(), "3s".into())];
    assert_eq!(timeout(&sources), Duration::from_secs(3));
    assert_eq!(Config::load(&sources).unwrap().delivery.in_flight_max, 300);

    let shown = show::effective(&Layers::gather(&sources).unwrap());
    let origin = |key: &str| shown.iter().find(|shown| shown.key == key).unwrap().origin.clone();
    assert_eq!(origin("delivery.request_timeout"), "flag --set");
    assert!(origin("delivery.in_flight_max").starts_with("file "));
    assert_eq!(origin("storage.url"), "derived from data_dir");
    assert_eq!(origin("node.name"), "derived from the host's name");
    assert_eq!(origin("listen"), "default");
}

/// Broken: a typo is passed over, and the server runs with a default that the operator believes changed.
#[test]
fn unknown_names_are_refused_with_what_was_meant() {
    let (_folder, sources) = with_file("[delivery]\nrequest_timout = \"1s\"\n");
    let text = error(&sources);
    assert!(text.contains("bellwire.toml") && text.contains("did you mean delivery.request_timeout?"), "{text}");
    let (_folder, sources) = with_file("[colours]\nred = 1\n");
    assert!(error(&sources).contains("unknown key \"colours\""), "{}", error(&sources));

    let with = |pairs| Sources { variables: variables(pairs), folder: PathBuf::from("/nonexistent"), ..Sources::default() };
    let text = error(&with(&[("BELLWIRE_DELIVERY_REQUEST_TIMEOUT", "1s")]));
    assert!(text.contains("did you mean BELLWIRE_DELIVERY__REQUEST_TIMEOUT?"), "{text}");
    assert!(
        Config::load(&with(&[
            ("BELLWIRE_TOKEN", "x"),
            ("BELLWIRE_PORT", "tcp://10.0.0.1:80"),
            ("BELLWIRE_SERVICE_HOST", "10.0.0.1")
        ]))
        .is_ok()
    );
    assert!(Config::load(&with(&[("BELLWIRE_PORT", "8071")])).is_err());
}

/// Broken: an operator reads that something is wrong, and not what, where, and what would be right.
#[test]
fn errors_name_place_key_value_and_what_is_accepted() {
    for (name, value, parts) in [
        ("BELLWIRE_DELIVERY__DISABLE_AFTER", "5 weeks", ["delivery.disable_after", "5 weeks", "never"]),
        ("BELLWIRE_DELIVERY__RETRY_SCHEDULE", "5s,soon", ["delivery.retry_schedule", "soon", "commas"]),
        ("BELLWIRE_DELIVERY__HEADER_PREFIX", "hook", ["delivery.header_prefix", "hook", "webhook or svix"]),
        ("BELLWIRE_LISTEN", "8071", ["listen", "8071", "an address and a port"]),
        ("BELLWIRE_EGRESS__ALLOW", "10.0.0.0/33", ["egress.allow", "10.0.0.0/33", "networks"]),
        ("BELLWIRE_EGRESS__HTTPS_ONLY", "maybe", ["egress.https_only", "maybe", "true or false"]),
        ("BELLWIRE_STORAGE__URL", "mysql://db/x", ["storage.url", "mysql", "postgres://"]),
        ("BELLWIRE_STORAGE__CONNECTIONS", "2", ["storage.connections", "between 8 and 512", "whole number"]),
        ("BELLWIRE_NODE__ROLES", "apis", ["node.roles", "apis", "api, worker"]),
        ("BELLWIRE_NODE__NAME", "two words", ["node.name", "two words", "visible ASCII"]),
        ("BELLWIRE_NODE__LEASE", "1ms", ["node.lease", "1ms", "1s to 5m"]),
        ("BELLWIRE_SIGNING__DEFAULT", "rsa", ["signing.default", "rsa", "hmac-sha256 or ed25519"]),
        ("BELLWIRE_LOG__LEVEL", "loud", ["log.level", "loud", "error, warn"]),
        ("BELLWIRE_DATA_DIR", "", ["data_dir", "empty", "a folder"]),
    ] {
        let sources =
            Sources { variables: variables(&[(name, value)]), folder: PathBuf::from("/nonexistent"), ..Sources::default() };
        let text = error(&sources);
        assert!(text.starts_with(name) && parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let (_folder, sources) = with_file("listen = 2026-01-01\n");
    assert!(error(&sources).contains("is a datetime"), "{}", error(&sources));
    let (_folder, sources) = with_file("listen = \n");
    assert!(error(&sources).contains("not valid TOML"), "{}", error(&sources));
    let missing = Sources { file: Some(PathBuf::from("/nonexistent/x.toml")), ..Sources::default() };
    assert!(error(&missing).contains("/nonexistent/x.toml"), "a file that was named must exist");
}

/// Broken: on the embedded store, which no other node can work on, nobody delivers or nobody can publish.
#[test]
fn roles_are_divided_on_a_shared_database_only() {
    let with = |url, roles| Sources {
        variables: variables(&[("BELLWIRE_STORAGE__URL", url), ("BELLWIRE_NODE__ROLES", roles)]),
        folder: PathBuf::from("/nonexistent"),
        ..Sources::default()
    };
    for roles in ["api", "worker"] {
        assert!(error(&with("sqlite://./b", roles)).contains("node.roles"), "{roles}");
        let node = Config::load(&with("postgres://db/x", roles)).unwrap().node;
        assert_eq!((node.is_api, node.is_worker), (roles == "api", roles == "worker"));
    }
}

/// Broken: a wrong secret is printed in full by the error about it, or by `config show`.
#[test]
fn secrets_show_neither_in_errors_nor_in_the_listing() {
    let with = |pairs| Sources { variables: variables(pairs), folder: PathBuf::from("/nonexistent"), ..Sources::default() };
    let text = error(&with(&[("BELLWIRE_SECURITY__MASTER_KEY", "hunter2hunter2")]));
    assert!(!text.contains("hunter2") && text.contains("32 bytes"), "{text}");
    let text = error(&with(&[("BELLWIRE_DELIVERY__PROXY", "ftp://joe:hunter2@proxy:1")]));
    assert!(!text.contains("hunter2"), "{text}");
    let text = error(&with(&[("BELLWIRE_STORAGE__URL", "postgres://joe:hunter2@db:port/x")]));
    assert!(!text.contains("hunter2") && text.contains("storage.url"), "{text}");
    let sources = with(&[("BELLWIRE_STORAGE__URL", "postgres://joe:hunter2@db/x")]);
    let shown = serde_json::to_string(&show::effective(&Layers::gather(&sources).unwrap())).unwrap();
    assert!(!shown.contains("hunter2") && shown.contains("@db/x"), "{shown}");
    assert!(!format!("{:?}", Config::load(&sources).unwrap()).contains("hunter2"));
    let sources = with(&[("BELLWIRE_AUTH__JWT_SECRET", "hunter2hunter2")]);
    let shown = serde_json::to_string(&show::effective(&Layers::gather(&sources).unwrap())).unwrap();
    assert!(!shown.contains("hunter2") && shown.contains(key::REDACTED), "{shown}");
    assert!(!format!("{:?}", Config::load(&sources).unwrap()).contains("hunter2"));
}

/// Broken: the file that `config default` prints is not one that Bellwire reads, or it changes something.
#[test]
fn the_default_file_is_valid_with_and_without_its_comments() {
    let text = reference::default_file();
    assert!(toml::from_str::<toml::Table>(&text).unwrap().values().all(|v| v.as_table().is_some_and(toml::Table::is_empty)));
    let active: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ") => rest,
            _ => line,
        })
        .filter(|line| !line.ends_with("= \"\""))
        .map(|line| format!("{line}\n"))
        .collect();
    let (_folder, sources) = with_file(&active);
    Config::load(&sources).unwrap();
    assert!(active.contains("\nretry_schedule = \"5s,5m,30m,2h,5h,10h,10h\"\n"), "{active}");
}

/// Broken: `docs/configuration.md` describes another program than this one. `UPDATE=1` writes it anew.
#[test]
fn the_documentation_is_generated_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = reference::page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "run: UPDATE=1 cargo test -p bellwire");
}
