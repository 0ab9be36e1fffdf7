//! The first command of the README.

use std::net::TcpListener;

use crate::support::{run, stderr, stdout};

/// Broken: a newcomer's first minute shows nothing, or not what was promised; or it fails where a port is taken.
#[test]
fn the_demo_delivers_everything_recovers_and_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let demo = run(folder.path(), &[("BELLWIRE_LISTEN", &address)], &["demo", "--once"]);
    let text = stdout(&demo);
    assert!(demo.status.success(), "{text}{}", stderr(&demo));
    for wanted in
        ["is taken", "curl http://127.0.0.1:", "GitHub push", "Stripe invoice.paid", "Shopify orders/create", "recovered", "503"]
    {
        assert!(text.contains(wanted), "{wanted} is missing:\n{text}");
    }
    assert!(text.contains("6 messages published, 14 deliveries made") && text.contains("Everything was delivered."), "{text}");
    let filtered: Vec<_> = text.lines().filter(|line| line.contains("filtered") && line.contains("attempt")).collect();
    assert_eq!(filtered.len(), 2, "only invoice.paid: {filtered:?}");
    assert!(!text.contains('\u{1b}'), "no colours where there is no terminal");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
}
