//! The table of targets: one for each kind of foreign bytes.

use crate::{Target, answer, api, credential, link, outgoing, provider, received, text};

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "verify", run: provider::verify, seeds: provider::requests },
    Target { name: "forge", run: provider::forge, seeds: provider::requests },
    Target { name: "handshake", run: provider::handshake, seeds: provider::handshakes },
    Target { name: "key", run: provider::key, seeds: provider::keys },
    Target { name: "preset", run: provider::preset, seeds: provider::presets },
    Target { name: "case", run: provider::case, seeds: provider::cases },
    Target { name: "view", run: received::view, seeds: provider::requests },
    Target { name: "address", run: received::address, seeds: received::addresses },
    Target { name: "settings", run: received::settings, seeds: received::all_settings },
    Target { name: "answer", run: answer::answer, seeds: answer::answers },
    Target { name: "outgoing", run: outgoing::outgoing, seeds: outgoing::requests },
    Target { name: "body", run: api::body, seeds: api::bodies },
    Target { name: "credential", run: credential::credential, seeds: credential::credentials },
    Target { name: "link", run: link::link, seeds: link::frames },
    Target { name: "text", run: text::text, seeds: text::texts },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: a target fails at what it begins with, or does not say twice the same about it.
    #[test]
    fn the_seeds_of_every_target_pass() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            seeds.iter().for_each(|seed| assert_eq!((target.run)(seed), (target.run)(seed), "{}", target.name));
        }
    }

    /// Broken: libFuzzer runs only some of the targets, or the papers do not say what all of them are.
    #[test]
    fn every_target_is_one_of_libfuzzers_too_and_in_the_papers() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        for Target { name, .. } in TARGETS {
            assert!(read(&format!("fuzz_targets/{name}.rs")).contains(&format!("target({name:?})")), "fuzz_targets/{name}.rs");
            assert!(read("Cargo.toml").contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} in fuzz/Cargo.toml");
            assert!(read("README.md").contains(&format!("| `{name}` |")), "{name} in fuzz/README.md");
        }
    }
}
