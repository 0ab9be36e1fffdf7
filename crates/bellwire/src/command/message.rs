//! `bellwire message`: messages of an application.

use clap::{Args, Subcommand};

use super::list::{self, PageArgs};
use super::load;
use crate::cli::ConfigArgs;
use crate::client::{Api, ServerArgs};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub struct MessageArgs {
    #[command(subcommand)]
    pub command: MessageCommand,
}

#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// List messages, newest first
    List {
        /// The application's id or uid
        #[arg(long, value_name = "APPLICATION")]
        app: String,
        /// Only of this event type; may be repeated
        #[arg(long, value_name = "TYPE")]
        event_type: Vec<String>,
        /// Only in this channel
        #[arg(long)]
        channel: Option<String>,
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one message with its payload
    Get {
        /// The application's id or uid
        #[arg(long, value_name = "APPLICATION")]
        app: String,
        /// Its id, or your own event id of it
        message: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// # Errors
/// The server's.
pub async fn run(args: &MessageArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = load(config)?;
    match &args.command {
        MessageCommand::List { app, event_type, channel, page, server } => {
            let mut query = vec![("with_content", "false".to_owned())];
            query.extend(event_type.iter().map(|name| ("event_types", name.clone())));
            query.extend(channel.clone().map(|channel| ("channel", channel)));
            let columns = [
                ("ID", "id"),
                ("EVENT TYPE", "eventType"),
                ("EVENT ID", "eventId"),
                ("CHANNELS", "channels"),
                ("TIME", "timestamp"),
            ];
            page.print(&Api::new(server, &config)?, &["app", app, "msg"], query, &columns).await
        }
        MessageCommand::Get { app, message, json, server } => {
            let query = vec![("with_content", "true".to_owned())];
            list::get(&Api::new(server, &config)?, &["app", app, "msg", message], query, *json).await
        }
    }
}
