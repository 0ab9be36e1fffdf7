//! `bellwire attempt`: what was sent to an endpoint, or for a message, and what came back.

use clap::{Args, Subcommand, ValueEnum};

use super::list::{self, PageArgs};
use super::load;
use crate::cli::ConfigArgs;
use crate::client::{Api, ServerArgs};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub struct AttemptArgs {
    #[command(subcommand)]
    pub command: AttemptCommand,
}

/// The status of an attempt, with the number the API has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusArg {
    Success = 0,
    Pending = 1,
    Fail = 2,
    Sending = 3,
    Canceled = 4,
}

#[derive(Debug, Subcommand)]
pub enum AttemptCommand {
    /// List attempts of an endpoint or of a message, newest first
    List {
        /// The application's id or uid
        #[arg(long, value_name = "APPLICATION")]
        app: String,
        /// Of this endpoint
        #[arg(long, required_unless_present = "message", conflicts_with = "message")]
        endpoint: Option<String>,
        /// Of this message
        #[arg(long)]
        message: Option<String>,
        /// Only with this status
        #[arg(long, value_enum)]
        status: Option<StatusArg>,
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one attempt
    Get {
        /// The application's id or uid
        #[arg(long, value_name = "APPLICATION")]
        app: String,
        /// The message
        #[arg(long)]
        message: String,
        /// Its id
        attempt: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// # Errors
/// The server's.
pub async fn run(args: &AttemptArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = load(config)?;
    match &args.command {
        AttemptCommand::List { app, endpoint, message, status, page, server } => {
            let mut query = Vec::new();
            query.extend(status.map(|status| ("status", (status as u8).to_string())));
            let columns = [
                ("ID", "id"),
                ("MESSAGE", "msgId"),
                ("ENDPOINT", "endpointId"),
                ("STATUS", "statusText"),
                ("HTTP", "responseStatusCode"),
                ("MS", "responseDurationMs"),
                ("TIME", "timestamp"),
            ];
            let (kind, id) = match (endpoint, message) {
                (Some(endpoint), _) => ("endpoint", endpoint),
                (None, message) => ("msg", message.as_ref().unwrap_or(app)),
            };
            page.print(&Api::new(server, &config)?, &["app", app, "attempt", kind, id], query, &columns).await
        }
        AttemptCommand::Get { app, message, attempt, json, server } => {
            list::get(&Api::new(server, &config)?, &["app", app, "msg", message, "attempt", attempt], Vec::new(), *json).await
        }
    }
}
