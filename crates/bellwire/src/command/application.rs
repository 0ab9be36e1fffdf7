//! `bellwire app`: applications.

use clap::{Args, Subcommand};
use serde_json::json;

use super::list::{self, PageArgs};
use super::load;
use crate::cli::ConfigArgs;
use crate::client::{Api, ServerArgs};
use crate::exit::Exit;

#[derive(Debug, Args)]
pub struct ApplicationArgs {
    #[command(subcommand)]
    pub command: ApplicationCommand,
}

#[derive(Debug, Subcommand)]
pub enum ApplicationCommand {
    /// List applications
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one application
    Get {
        /// Its id or uid
        application: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Create an application
    Create {
        /// Its name
        #[arg(long)]
        name: String,
        /// Your own id of it, usable wherever its id is
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
pub async fn run(args: &ApplicationArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = load(config)?;
    match &args.command {
        ApplicationCommand::List { page, server } => {
            let columns = [("ID", "id"), ("UID", "uid"), ("NAME", "name"), ("CREATED", "createdAt")];
            page.print(&Api::new(server, &config)?, &["app"], Vec::new(), &columns).await
        }
        ApplicationCommand::Get { application, json, server } => {
            list::get(&Api::new(server, &config)?, &["app", application], Vec::new(), *json).await
        }
        ApplicationCommand::Create { name, uid, json, server } => {
            let mut body = json!({ "name": name });
            if let Some(uid) = uid {
                body["uid"] = json!(uid);
            }
            list::create(&Api::new(server, &config)?, &["app"], &body, *json).await
        }
    }
}
