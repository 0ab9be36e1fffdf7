//! `bellwire config`: what is in effect and where it comes from, and a file to begin with.

use clap::{Args, Subcommand};

use crate::cli::ConfigArgs;
use crate::config::{Config, Layers, reference, show};
use crate::exit::Exit;
use crate::terminal;

#[derive(Debug, Args)]
pub struct ConfigurationArgs {
    #[command(subcommand)]
    pub command: ConfigurationCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigurationCommand {
    /// Print every key, its effective value (secrets redacted), and where it comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a commented bellwire.toml with every default
    Default,
}

/// # Errors
/// The configuration is wrong.
pub fn run(args: &ConfigurationArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let ConfigurationCommand::Show { json } = args.command else {
        terminal::line(reference::default_file().trim_end())?;
        return Ok(Exit::Ok);
    };
    let layers = Layers::gather(&config.sources(&[])?)?;
    // Values are checked too, so that what is shown is what would run.
    Config::read(&layers)?;
    let shown = show::effective(&layers);
    let text = if json {
        serde_json::to_string_pretty(&shown)?
    } else {
        let rows = shown.into_iter().map(|shown| vec![shown.key.to_owned(), shown.value, shown.origin]);
        terminal::table(&["KEY", "VALUE", "FROM"], rows)
    };
    terminal::line(&text)?;
    Ok(Exit::Ok)
}
