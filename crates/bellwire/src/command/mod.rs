//! The commands, one file each. A command reads its arguments, does its work, and returns an exit code or an error.

mod affinity;
pub mod application;
pub mod attempt;
pub mod bench_receiver;
pub mod completions;
pub mod configuration;
pub mod demo;
pub mod doctor;
pub mod endpoint;
pub mod key;
pub mod list;
pub mod message;
pub mod migrate;
pub mod provider;
pub mod send;
pub mod serve;
pub mod sign;
pub mod source;
pub mod verify;
pub mod webhook;

use std::future::Future;

use crate::bench;
use crate::cli::{Cli, Command, ConfigArgs};
use crate::config::Config;
use crate::exit::Exit;
use crate::signal::Signals;

/// Runs a command to its end.
///
/// # Errors
/// Whatever kept it from succeeding; `exit::code_of` makes an exit code of it.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    let config = cli.config;
    match cli.command {
        Command::Serve(args) => serve::run(&args, &config),
        Command::Demo(args) => demo::run(&args, &config),
        Command::Key(args) => on_one_thread(key::run(&args, &config)),
        Command::Send(args) => on_one_thread(send::run(&args, &config)),
        Command::App(args) => on_one_thread(application::run(&args, &config)),
        Command::Endpoint(args) => on_one_thread(endpoint::run(&args, &config)),
        Command::Message(args) => on_one_thread(message::run(&args, &config)),
        Command::Attempt(args) => on_one_thread(attempt::run(&args, &config)),
        Command::Source(args) => on_one_thread(source::run(&args, &config)),
        Command::Verify(args) => verify::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Provider(args) => provider::run(&args),
        Command::Config(args) => configuration::run(&args, &config),
        Command::Doctor(args) => on_one_thread(doctor::run(&args, &config)),
        Command::Migrate(args) => on_one_thread(migrate::run(&args, &config)),
        Command::Bench(args) => on_one_thread(measure(args, config.database)),
        Command::Completions(args) => completions::run(&args),
        Command::BenchReceiver(args) => bench_receiver::run(&args),
    }
}

/// Runs the bench. A signal ends it at once, and takes its processes and folders along.
async fn measure(args: bench::BenchArgs, database: Option<String>) -> anyhow::Result<Exit> {
    let mut signals = Signals::install()?;
    tokio::select! {
        result = bench::run::run(args, database) => {
            result?;
            return Ok(Exit::Ok);
        }
        _ = signals.next() => {}
    }
    // The bench has been dropped. Threads that still load would hold up a return.
    std::process::exit(i32::from(Exit::Forced as u8));
}

/// The configuration of commands that add no flags of their own.
fn load(config: &ConfigArgs) -> anyhow::Result<Config> {
    Ok(Config::load(&config.sources(&[])?)?)
}

/// A runtime for commands that wait more than they work.
fn on_one_thread(work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Threads of a server.
enum Threads {
    /// One a processor.
    Default,
    /// One a processor, each on its own where that is worth it: no database runs beside them.
    Spread,
    Count(usize),
}

/// A runtime for servers.
fn on_threads(threads: Threads, work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match threads {
        Threads::Default => {}
        Threads::Spread => affinity::spread(&mut runtime),
        Threads::Count(count) => {
            runtime.worker_threads(count);
        }
    }
    runtime.enable_all().build()?.block_on(work)
}
