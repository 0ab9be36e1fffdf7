//! Runs targets side by side, each in a process of its own: an input that makes one hang, abort or overflow its stack ends no other.
//!
//! The processes end with this one, however it ends: each watches its standard input, which closes then.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bellwire_fuzz::feature;

use crate::{findings, worker};

/// Of what a failing target says; an assertion can quote its whole input.
const SHOWN_CHARS_MAX: usize = 4_000;

/// Whether each of the targets found nothing. What happened is printed as each ends.
pub fn run(targets: &[&str], seed: u64, seconds: u64, jobs: usize) -> Vec<bool> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(targets.len()) {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let is_right = run_one(target, seed, seconds);
                    done.lock().expect("nobody panics with the lock").push(is_right);
                }
            });
        }
    });
    done.into_inner().expect("nobody panics with the lock")
}

fn run_one(target: &str, seed: u64, seconds: u64) -> bool {
    let folder = findings();
    std::fs::create_dir_all(&folder).expect("a folder for findings that can be written");
    let current = folder.join(format!("current-{target}"));
    let output = start(target, seed, seconds, &current);
    let said = String::from_utf8_lossy(&output.stdout);
    let is_right = output.status.success();
    if is_right {
        println!("{target:11} ok   {}", said.trim());
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        let kept = keep(target, &current);
        // In one go, so that what others print does not come in between.
        println!(
            "{target:11} FAIL {}\n{}\nthe input is {}; again: cargo run -p bellwire-fuzz -- {}",
            output.status,
            errors.chars().take(SHOWN_CHARS_MAX).collect::<String>().trim(),
            kept.display(),
            kept.display()
        );
    }
    // Gone already if it was kept.
    let _ = std::fs::remove_file(&current);
    is_right
}

fn start(target: &str, seed: u64, seconds: u64, current: &std::path::Path) -> Output {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .arg("--worker")
        .arg(current)
        .args([target, "--seed", &seed.to_string()])
        .env("FUZZ_SECONDS", seconds.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program starts again");
    // Held open until the other end has ended.
    let held = child.stdin.take();
    let output = child.wait_with_output().expect("a child that can be waited for");
    drop(held);
    output
}

/// Keeps the input that the process was busy with when it ended, under a name that says whose it is.
fn keep(target: &str, current: &std::path::Path) -> PathBuf {
    let input = worker::read_current(current).unwrap_or_default();
    let path = findings().join(format!("{target}-{:016x}", feature(&input)));
    std::fs::write(&path, input).expect("a folder for findings that can be written");
    path
}
