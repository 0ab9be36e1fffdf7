//! `bellwire endpoint`: endpoints of an application.

use clap::{Args, Subcommand};
use serde_json::json;

use super::list::{self, PageArgs};
use super::load;
use crate::cli::ConfigArgs;
use crate::client::{Api, ServerArgs};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub struct EndpointArgs {
    #[command(subcommand)]
    pub command: EndpointCommand,
}

#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// List the endpoints of an application
    List {
        /// The application's id or uid
        #[arg(long, value_name = "APPLICATION")]
        app: String,
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one endpoint
    Get {
        /// The application's id or uid
        #[arg(long, value_name = "APPLICATION")]
        app: String,
        /// Its id or uid
        endpoint: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Create an endpoint
    Create {
        /// The application's id or uid
        #[arg(long, value_name = "APPLICATION")]
        app: String,
        /// Where deliveries go
        #[arg(long)]
        url: String,
        /// Only messages of this event type; may be repeated
        #[arg(long, value_name = "TYPE")]
        event_type: Vec<String>,
        /// Only messages in this channel; may be repeated
        #[arg(long)]
        channel: Vec<String>,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// Your own id of it
        #[arg(long)]
        uid: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// # Errors
/// The server's.
pub async fn run(args: &EndpointArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = load(config)?;
    match &args.command {
        EndpointCommand::List { app, page, server } => {
            let columns = [
                ("ID", "id"),
                ("UID", "uid"),
                ("URL", "url"),
                ("DISABLED", "disabled"),
                ("EVENT TYPES", "filterTypes"),
                ("CREATED", "createdAt"),
            ];
            page.print(&Api::new(server, &config)?, &["app", app, "endpoint"], Vec::new(), &columns).await
        }
        EndpointCommand::Get { app, endpoint, json, server } => {
            list::get(&Api::new(server, &config)?, &["app", app, "endpoint", endpoint], Vec::new(), *json).await
        }
        EndpointCommand::Create { app, url, event_type, channel, description, uid, json, server } => {
            let mut body = json!({ "url": url, "description": description });
            if !event_type.is_empty() {
                body["filterTypes"] = json!(event_type);
            }
            if !channel.is_empty() {
                body["channels"] = json!(channel);
            }
            if let Some(uid) = uid {
                body["uid"] = json!(uid);
            }
            list::create(&Api::new(server, &config)?, &["app", app, "endpoint"], &body, *json).await
        }
    }
}
