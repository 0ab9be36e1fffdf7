//! What can be asked on the command line, and `docs/cli.md` made of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::command::{
    application, attempt, bench_receiver, completions, configuration, demo, doctor, endpoint, key, message, migrate, provider,
    send, serve, sign, source, verify,
};
use crate::config::Sources;
use crate::config::error::ConfigError;
use crate::exit;

/// Sends your webhooks: signed, at least once, repeated until they arrive
#[derive(Debug, Parser)]
#[command(name = "bellwire", version, propagate_version = false, disable_help_subcommand = true)]
#[command(after_help = "`--help` also lists the exit codes. Every setting: `bellwire config default`.", after_long_help = exit::help())]
pub struct Cli {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file; default: bellwire.toml in the current folder, if it is there
    #[arg(
        long,
        value_name = "FILE",
        env = "BELLWIRE_CONFIG",
        hide_env_values = true,
        global = true,
        help_heading = "Configuration"
    )]
    pub config: Option<PathBuf>,
    /// Where the data is
    #[arg(long, value_name = "FOLDER", global = true, help_heading = "Configuration")]
    pub data_dir: Option<String>,
    /// The store: postgres://user@host/database, or sqlite://FOLDER; a password is safer in BELLWIRE_STORAGE__URL
    #[arg(long, value_name = "URL", global = true, help_heading = "Configuration")]
    pub database: Option<String>,
    /// Set any key, such as --set delivery.request_timeout=10s
    #[arg(long, value_name = "KEY=VALUE", global = true, help_heading = "Configuration")]
    pub set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(serve::ServeArgs),
    /// Show everything at work: a temporary server, a receiver, and real payloads going through
    Demo(demo::DemoArgs),
    /// Make, list and revoke API keys
    Key(key::KeyArgs),
    /// Publish a message
    Send(send::SendArgs),
    /// Applications
    App(application::ApplicationArgs),
    /// Endpoints of an application
    Endpoint(endpoint::EndpointArgs),
    /// Messages of an application
    Message(message::MessageArgs),
    /// Attempts to deliver
    Attempt(attempt::AttemptArgs),
    /// Ways in: sources, each with a URL for a provider
    Source(source::SourceArgs),
    /// Whether a webhook is genuine, and why not
    ///
    /// Nothing is sent anywhere. Exit code 0: genuine; 1: refused, with one of the stable reasons.
    Verify(verify::VerifyArgs),
    /// Sign a request as a provider would, to try a receiver
    ///
    /// Prints method, URL, headers, an empty line and the body; without --body that is the provider's example request. The first
    /// secret signs; where a private key does, it is PKCS#8 in PEM, or whsk_.
    Sign(sign::SignArgs),
    /// Providers whose webhooks can be verified
    Provider(provider::ProviderCommands),
    /// The configuration in effect, and a file to begin with
    Config(configuration::ConfigurationArgs),
    /// Check store, disk, clock and configuration
    Doctor(doctor::DoctorArgs),
    /// Move an embedded store into a PostgreSQL database; interrupted, it goes on when it is run again
    Migrate(migrate::MigrateArgs),
    /// Measure what this machine can do
    Bench(BenchArgs),
    /// Print a script for your shell that completes commands
    Completions(completions::CompletionsArgs),
    /// The receiving process of the bench
    #[command(hide = true)]
    BenchReceiver(bench_receiver::BenchReceiverArgs),
}

impl ConfigArgs {
    /// The layers to read, with more flags of the command itself: (flag, key, value).
    ///
    /// # Errors
    /// `--set` without `=`.
    pub fn sources(&self, flags: &[(&str, &str, Option<String>)]) -> Result<Sources, ConfigError> {
        let mut all = Vec::new();
        for text in &self.set {
            let (key, value) = text.split_once('=').ok_or_else(|| ConfigError::SetForm { text: text.clone() })?;
            all.push(("--set".to_owned(), key.trim().to_owned(), value.to_owned()));
        }
        let own = [("--data-dir", "data_dir", self.data_dir.clone()), ("--database", "storage.url", self.database.clone())];
        for (flag, key, value) in own.iter().chain(flags) {
            if let Some(value) = value {
                all.push(((*flag).to_owned(), (*key).to_owned(), value.clone()));
            }
        }
        let text = |text: OsString| text.to_string_lossy().into_owned();
        Ok(Sources {
            file: self.config.clone().filter(|path| !path.as_os_str().is_empty()),
            folder: PathBuf::from("."),
            variables: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            flags: all,
        })
    }
}

/// `docs/cli.md`.
#[cfg(test)]
fn page() -> String {
    use clap::CommandFactory as _;

    let mut out = String::from(
        "# Commands\n\n<!-- Generated from crates/bellwire/src/cli.rs: UPDATE=1 cargo test -p bellwire writes it. -->\n\n\
         Commands that talk to a running server take its address from `--server` or `BELLWIRE_SERVER` and a key from `--token` or\n\
         `BELLWIRE_TOKEN`. `--json` is for programs; tables are for people and may change.\n",
    );
    let mut command = Cli::command().term_width(100);
    command.build();
    describe(&mut command, "bellwire", &mut out);
    out
}

#[cfg(test)]
fn describe(command: &mut clap::Command, name: &str, out: &mut String) {
    use std::fmt::Write as _;

    let help = command.clone().color(clap::ColorChoice::Never).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = writeln!(out, "\n## `{name}`\n\n```text\n{}\n```", help.join("\n").trim_end());
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{name} {}", sub.get_name());
        describe(sub, &name, out);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Broken: `docs/cli.md` describes another program than this one. `UPDATE=1` writes it anew.
    #[test]
    fn the_documentation_is_generated_from_the_help() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let page = page();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "run: UPDATE=1 cargo test -p bellwire");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Broken: a mistyped `--set` is passed over.
    #[test]
    fn set_needs_a_key_and_a_value() {
        let args = ConfigArgs { set: vec!["listen".to_owned()], ..ConfigArgs::default() };
        assert!(matches!(args.sources(&[]), Err(ConfigError::SetForm { .. })));
        let args = ConfigArgs { set: vec!["listen=a=b".to_owned()], data_dir: Some("d".to_owned()), ..ConfigArgs::default() };
        let flags = args.sources(&[("--listen", "listen", None)]).unwrap().flags;
        assert_eq!(flags[0], ("--set".to_owned(), "listen".to_owned(), "a=b".to_owned()));
        assert_eq!(flags[1].1, "data_dir");
    }
}
