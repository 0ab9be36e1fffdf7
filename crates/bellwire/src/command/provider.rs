//! `bellwire provider`: whose webhooks can be verified, and what is known about each.

use bellwire_verify::{Confidence, Preset, Presets};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::webhook;
use crate::exit::Exit;
use crate::terminal;

#[derive(Debug, Args)]
pub struct ProviderCommands {
    #[command(subcommand)]
    pub command: ProviderCommand,
}

#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// List the providers whose webhooks can be verified
    List {
        /// Only those of this kind of scheme, such as hmac or jwt
        #[arg(long)]
        family: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what is checked, and how sure that is
    Show {
        /// The provider's id
        provider: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// # Errors
/// There is no such provider, or standard output is closed.
pub fn run(args: &ProviderCommands) -> anyhow::Result<Exit> {
    match &args.command {
        ProviderCommand::List { family, json } => {
            let all = Presets::builtin().iter();
            let found: Vec<&Preset> =
                all.filter(|preset| family.as_deref().is_none_or(|family| preset.family() == family)).collect();
            let text = if *json {
                serde_json::to_string_pretty(&found.iter().map(|preset| facts(preset)).collect::<Vec<_>>())?
            } else {
                let row = |preset: &&Preset| {
                    [preset.id(), preset.name(), preset.family(), preset.confidence().as_str()].map(str::to_owned).to_vec()
                };
                terminal::table(&["ID", "NAME", "FAMILY", "CONFIDENCE"], found.iter().map(row))
            };
            terminal::line(&text)?;
            Ok(Exit::Ok)
        }
        ProviderCommand::Show { provider, json } => {
            let preset = webhook::built_in(provider)?;
            let facts = facts(preset);
            terminal::line(&if *json { serde_json::to_string_pretty(&facts)? } else { text(preset, &facts) })?;
            Ok(Exit::Ok)
        }
    }
}

fn facts(preset: &Preset) -> Value {
    let settings: serde_json::Map<String, Value> = preset
        .settings()
        .iter()
        .map(|(name, setting)| {
            let shown = json!({ "about": setting.about, "default": setting.default, "isRequired": setting.is_required });
            (name.clone(), shown)
        })
        .collect();
    json!({
        "id": preset.id(),
        "name": preset.name(),
        "family": preset.family(),
        "confidence": preset.confidence().as_str(),
        "docs": preset.docs(),
        "signatureIn": preset.signature_places(),
        "toleranceSeconds": preset.tolerance_s(),
        "coversBody": preset.covers_body(),
        "isAsymmetric": preset.is_asymmetric(),
        "handshake": preset.handshake(),
        "contentTypes": preset.content_types(),
        "settings": settings,
        "notes": preset.notes(),
    })
}

/// The facts in sentences.
fn text(preset: &Preset, facts: &Value) -> String {
    let mut rows = vec![
        ("id", preset.id().to_owned()),
        ("name", preset.name().to_owned()),
        ("family", preset.family().to_owned()),
        ("confidence", format!("{}: {}", preset.confidence().as_str(), sureness(preset.confidence()))),
        ("documentation", preset.docs().to_owned()),
        ("signature in", preset.signature_places().join(", ")),
        (
            "covers the body",
            if preset.covers_body() { "yes" } else { "no: the body is as trustworthy as the connection" }.to_owned(),
        ),
        (
            "timestamp",
            preset.tolerance_s().map_or_else(
                || "not limited: a replay is recognised as a duplicate only".to_owned(),
                |seconds| format!("within {seconds} s of the clock"),
            ),
        ),
        ("content types", terminal::cell(&facts["contentTypes"])),
        ("handshake", preset.handshake().unwrap_or("none").to_owned()),
    ];
    let names: Vec<String> = preset.settings().keys().map(|name| format!("setting {name}")).collect();
    for (title, setting) in names.iter().zip(preset.settings().values()) {
        let need = if setting.is_required { " (required)" } else { "" };
        let default = setting.default.as_ref().map(|value| format!(" (default {value})")).unwrap_or_default();
        rows.push((title, format!("{}{need}{default}", setting.about)));
    }
    if !preset.notes().is_empty() {
        rows.push(("notes", preset.notes().to_owned()));
    }
    terminal::table(&["FIELD", "VALUE"], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]))
}

fn sureness(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Verified => "agrees with requests that a library of the provider, or a well-known one, made or judged",
        Confidence::Docs => "written after the provider's documentation; not tried against the provider",
        _ => "written from memory of the documentation: try it with a real request before you rely on it",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: somebody relies on a preset that nobody has checked, and is not told.
    #[test]
    fn how_sure_a_preset_is_and_what_it_leaves_unproven_is_said() {
        for preset in Presets::builtin().iter() {
            let shown = text(preset, &facts(preset));
            assert!(shown.contains(sureness(preset.confidence())), "{}", preset.id());
            assert_eq!(shown.contains("as trustworthy as the connection"), !preset.covers_body(), "{}", preset.id());
            for name in preset.settings().keys() {
                assert!(shown.contains(&format!("setting {name}")), "{}", preset.id());
            }
        }
    }
}
