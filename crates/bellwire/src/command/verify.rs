//! `bellwire verify`: whether a request is genuine, and why not; or a whole file of recorded requests.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bellwire_verify::vectors::{Case, Expect, Outcome};
use bellwire_verify::{Preset, Refusal, Request, Verified, vectors};
use clap::Args;
use serde_json::{Value, json};

use super::webhook::{self, ProviderArgs, RequestArgs};
use crate::exit::Exit;
use crate::terminal;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub provider: ProviderArgs,
    #[command(flatten)]
    pub request: RequestArgs,
    /// How far the timestamp may be from the clock; default: the provider's own rule
    #[arg(long, value_name = "SECONDS")]
    pub tolerance: Option<u64>,
    /// A JSON file of recorded requests and what is expected of them: one line each, exit code 1 if one is judged otherwise
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "preset", "secret", "secret_file", "setting", "certificate",
        "url", "header", "body", "peer", "now", "tolerance", "json"])]
    pub vectors: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// The command line or a file cannot be used. A refused request is no error but the exit code 1.
pub fn run(args: &VerifyArgs) -> anyhow::Result<Exit> {
    if let Some(path) = &args.vectors {
        return run_vectors(path);
    }
    let preset = args.provider.preset()?;
    let mut credentials = args.provider.credentials()?;
    if let Some(seconds) = args.tolerance {
        credentials = credentials.tolerance_s(seconds);
    }
    let (method, headers, body) = (args.request.method(), args.request.headers()?, args.request.body()?.unwrap_or_default());
    let url = args.request.url.clone().unwrap_or_else(|| preset.example().url);
    let request = Request { method: &method, url: &url, headers: &headers, body: &body, peer: args.request.peer };
    let verdict = preset.verify(&request, &credentials, args.request.now_s());
    let exit = if verdict.is_ok() { Exit::Ok } else { Exit::Failure };
    let shown = shown(&preset, &request, &verdict);
    let text = if args.json { serde_json::to_string_pretty(&shown)? } else { line(&preset, &shown, verdict.as_ref().err()) };
    terminal::line(&text)?;
    if !args.json && verdict.is_ok() && !preset.covers_body() {
        eprintln!("note: what {} proves does not cover the whole body", preset.name());
    }
    Ok(exit)
}

fn shown(preset: &Preset, request: &Request<'_>, verdict: &Result<Verified, Refusal>) -> Value {
    match verdict {
        Ok(verified) => {
            let event = preset.event(request);
            json!({
                "ok": true, "provider": preset.id(), "reason": "ok", "coversBody": preset.covers_body(),
                "secret": verified.secret.map(|at| at + 1), "signedAtMs": verified.timestamp_ms,
                "eventType": event.kind, "eventId": event.id,
            })
        }
        Err(refusal) => json!({
            "ok": false, "provider": preset.id(), "reason": refusal.code(), "place": refusal.place(), "detail": refusal.to_string(),
        }),
    }
}

/// `ok stripe secret=1 …` or `FAIL stripe reason=no_match: …`, on one line whatever the request holds.
fn line(preset: &Preset, shown: &Value, refusal: Option<&Refusal>) -> String {
    if let Some(refusal) = refusal {
        return terminal::escaped(&format!("FAIL {} reason={}: {refusal}", preset.id(), refusal.code()));
    }
    let names = [("secret", "secret"), ("signed_at_ms", "signedAtMs"), ("event_type", "eventType"), ("event_id", "eventId")];
    let known = names.iter().filter(|(_, field)| !shown[*field].is_null());
    let parts: Vec<String> = known.map(|(name, field)| format!(" {name}={}", terminal::cell(&shown[*field]))).collect();
    terminal::escaped(&format!("ok {}{}", preset.id(), parts.concat()))
}

fn run_vectors(path: &Path) -> anyhow::Result<Exit> {
    let name = || path.display().to_string();
    let cases: Vec<Value> = serde_json::from_slice(&webhook::read(path)?).with_context(name)?;
    let mut tally = Tally::default();
    for case in &cases {
        terminal::line(&tally.judge(case))?;
    }
    if tally.other_right + tally.other_wrong > 0 {
        terminal::line(&format!("non-normative: {} as expected, {} otherwise", tally.other_right, tally.other_wrong))?;
    }
    terminal::line(&format!("{} ok, {} failed", tally.right, tally.wrong))?;
    if cases.is_empty() {
        eprintln!("{}: no cases", name());
    }
    Ok(if tally.wrong == 0 && !cases.is_empty() { Exit::Ok } else { Exit::Failure })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    right: usize,
    wrong: usize,
    /// Cases where genuine receivers differ.
    other_right: usize,
    other_wrong: usize,
}

impl Tally {
    /// Runs a case, counts it, and returns its line. What is no case counts as a failed one.
    fn judge(&mut self, value: &Value) -> String {
        let (outcome, is_normative) = match serde_json::from_value::<Case>(value.clone()) {
            Ok(case) => (vectors::run(&case), case.is_normative),
            Err(error) => {
                let expect = if value["expect"] == "invalid" { Expect::Invalid } else { Expect::Valid };
                (Outcome { expect, got: Expect::Invalid, reason: "case_malformed", detail: error.to_string() }, true)
            }
        };
        let is_right = outcome.is_right();
        *match (is_normative, is_right) {
            (true, true) => &mut self.right,
            (true, false) => &mut self.wrong,
            (false, true) => &mut self.other_right,
            (false, false) => &mut self.other_wrong,
        } += 1;
        let id = value["id"].as_str().unwrap_or("?");
        let mut line = format!(
            "{} {id} expect={} got={} reason={}",
            if is_right { "ok" } else { "FAIL" },
            word(outcome.expect),
            word(outcome.got),
            outcome.reason
        );
        if !is_normative {
            line.push_str(" (non-normative)");
        }
        if !is_right && !outcome.detail.is_empty() {
            line.push_str(": ");
            line.push_str(&outcome.detail);
        }
        terminal::escaped(&line)
    }
}

fn word(expect: Expect) -> &'static str {
    match expect {
        Expect::Valid => "valid",
        Expect::Invalid => "invalid",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn github(id: &str, signature: &str, expect: &str, is_normative: bool) -> Value {
        json!({
            "id": id, "provider": "github", "secret": "It's a Secret to Everybody", "method": "POST", "url": "https://h.test/",
            "headers": { "X-Hub-Signature-256": signature }, "body": "Hello, World!", "now": 1, "expect": expect,
            "normative": is_normative,
        })
    }

    const RIGHT: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    /// Broken: a wrong judgement is counted as right, or what is not normative fails the run.
    #[test]
    fn cases_are_counted_apart_and_each_has_its_line() {
        let mut tally = Tally::default();
        assert_eq!(tally.judge(&github("a", RIGHT, "valid", true)), "ok a expect=valid got=valid reason=ok");
        let line = tally.judge(&github("b", "sha256=00", "valid", true));
        assert!(line.starts_with("FAIL b expect=valid got=invalid reason=signature_malformed: "), "{line}");
        let line = tally.judge(&github("c", RIGHT, "invalid", false));
        assert_eq!(line, "FAIL c expect=invalid got=valid reason=ok (non-normative)");
        tally.judge(&github("d", "sha256=00", "invalid", false));
        assert_eq!(tally, Tally { right: 1, wrong: 1, other_right: 1, other_wrong: 1 });
    }

    /// Broken: a case that cannot be run passes because it was expected to be refused.
    #[test]
    fn cases_that_cannot_be_run_fail() {
        let mut tally = Tally::default();
        let mut unknown = github("a\u{1b}", RIGHT, "invalid", true);
        unknown["provider"] = json!("nobody");
        assert!(tally.judge(&unknown).starts_with("FAIL a\\u{1b} expect=invalid got=invalid reason=provider_unknown"));
        assert!(tally.judge(&json!({ "id": "b", "expect": "invalid" })).contains("reason=case_malformed"));
        assert_eq!(tally, Tally { wrong: 2, ..Tally::default() });
    }
}
