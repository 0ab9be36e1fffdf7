//! Settings, seen from outside.

use crate::support::{run, stderr, stdout};

/// Broken: the operator cannot see what is in effect, or sees secrets.
#[test]
fn config_show_prints_values_origins_and_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bellwire.toml"), "[delivery]\nrequest_timeout = \"7s\"\n").unwrap();
    let variables = [("BELLWIRE_AUTH__JWT_SECRET", "hunter2hunter2hunter2"), ("BELLWIRE_LISTEN", "127.0.0.1:9999")];
    let shown = run(folder.path(), &variables, &["config", "show", "--set", "signing.default=ed25519"]);
    assert!(shown.status.success(), "{}", stderr(&shown));
    let text = stdout(&shown);
    let line = |key: &str| text.lines().find(|line| line.trim_start().starts_with(key)).unwrap_or_default().to_owned();
    assert!(line("listen").contains("127.0.0.1:9999") && line("listen").contains("BELLWIRE_LISTEN"), "{text}");
    assert!(
        line("delivery.request_timeout").contains("7s") && line("delivery.request_timeout").contains("bellwire.toml"),
        "{text}"
    );
    assert!(line("signing.default").contains("ed25519") && line("signing.default").contains("--set"), "{text}");
    assert!(line("auth.jwt_secret").contains("[redacted]") && !text.contains("hunter2"), "{text}");
    let json = run(folder.path(), &variables, &["config", "show", "--json"]);
    let rows: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(rows.as_array().unwrap().iter().any(|row| row["key"] == "listen" && row["value"] == "127.0.0.1:9999"));
}

/// Broken: a typing error is passed over in silence, or ends with another code than scripts were told.
#[test]
fn unknown_names_end_with_code_3_and_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(folder.path(), &[("BELLWIRE_DELIVERY__REQUEST_TIMOUT", "5s")], &["serve"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("did you mean BELLWIRE_DELIVERY__REQUEST_TIMEOUT?"), "{}", stderr(&refused));
    std::fs::write(folder.path().join("bellwire.toml"), "lisen = \"127.0.0.1:1\"\n").unwrap();
    let refused = run(folder.path(), &[], &["config", "show"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("did you mean listen?"), "{}", stderr(&refused));
    assert!(!folder.path().join("bellwire-data").exists(), "nothing is made before the configuration is right");
}

/// Broken: what `config default` prints is refused as a configuration.
#[test]
fn the_default_file_can_be_used_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let text = run(folder.path(), &[], &["config", "default"]);
    std::fs::write(folder.path().join("bellwire.toml"), &text.stdout).unwrap();
    assert!(run(folder.path(), &[], &["config", "show"]).status.success());
}

/// Broken: scripts cannot tell a mistyped command from a failing one.
#[test]
fn usage_errors_end_with_code_2_and_help_with_0() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &[], &["srve"]).status.code(), Some(2));
    assert_eq!(run(folder.path(), &[], &["app", "list"]).status.code(), Some(2), "no token");
    assert_eq!(run(folder.path(), &[], &["--help"]).status.code(), Some(0));
    assert_eq!(run(folder.path(), &[], &["--version"]).status.code(), Some(0));
    for shell in ["bash", "zsh", "fish"] {
        let script = run(folder.path(), &[], &["completions", shell]);
        assert!(script.status.success() && stdout(&script).contains("bellwire"), "{shell}");
    }
    let nobody = run(folder.path(), &[], &["app", "list", "--server", "http://127.0.0.1:1", "--token", "x"]);
    assert_eq!(nobody.status.code(), Some(8), "{}", stderr(&nobody));
}
