//! The bench's child processes, and what the kernel says about them: processor time, memory, disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// USER_HZ: the unit of times in `/proc/PID/stat`, 100 on every platform that Rust's Linux targets have.
const TICKS_PER_SECOND: f64 = 100.0;
/// Lines of a child's output waiting to be read.
const LINES_MAX: usize = 1_024;

/// A child process of this very executable. It ends when the handle is dropped, at the latest.
pub struct Process {
    child: Child,
    /// Held open: children end when it closes.
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    name: &'static str,
}

impl Process {
    /// Starts `bellwire <args>` with these variables and no other `BELLWIRE_` ones, in `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &'static str, args: &[&str], variables: &[(&str, String)], folder: &Path) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("this program's own file cannot be found")?;
        let mut command = Command::new(executable);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("BELLWIRE_") {
                command.env_remove(variable);
            }
        }
        command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().with_context(|| format!("the {name} cannot be started"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a child without output")?;
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { child, stdin, lines, name })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that `found` makes something of.
    ///
    /// # Errors
    /// The process ended, or said nothing of the kind in time.
    pub fn wait_line<T>(&mut self, timeout: Duration, mut found: impl FnMut(&str) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(value) = found(&line) {
                        return Ok(value);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("the {} did not start within {timeout:?}", self.name),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!("the {} ended at its start ({status})", self.name);
                }
            }
        }
    }

    /// Asks it to end (by closing its input) and waits; kills it at the end of `grace`.
    ///
    /// # Errors
    /// It had to be killed, or failed.
    pub fn stop(mut self, grace: Duration) -> anyhow::Result<()> {
        self.stdin = None;
        let deadline = Instant::now() + grace;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("the {} ended with {status}", self.name);
                }
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the {} did not stop within {grace:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // It may end by itself in between: then there is nothing to kill.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Processor time of a process so far, user and system, all its threads.
pub fn cpu_seconds(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    parse_cpu_ticks(&stat).map_or(0.0, |ticks| ticks as f64 / TICKS_PER_SECOND)
}

/// Processor time so far of a process and of all its children, those that have ended included: what a database server of one
/// process a connection has used.
pub fn family_cpu_seconds(pid: u32) -> f64 {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let ticks = pids.filter_map(of).filter_map(|stat| {
        let own = parse_cpu_ticks(&stat)?;
        let (found, parent) = (parse_field(&stat, 0)?, parse_field(&stat, 3)?);
        let is_family = found == u64::from(pid) || parent == u64::from(pid);
        // cutime and cstime: the 16th and 17th field.
        is_family.then(|| own + parse_field(&stat, 15).unwrap_or(0) + parse_field(&stat, 16).unwrap_or(0))
    });
    ticks.sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// The process that started this one of PostgreSQL's; `None` if it is not one of this machine.
pub fn postmaster_of(backend: u32) -> Option<u32> {
    let is_postgres =
        |pid: u64| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end().starts_with("postgres"));
    let stat = std::fs::read_to_string(format!("/proc/{backend}/stat")).ok()?;
    let parent = parse_field(&stat, 3)?;
    (is_postgres(u64::from(backend)) && is_postgres(parent)).then(|| u32::try_from(parent).ok())?
}

/// A field of `/proc/PID/stat` by its number, from 0 (proc(5) counts from 1).
fn parse_field(stat: &str, number: usize) -> Option<u64> {
    match number {
        0 => stat.split_ascii_whitespace().next()?.parse().ok(),
        _ => stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().nth(number.checked_sub(2)?)?.parse().ok(),
    }
}

/// The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field after it (proc(5)).
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory now, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// What a folder takes on the disk (allocated blocks, as `du` counts).
pub fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Whether a folder is in memory, where a sync costs nothing and proves nothing.
pub fn is_in_memory(folder: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    rustix::fs::statfs(folder).is_ok_and(|fs| matches!(fs.f_type as u64, TMPFS_MAGIC | RAMFS_MAGIC))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: processor time is read from the wrong field, or a process with a strange name has none.
    #[test]
    fn processor_time_is_user_and_system_together() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 4 0 100 1 1";
        assert_eq!(parse_cpu_ticks(stat), Some(175));
        assert_eq!(parse_cpu_ticks("nonsense"), None);
        assert_eq!((parse_field(stat, 0), parse_field(stat, 3), parse_field(stat, 13)), (Some(42), Some(1), Some(150)));
        assert!(family_cpu_seconds(std::process::id()) >= 0.0 && postmaster_of(std::process::id()).is_none());
        assert!(resident_bytes(std::process::id()) > 1_000_000);
    }

    #[test]
    fn a_folder_is_measured_with_what_is_below_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        std::fs::write(folder.path().join("below/file"), vec![1; 100_000]).unwrap();
        std::fs::File::open(folder.path().join("below/file")).unwrap().sync_all().unwrap();
        assert!((100_000..1_000_000).contains(&disk_bytes(folder.path())), "{}", disk_bytes(folder.path()));
    }
}
