//! `bellwire demo`.

use std::time::Duration;

use clap::Args;

use super::{Threads, on_threads};
use crate::cli::ConfigArgs;
use crate::demo::{self, Until};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the API listens; a free port if this one is taken
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Publish for N seconds, wait until everything has arrived, and end
    #[arg(long, value_name = "N", conflicts_with = "once", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Publish a few messages, wait until everything has arrived, and end
    #[arg(long)]
    pub once: bool,
}

/// # Errors
/// It does not start, or not everything was delivered.
pub fn run(args: &DemoArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let until = match args.seconds {
        Some(seconds) => Until::Elapsed(Duration::from_secs(seconds)),
        None if args.once => Until::Once,
        None => Until::Interrupted,
    };
    on_threads(Threads::Default, demo::run(config, args.listen.clone(), until))
}
