//! `bellwire source`: ways in, each with a public URL to enter at a provider.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::list::{self, PageArgs, print_record};
use super::{load, webhook};
use crate::cli::ConfigArgs;
use crate::client::{Api, Call, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::terminal;

#[derive(Debug, Args)]
pub struct SourceArgs {
    #[command(subcommand)]
    pub command: SourceCommand,
}

#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// List sources
    List {
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show one source, its URL and what to know about it
    Get {
        /// Its id or uid
        source: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Create a source and print the URL to enter at the provider
    Create {
        /// Its name
        #[arg(long)]
        name: String,
        /// Whose webhooks it takes (`bellwire provider list`), generic-webhook or cron
        #[arg(long = "type", value_name = "TYPE")]
        kind: String,
        /// The application whose messages it makes; default: one of its own
        #[arg(long, value_name = "APPLICATION")]
        app: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Change a source; what is not named stays
    Update {
        /// Its id or uid
        source: String,
        /// Its name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a source with its log, and its application if that was made for it
    Delete {
        /// Its id or uid
        source: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Give a source another URL; the old one is gone at once
    RotateToken {
        /// Its id or uid
        source: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// What came and became no message of its own: refused, duplicate, quarantined
    Log {
        /// Its id or uid
        source: String,
        #[command(flatten)]
        page: PageArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// What can be said when creating and when changing.
#[derive(Clone, Debug, Default, Args)]
pub struct ChangeArgs {
    /// Your own id of it, usable wherever its id is
    #[arg(long)]
    pub uid: Option<String>,
    /// The secret as the provider shows it; repeated during a rotation. A file is safer: other users see command lines
    #[arg(long, value_name = "TEXT")]
    pub secret: Vec<String>,
    /// A file with the secret or a PEM key, or - for standard input; may be repeated
    #[arg(long, value_name = "FILE|-")]
    pub secret_file: Vec<PathBuf>,
    /// What the provider needs besides, such as webhookId=1JE4; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub setting: Vec<String>,
    /// Rules of the source as JSON, or @file: requireJson, rateLimit, allowedNetworks, duplicates, …
    #[arg(long, value_name = "JSON|@FILE")]
    pub settings: Option<String>,
}

impl ChangeArgs {
    /// The source's config; `None` when nothing of it was named.
    fn config(&self) -> anyhow::Result<Option<Value>> {
        let mut config = Map::new();
        for text in &self.setting {
            let usage = || Failure::new(Exit::Usage, format!("--setting {text}: write it as NAME=VALUE"));
            let (name, value) = text.split_once('=').ok_or_else(usage)?;
            config.insert(name.trim().to_owned(), json!(value));
        }
        let mut secrets = self.secret.clone();
        for path in &self.secret_file {
            let name = || path.display().to_string();
            let text = String::from_utf8(webhook::read(path)?).with_context(|| format!("{} is not text", name()))?;
            secrets.push(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        match secrets.as_slice() {
            [] => {}
            [secret] => drop(config.insert("secret".to_owned(), json!(secret))),
            several => drop(config.insert("secret".to_owned(), json!(several))),
        }
        Ok((!config.is_empty()).then_some(Value::Object(config)))
    }

    fn settings(&self) -> anyhow::Result<Option<Value>> {
        let Some(text) = &self.settings else { return Ok(None) };
        let bytes = match text.strip_prefix('@') {
            Some(path) => webhook::read(Path::new(path))?,
            None => text.clone().into_bytes(),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(Some(value)),
            Ok(_) => Err(Failure::new(Exit::Usage, "--settings is not a JSON object").into()),
            Err(error) => Err(Failure::new(Exit::Usage, format!("--settings is not JSON: {error}")).into()),
        }
    }

    /// The fields of a body that both operations share.
    fn put(&self, body: &mut Value) -> anyhow::Result<()> {
        if let Some(uid) = &self.uid {
            body["uid"] = json!(uid);
        }
        if let Some(config) = self.config()? {
            body["config"] = config;
        }
        Ok(())
    }
}

/// # Errors
/// The server's, or the command line cannot be used.
pub async fn run(args: &SourceArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = load(config)?;
    let ingest = |server: &ServerArgs| Api::new(server, &config).map(Api::ingest);
    match &args.command {
        SourceCommand::List { page, server } => {
            let columns = [("ID", "id"), ("UID", "uid"), ("TYPE", "type"), ("NAME", "name"), ("URL", "ingestUrl")];
            page.print(&ingest(server)?, &["source"], Vec::new(), &columns).await
        }
        SourceCommand::Get { source, json, server } => {
            let path = ["source", source.as_str()];
            show(&ingest(server)?.call(Call { method: "GET", path: &path, ..Call::default() }).await?, *json)
        }
        SourceCommand::Create { name, kind, app, change, json, server } => {
            let mut body = json!({ "name": name, "type": kind });
            change.put(&mut body)?;
            if let Some(app) = app {
                body["appId"] = json!(app);
            }
            if let Some(settings) = change.settings()? {
                body["settings"] = settings;
            }
            let call = Call { method: "POST", path: &["source"], body: Some(body.to_string()), ..Call::default() };
            show(&ingest(server)?.call(call).await?, *json)
        }
        SourceCommand::Update { source, name, change, json, server } => {
            let mut body = json!({});
            change.put(&mut body)?;
            if let Some(name) = name {
                body["name"] = json!(name);
            }
            let settings = change.settings()?;
            if let Some(settings) = settings {
                let path = ["source", source.as_str(), "settings"];
                let call = Call { method: "PATCH", path: &path, body: Some(settings.to_string()), ..Call::default() };
                Api::new(server, &config)?.call(call).await?;
            }
            let path = ["source", source.as_str()];
            let call = Call { method: "PATCH", path: &path, body: Some(body.to_string()), ..Call::default() };
            show(&ingest(server)?.call(call).await?, *json)
        }
        SourceCommand::Delete { source, server } => {
            let path = ["source", source.as_str()];
            ingest(server)?.call(Call { method: "DELETE", path: &path, ..Call::default() }).await?;
            terminal::line(&format!("{} is deleted", terminal::escaped(source)))?;
            Ok(Exit::Ok)
        }
        SourceCommand::RotateToken { source, json, server } => {
            let path = ["source", source.as_str(), "token", "rotate"];
            list::create(&ingest(server)?, &path, &json!({}), *json).await
        }
        SourceCommand::Log { source, page, server } => {
            let columns =
                [("AT", "at"), ("STATUS", "status"), ("REASON", "reason"), ("DUPLICATE OF", "duplicateOf"), ("DETAIL", "detail")];
            page.print(&Api::new(server, &config)?, &["source", source, "log"], Vec::new(), &columns).await
        }
    }
}

/// The source, and its warnings where nobody overlooks them.
fn show(source: &Value, json: bool) -> anyhow::Result<Exit> {
    let (record, warnings) = if json { (source.clone(), Vec::new()) } else { without_warnings(source) };
    let exit = print_record(&record, json)?;
    for warning in warnings {
        eprintln!("warning: {}", terminal::escaped(&warning));
    }
    Ok(exit)
}

fn without_warnings(source: &Value) -> (Value, Vec<String>) {
    let mut source = source.clone();
    let warnings = source.as_object_mut().and_then(|fields| fields.remove("warnings"));
    let texts =
        warnings.as_ref().and_then(Value::as_array).map(|all| all.iter().map(|one| terminal::cell(&one["text"])).collect());
    (source, texts.unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: during a rotation one of the secrets is lost, or a change of the name empties the config.
    #[test]
    fn secrets_and_settings_become_the_config_and_nothing_becomes_nothing() {
        let one = ChangeArgs { secret: vec!["a".into()], setting: vec!["webhookId=1=2".into()], ..Default::default() };
        assert_eq!(one.config().unwrap(), Some(json!({ "secret": "a", "webhookId": "1=2" })));
        let two = ChangeArgs { secret: vec!["a".into(), "b".into()], ..Default::default() };
        assert_eq!(two.config().unwrap(), Some(json!({ "secret": ["a", "b"] })));
        let mut body = json!({});
        ChangeArgs::default().put(&mut body).unwrap();
        assert_eq!(body, json!({}));
        assert!(ChangeArgs { settings: Some("[]".into()), ..Default::default() }.settings().is_err());
    }

    /// Broken: that a source takes anybody's requests is not seen.
    #[test]
    fn warnings_are_taken_out_of_the_record_to_be_shown_by_themselves() {
        let source = json!({ "id": "src_1", "warnings": [{ "code": "unverified", "text": "anybody may send" }] });
        assert_eq!(without_warnings(&source), (json!({ "id": "src_1" }), vec!["anybody may send".to_owned()]));
    }
}
