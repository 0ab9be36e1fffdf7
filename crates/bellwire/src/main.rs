//! The binary: reads the command line, wires configuration, store, engine and API, and ends with a documented exit code.
//!
//! `cli` says what can be asked, `command/` has one file for each command, `config/` one for each section, `lifecycle` starts
//! and stops a server, `exit` has the exit codes. `bench/` and `demo/` are programs of their own on top of these.

mod bench;
mod cli;
mod client;
mod command;
mod config;
mod demo;
mod exit;
mod lifecycle;
mod presets;
mod receiver;
mod signal;
mod telemetry;
mod terminal;
mod vault;

use std::process::ExitCode;

use clap::Parser as _;

use exit::Exit;

fn main() -> ExitCode {
    bellwire_allocator::configure();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nothing can be done about a closed pipe.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    match command::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) if is_closed_pipe(&error) => Exit::Ok.into(),
        Err(error) => {
            let exit = exit::code_of(&error);
            eprintln!("error: {}", terminal::escaped_lines(&exit::text_of(&error)));
            exit.into()
        }
    }
}

/// The reader of our output has seen enough (`bellwire app list | head`).
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}
