//! `bellwire bench`: what this machine can do, in one run, for anyone to repeat.
//!
//! Three processes: this one loads, one receives (`receiver`, asked through `receive`), one is the server (`target`), or several
//! are that share a database; what they stand on is made for each phase and removed after it (`ground`). `bare`
//! measures R, the rate of bare signed POSTs; `load` and `gentle` are the closed and the open loop; `phase` watches a load until
//! everything it brought has arrived and is recorded; `source` is received instead of published; `prefill`, `isolation` and `turns` are the longer
//! experiments; `report` prints.
//! Rates drift with the machine, so each phase stands between two measurements of R and is given as a fraction of it.

pub mod bare;
pub mod gentle;
pub mod ground;
pub mod isolation;
pub mod latency;
pub mod load;
pub mod payload;
pub mod phase;
pub mod prefill;
pub mod process;
pub mod push;
pub mod receive;
pub mod receiver;
pub mod report;
pub mod run;
pub mod source;
pub mod target;
pub mod turns;
pub mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What to measure.
///
/// With --database the phases run on the embedded store and on that server, side by side, in databases that the bench makes and
/// removes; --prefill and --isolation then run on that server.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Repeat everything N times and print the medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// Length of each phase's load
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = parse_seconds)]
    pub seconds: f64,
    /// Before it, the same load for this long, which does not count: a server that has just started touches its memory for the first time
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = parse_warm_up)]
    pub warm_up: f64,
    /// Which phases, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Phase::PUBLISHING)]
    pub phases: Vec<Phase>,
    /// Print JSON, with every single measurement
    #[arg(long)]
    pub json: bool,
    /// Load this Svix-compatible server of this machine instead of our own
    #[arg(long, value_name = "URL", requires = "token")]
    pub target: Option<String>,
    /// Its API token
    #[arg(long, value_name = "TOKEN", env = "BELLWIRE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Its process id, to measure processor time and memory
    #[arg(long, value_name = "PID", requires = "target")]
    pub target_pid: Option<u32>,
    /// Where the receiver listens; for a target in a container, an address that it reaches
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub receiver_bind: SocketAddr,
    /// Compare an empty store with one that holds N messages
    #[arg(long, value_name = "N", conflicts_with_all = ["target", "isolation"])]
    pub prefill: Option<u64>,
    /// … of which M wait for a retry
    #[arg(long, value_name = "M", requires = "prefill", default_value_t = 0)]
    pub pending: u64,
    /// Measure by how much one hanging endpoint among 100 moves the others (--runs: rounds)
    #[arg(long)]
    pub isolation: bool,
    /// With --database: measure N nodes on one database too, the load spread over all
    #[arg(long, value_name = "N", conflicts_with_all = ["target", "isolation", "prefill"], default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=16))]
    pub nodes: u32,
    /// With --nodes: one node and N, both up and loaded in turn, T times for --seconds each, and how far the ratio may be off
    #[arg(long, value_name = "T", conflicts_with_all = ["target", "isolation", "prefill", "runs"], default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub turns: u32,
    /// Folder for the stores, on the disk that is to be measured; default: the system's temporary folder
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// A phase of the standard run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// One endpoint, 64 requests in flight, closed loop
    EndToEnd,
    /// Ten endpoints, 64 requests in flight
    FanOut,
    /// One endpoint, 200 messages a second, open loop
    Gentle,
    /// One endpoint, 256 requests in flight
    Deep,
    /// Signed pushes of GitHub to a source, 64 in flight, then half of that rate, open loop
    Receive,
}

impl Phase {
    pub const ALL: [Self; 5] = [Self::EndToEnd, Self::FanOut, Self::Gentle, Self::Deep, Self::Receive];
    /// What every Svix-compatible server can be asked to do; the default.
    pub const PUBLISHING: [Self; 4] = [Self::EndToEnd, Self::FanOut, Self::Gentle, Self::Deep];

    /// As in the report and in progress lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndToEnd => "end-to-end",
            Self::FanOut => "fan-out",
            Self::Gentle => "gentle",
            Self::Deep => "deep",
            Self::Receive => "receive",
        }
    }

    /// How messages are published; `None` if they are received.
    fn shape(self) -> Option<phase::Shape> {
        Some(match self {
            Self::EndToEnd => phase::Shape::Closed { in_flight: 64, fan_out: 1 },
            Self::FanOut => phase::Shape::Closed { in_flight: 64, fan_out: 10 },
            Self::Gentle => phase::Shape::Open { per_second: 200 },
            Self::Deep => phase::Shape::Closed { in_flight: 256, fan_out: 1 },
            Self::Receive => return None,
        })
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("is not a number of seconds from 0.1 to 3600".to_owned()),
    }
}

fn parse_warm_up(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds == 0.0 || (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("is neither 0 nor a number of seconds from 0.1 to 60".to_owned()),
    }
}

/// Threads of the loader, and of the receiver: two processes beside the server share the machine.
pub fn load_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 3).clamp(1, 8))
}
