//! Runs the binary: to its end, or as a server that is killed when the test ends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Long enough for a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with no `BELLWIRE_` variables but these, in `folder`.
pub fn bellwire(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwire"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BELLWIRE_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").envs(variables.iter().copied()).args(args).current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut child =
        bellwire(folder, variables, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let read = |mut stream: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
        })
    };
    let stdout = read(Box::new(child.stdout.take().expect("stdout")));
    let stderr = read(Box::new(child.stderr.take().expect("stderr")));
    let status = wait(&mut child, PATIENCE).unwrap_or_else(|| {
        child.kill().ok();
        panic!("{args:?} did not end within {PATIENCE:?}")
    });
    Output { status, stdout: stdout.join().expect("stdout"), stderr: stderr.join().expect("stderr") }
}

/// Waits for a child's end.
pub fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` gives something; fails with `what` at the deadline.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running `bellwire serve` on a free port, killed when dropped.
pub struct Server {
    pub child: Child,
    pub url: String,
    /// The first key, if this start made it.
    pub key: Option<String>,
}

impl Server {
    /// Starts on `folder`/data and waits until it says where it listens.
    pub fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut all =
            vec![("BELLWIRE_LISTEN", "127.0.0.1:0"), ("BELLWIRE_DATA_DIR", "data"), ("BELLWIRE_EGRESS__ALLOW", "127.0.0.0/8")];
        all.extend_from_slice(variables);
        let log = std::fs::File::create(folder.join("server.log")).expect("a log");
        let child = bellwire(folder, &all, &["serve"]).stdout(Stdio::piped()).stderr(log).spawn().expect("the server starts");
        let mut server = Self { child, url: String::new(), key: None };
        let stdout = server.child.stdout.take().expect("stdout");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while server.url.is_empty() {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_else(|_| {
                panic!("no server: {}", std::fs::read_to_string(folder.join("server.log")).unwrap_or_default())
            });
            for word in line.split_whitespace() {
                if word.starts_with("bw_") {
                    server.key = Some(word.to_owned());
                } else if word.starts_with("http://") {
                    server.url = word.to_owned();
                }
            }
        }
        server
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits for its end and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait(&mut self.child, PATIENCE).expect("the server ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
