//! The house rules that a program can check: why a file exists, how long it is, how things are named, what prose names.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A check fails by panicking.

use std::fs;
use std::path::{Path, PathBuf};

/// Most files stay under 300; above 600 nobody finds anything any more.
const LINES_MAX: usize = 600;
const GENERATED: [&str; 5] = ["target", ".git", ".test-env", "node_modules", "bellwire-data"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "imp", "stuff"];
/// Folders of somebody's own machine have no place in it.
const MACHINE_FOLDERS: [&str; 3] = ["/root/", "/home/", "/Users/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files of the project with their path from its root, in order.
fn files() -> Vec<(String, PathBuf)> {
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if GENERATED.contains(&name.as_str()) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let relative = path.strip_prefix(&root).expect("inside the root").to_string_lossy().into_owned();
                found.push((relative, path));
            }
        }
    }
    found.sort();
    assert!(found.iter().any(|(name, _)| name == "Cargo.toml"), "the walk did not start at the root");
    found
}

/// The text files with one of these extensions, each with its text.
fn texts(extensions: &[&str]) -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|(name, _)| extensions.iter().any(|e| name.ends_with(e)))
        .map(|(name, path)| (name, fs::read_to_string(path).expect("text is UTF-8")))
        .collect()
}

fn assert_none(faults: Vec<String>, rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

/// If this fails, a newcomer opens a file and does not learn why it exists.
#[test]
fn every_source_file_says_first_why_it_exists() {
    let starts = [(".rs", "//! "), (".py", "\"\"\""), (".mjs", "// "), (".c", "/* "), (".sh", "#")];
    let mut faults = Vec::new();
    for (extension, start) in starts {
        for (name, text) in texts(&[extension]) {
            if !text.starts_with(start) {
                faults.push(format!("{name} does not start with `{start}`"));
            }
        }
    }
    assert_none(faults, "the first line says why a file exists");
}

/// If this fails, a file has become too long to be read in one sitting.
#[test]
fn files_are_short() {
    let faults = texts(&[".rs", ".py", ".mjs", ".sh", ".c", "scripts/test"])
        .into_iter()
        .filter(|(_, text)| text.lines().count() > LINES_MAX)
        .map(|(name, text)| format!("{name} has {} lines", text.lines().count()))
        .collect();
    assert_none(faults, "no file is longer than 600 lines: split it by what it does");
}

/// If this fails, a name hides what is inside.
#[test]
fn names_say_what_is_inside() {
    let faults = files()
        .into_iter()
        .filter(|(name, _)| {
            Path::new(name).components().any(|part| {
                let part = part.as_os_str().to_string_lossy();
                let stem = part.split('.').next().unwrap_or_default();
                EMPTY_NAMES.contains(&stem) || stem.starts_with("new_")
            })
        })
        .map(|(name, _)| name)
        .collect();
    assert_none(faults, "files and folders are named after steps and nouns");
}

/// If this fails, unfinished or debugging code is about to be released.
#[test]
fn nothing_unfinished_is_left() {
    // Put together here, so that this file does not find itself.
    let marks = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let words = ["FIX", "XX"].map(|half| half.to_owned() + if half == "FIX" { "ME" } else { "X" });
    let mut faults = Vec::new();
    for (name, text) in texts(&[".rs", ".py", ".mjs", ".sh", ".c", "scripts/test"]) {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().chain(&words).any(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(faults, "unfinished code is finished, or an issue");
}

/// If this fails, the project works on one machine only.
#[test]
fn no_path_of_a_machine_is_written_down() {
    let mut faults = Vec::new();
    let kinds = [".rs", ".py", ".mjs", ".sh", ".c", ".md", ".toml", ".json", ".yml", "scripts/test", ".ci/run"];
    for (name, text) in texts(&kinds) {
        if name.ends_with("tests/tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let is_path = |folder: &&str| -> bool {
                line.match_indices(*folder).any(|(at, _)| {
                    // In `example.com/work/` it is part of a URL.
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-~}*".contains(before))
                })
            };
            if MACHINE_FOLDERS.iter().any(is_path) {
                faults.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(faults, "no folder of one machine is named");
}

/// If this fails, the papers send a reader to a file that is not there.
#[test]
fn every_path_named_in_prose_exists() {
    let root = root();
    let mut faults = Vec::new();
    let mut checked = 0;
    for (name, text) in texts(&[".md"]) {
        let beside = root.join(&name).parent().expect("a folder").to_owned();
        for path in named_paths(&text, &root) {
            checked += 1;
            if !root.join(&path).exists() && !beside.join(&path).exists() {
                faults.push(format!("{name} names {path}"));
            }
        }
    }
    assert!(checked > 10, "only {checked} paths found in the papers: does the search still work?");
    assert_none(faults, "every path named in a .md exists");
}

/// If this fails, a comment sends a reader to a file that has been renamed or removed.
#[test]
fn every_source_file_named_in_a_comment_exists() {
    let names: Vec<String> = files().into_iter().map(|(name, _)| format!("/{name}")).collect();
    let mut faults = Vec::new();
    for (name, text) in texts(&[".rs"]) {
        for line in text.lines().map(str::trim_start).filter(|line| line.starts_with("//")) {
            for quoted in line.split('`').skip(1).step_by(2).filter(|quoted| quoted.ends_with(".rs") && !quoted.contains(' ')) {
                if !names.iter().any(|name| name.ends_with(&format!("/{}", quoted.trim_start_matches("./")))) {
                    faults.push(format!("{name} names {quoted}"));
                }
            }
        }
    }
    assert_none(faults, "every source file named in a comment exists");
}

/// Targets of links, and text between backticks that is a path of this project: it begins with a folder of the root or
/// ends like one of its files.
fn named_paths(text: &str, root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        for link in line.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                paths.push(target.to_owned());
            }
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            let quoted = quoted.trim_start_matches("./");
            let is_plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c));
            let Some((first, _)) = quoted.split_once('/') else { continue };
            let is_file = [".rs", ".md", ".py", ".mjs", ".sh", ".toml", ".json"].iter().any(|e| quoted.ends_with(e));
            let is_ours = !first.is_empty() && root.join(first).is_dir() && !GENERATED.contains(&first);
            if is_plain && (is_ours || (is_file && !first.is_empty() && !GENERATED.contains(&first))) {
                paths.push(quoted.to_owned());
            }
        }
    }
    paths
}

/// If this fails, tests depend on where packages came from on one machine.
#[test]
fn lock_files_name_no_registry() {
    let faults = files()
        .into_iter()
        .filter(|(name, _)| name.ends_with("package-lock.json"))
        .filter(|(_, path)| fs::read_to_string(path).expect("text is UTF-8").contains("\"resolved\""))
        .map(|(name, _)| name)
        .collect();
    assert_none(faults, "lock files pin versions and hashes, not hosts (npm's omit-lockfile-registry-resolved)");
}
