//! Runs the fuzz targets on a stable toolchain: `cargo run -p bellwire-fuzz -- [--seed N] [TARGET|FILE]…`, or
//! `-- --write-seeds FOLDER` for libFuzzer. A file is tried once, with the target that its name begins with. `FUZZ_SECONDS` (default 10)
//! is how long each target runs. The exit code is 1 if one fails; the input lies in `FUZZ_FINDINGS` (default: the system's temporary
//! folder) then.
#![allow(clippy::expect_used)] // It fails by panicking.

use std::collections::HashSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellwire_fuzz::mutation::{Random, mutate};
use bellwire_fuzz::{TARGETS, Target, feature};

/// An input that takes longer is a finding: a stranger could keep a processor busy with it. (Debug builds on busy machines.)
const INPUT_SECONDS_MAX: u64 = 10;
/// Inputs that led somewhere new and are mutated further.
const CORPUS_MAX: usize = 20_000;

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut seed = 1;
    if let Some(at) = wanted.iter().position(|word| word == "--seed") {
        wanted.remove(at);
        seed = wanted.remove(at).parse().expect("--seed needs a number");
    }
    if let Some(at) = wanted.iter().position(|word| word == "--write-seeds") {
        write_seeds(Path::new(wanted.get(at + 1).expect("--write-seeds needs a folder")));
        return ExitCode::SUCCESS;
    }
    let seconds = std::env::var("FUZZ_SECONDS").ok().map_or(10, |text| text.parse().expect("FUZZ_SECONDS is a number"));
    let (files, names): (Vec<String>, Vec<String>) = wanted.into_iter().partition(|word| Path::new(word).is_file());
    if let Some(unknown) = names.iter().find(|name| !TARGETS.iter().any(|target| target.name == *name)) {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("{unknown} is neither a file nor a target; there are: {}", known.join(" "));
        return ExitCode::from(2);
    }
    let (mut passed, mut failed) = (0, 0);
    let mut count = |is_right: bool| *(if is_right { &mut passed } else { &mut failed }) += 1;
    for file in &files {
        count(try_file(Path::new(file)));
    }
    for target in TARGETS.iter().filter(|target| files.is_empty() && names.is_empty() || names.iter().any(|n| n == target.name)) {
        count(fuzz(target, seed, Duration::from_secs(seconds)));
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// One folder for each target, as libFuzzer reads them.
fn write_seeds(folder: &Path) {
    for target in TARGETS {
        let own = folder.join(target.name);
        std::fs::create_dir_all(&own).expect("a folder that can be written");
        for seed in (target.seeds)() {
            std::fs::write(own.join(format!("{:016x}", feature(&seed))), seed).expect("a folder that can be written");
        }
    }
}

fn try_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let target = TARGETS.iter().find(|target| name.starts_with(target.name)).expect("a file named TARGET-…");
    let data = std::fs::read(path).expect("a readable file");
    catch_unwind(|| (target.run)(&data)).is_ok()
}

/// What the fuzzing thread is busy with.
#[derive(Default)]
struct Current {
    round: AtomicU64,
    input: Mutex<Vec<u8>>,
}

fn fuzz(target: &'static Target, seed: u64, length: Duration) -> bool {
    let current = Arc::new(Current::default());
    let of_thread = current.clone();
    let worker = std::thread::spawn(move || rounds(target, seed, length, &of_thread));
    let (mut last, mut since) = (0, Instant::now());
    while !worker.is_finished() {
        std::thread::park_timeout(Duration::from_millis(50));
        let round = current.round.load(Ordering::Relaxed);
        if round != last {
            (last, since) = (round, Instant::now());
        } else if since.elapsed() > Duration::from_secs(INPUT_SECONDS_MAX) {
            // The thread cannot be stopped; the program ends with it.
            let input = current.input.lock().expect("nobody panics with the lock");
            println!(
                "{:12} FAIL an input takes more than {INPUT_SECONDS_MAX} s: {}",
                target.name,
                keep(target, &input).display()
            );
            std::process::exit(1);
        }
    }
    if let Ok((rounds, corpus)) = worker.join() {
        println!("{:12} ok   {rounds} inputs, {corpus} ways", target.name);
        return true;
    }
    let input = current.input.lock().expect("nobody panics with the lock");
    println!("{:12} FAIL {}", target.name, keep(target, &input).display());
    false
}

/// Tries the seeds as they are, then changed ones, until the time is over. Returns how many, and how many led somewhere new.
fn rounds(target: &Target, seed: u64, length: Duration, current: &Current) -> (u64, usize) {
    let (mut random, end) = (Random::new(seed), Instant::now() + length);
    let (mut corpus, mut seen) = ((target.seeds)(), HashSet::new());
    assert!(!corpus.is_empty(), "{} has no seeds", target.name);
    let mut run = |input: &[u8]| {
        input.clone_into(&mut current.input.lock().expect("nobody panics with the lock"));
        current.round.fetch_add(1, Ordering::Relaxed);
        seen.insert((target.run)(input))
    };
    let mut ways = corpus.iter().filter(|input| run(input)).count();
    while Instant::now() < end {
        let (one, other) = (random.below(corpus.len()), random.below(corpus.len()));
        let input = mutate(&mut random, &corpus[one], &corpus[other]);
        if run(&input) {
            ways += 1;
            if corpus.len() < CORPUS_MAX {
                corpus.push(input);
            }
        }
    }
    (current.round.load(Ordering::Relaxed), ways)
}

fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let folder = std::env::var_os("FUZZ_FINDINGS").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("{}-{:016x}", target.name, feature(&input)));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    written.expect("a folder for findings that can be written");
    path
}
