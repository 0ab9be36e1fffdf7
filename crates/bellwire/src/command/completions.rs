//! `bellwire completions`: a script for the shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::terminal;

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Your shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// # Errors
/// Standard output is closed.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bellwire", &mut script);
    terminal::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Ok)
}
