//! One target in a process of its own: a seeded loop of changed inputs. What it is busy with always lies in a file, so that it is known
//! whatever becomes of the process.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bellwire_fuzz::mutation::{Random, mutate};
use bellwire_fuzz::{Target, target};

/// An input that takes more of a processor is a finding: a stranger could keep it busy. (Debug builds.)
const INPUT_SECONDS_MAX: u64 = 10;
/// One that takes longer by the clock hangs, however busy the machine is with other things.
const HANGING_SECONDS: u64 = 180;
/// Of `/proc/self/stat`, the same on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;
/// Inputs that led somewhere new and are mutated further, in number and bytes.
const CORPUS_MAX: usize = 20_000;
const CORPUS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Inputs above this are changed seldom: thousands of small ones are tried in the time of one of them.
const SMALL_BYTES: usize = 4 * 1024;
/// One of so many changed inputs may be a large one.
const LARGE_EVERY: usize = 256;

static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Runs until the time is over, an input fails, or whoever started this process is gone. Prints what it did.
pub fn run(name: &str, seed: u64, seconds: u64, current: &Path) -> ExitCode {
    std::thread::spawn(end_with_parent);
    std::thread::spawn(watch);
    let file = File::create(current).expect("a file for the current input");
    let start = Instant::now();
    let Done { features, kept, kept_bytes } = rounds(target(name), seed, Duration::from_secs(seconds), &file);
    let (inputs, ms) = (ROUNDS.load(Ordering::Relaxed), u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
    let rate = inputs * 1_000 / ms.max(1);
    println!("{inputs:9} inputs {rate:7}/s {features:6} features {kept:6} kept ({} KiB)", kept_bytes / 1024);
    ExitCode::SUCCESS
}

fn end_with_parent() {
    // Nothing is ever written to it: this returns when the other end is closed.
    let _ = io::stdin().read(&mut [0]);
    std::process::exit(1);
}

/// Ends the process when an input takes too long.
fn watch() {
    let (mut last, mut since, mut ticks) = (0, Instant::now(), 0);
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let round = ROUNDS.load(Ordering::Relaxed);
        if round != last {
            (last, since, ticks) = (round, Instant::now(), processor_ticks());
            continue;
        }
        let is_busy = processor_ticks().saturating_sub(ticks) > INPUT_SECONDS_MAX * TICKS_PER_SECOND;
        if round > 0 && (is_busy || since.elapsed() > Duration::from_secs(HANGING_SECONDS)) {
            eprintln!("an input takes more than {INPUT_SECONDS_MAX} s of a processor, or hangs");
            std::process::exit(1);
        }
    }
}

/// What this process has used of processors; 0 where that is not told.
fn processor_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, which may hold anything: utime and stime are the 12th and 13th.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

struct Done {
    /// Different things that happened.
    features: usize,
    /// Inputs that are mutated further, those to begin with included.
    kept: usize,
    kept_bytes: usize,
}

/// Tries the seeds as they are, then changed ones, until the time is over.
fn rounds(target: &Target, seed: u64, length: Duration, file: &File) -> Done {
    let (mut random, end) = (Random::new(seed), Instant::now() + length);
    let (mut corpus, mut seen) = ((target.seeds)(), HashSet::new());
    assert!(!corpus.is_empty(), "{} has no seeds", target.name);
    let mut run = |input: &[u8]| {
        write_current(file, input).expect("a file for the current input");
        ROUNDS.fetch_add(1, Ordering::Relaxed);
        seen.insert((target.run)(input)).then_some(seen.len())
    };
    let mut features = corpus.iter().filter_map(|input| run(input)).max().unwrap_or_default();
    let mut bytes: usize = corpus.iter().map(Vec::len).sum();
    while Instant::now() < end {
        let (one, other) = (pick(&mut random, &corpus), pick(&mut random, &corpus));
        let input = mutate(&mut random, &corpus[one], &corpus[other]);
        if let Some(count) = run(&input) {
            features = count;
            if corpus.len() < CORPUS_MAX && bytes + input.len() <= CORPUS_BYTES_MAX {
                bytes += input.len();
                corpus.push(input);
            }
        }
    }
    Done { features, kept: corpus.len(), kept_bytes: bytes }
}

fn pick(random: &mut Random, corpus: &[Vec<u8>]) -> usize {
    let mut at = random.below(corpus.len());
    // In a corpus of large ones only, one of them it is.
    for _ in 0..8 {
        if corpus[at].len() <= SMALL_BYTES || random.below(LARGE_EVERY) == 0 {
            break;
        }
        at = random.below(corpus.len());
    }
    at
}

/// Length, then bytes; what is behind them is left over from longer inputs.
fn write_current(file: &File, input: &[u8]) -> io::Result<()> {
    file.write_all_at(&u64::try_from(input.len()).unwrap_or(u64::MAX).to_le_bytes(), 0)?;
    file.write_all_at(input, 8)
}

/// What [`run`] was busy with, from its file.
pub fn read_current(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    let Some((length, input)) = bytes.split_first_chunk() else { return Ok(Vec::new()) };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    Ok(input[..length.min(input.len())].to_vec())
}
