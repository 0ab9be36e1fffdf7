//! Runs the fuzz targets on a stable toolchain: `cargo run -p bellwire-fuzz -- [--seed N] [--jobs N] [TARGET|FILE]…`, or
//! `-- --write-seeds FOLDER` for libFuzzer. A file is tried once, with the target that its name begins with. `FUZZ_SECONDS` (default 60)
//! is how long each target runs, `--jobs` how many run at a time. The exit code is 1 if one fails; the input lies in `FUZZ_FINDINGS`
//! (default: the system's temporary folder) then.
#![allow(clippy::expect_used)] // It fails by panicking.

mod driver;
mod worker;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bellwire_fuzz::{TARGETS, feature};

/// One after the other would take a quarter of an hour; more at a time than this gain nothing.
const JOBS_MAX: usize = 8;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let seed = take(&mut words, "--seed").map_or(1, |text| text.parse().expect("--seed needs a number"));
    if let Some(current) = take(&mut words, "--worker") {
        return worker::run(&words[0], seed, seconds(), Path::new(&current));
    }
    if let Some(folder) = take(&mut words, "--write-seeds") {
        write_seeds(Path::new(&folder));
        return ExitCode::SUCCESS;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = take(&mut words, "--jobs").map_or(cores, |text| text.parse().expect("--jobs needs a number"));
    let (files, names): (Vec<String>, Vec<String>) = words.into_iter().partition(|word| Path::new(word).is_file());
    if let Some(unknown) = names.iter().find(|name| !TARGETS.iter().any(|target| target.name == *name)) {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("{unknown} is neither a file nor a target; there are: {}", known.join(" "));
        return ExitCode::from(2);
    }
    let tried: Vec<bool> = files.iter().map(|file| try_file(Path::new(file))).collect();
    let is_wanted = |name: &str| files.is_empty() && names.is_empty() || names.iter().any(|wanted| wanted == name);
    let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).filter(|name| is_wanted(name)).collect();
    let fuzzed = driver::run(&targets, seed, seconds(), jobs.clamp(1, JOBS_MAX));
    let failed = tried.iter().chain(&fuzzed).filter(|is_right| !**is_right).count();
    println!("{} passed, {failed} failed", tried.len() + fuzzed.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}

/// Takes an option and its value out of the command line.
fn take(words: &mut Vec<String>, name: &str) -> Option<String> {
    let at = words.iter().position(|word| word == name)?;
    words.remove(at);
    assert!(at < words.len(), "{name} needs a value");
    Some(words.remove(at))
}

fn seconds() -> u64 {
    std::env::var("FUZZ_SECONDS").ok().map_or(60, |text| text.parse().expect("FUZZ_SECONDS is a number"))
}

/// Where inputs that failed are kept.
fn findings() -> PathBuf {
    std::env::var_os("FUZZ_FINDINGS").map_or_else(std::env::temp_dir, PathBuf::from)
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
