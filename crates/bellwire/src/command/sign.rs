//! `bellwire sign`: a request signed as its provider would sign it, for trying receivers.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwire_verify::{Credentials, Preset, Request, Signed};
use clap::Args;
use serde_json::{Value, json};

use super::webhook::{ProviderArgs, RequestArgs};
use crate::exit::{Exit, Failure};
use crate::terminal;

#[derive(Debug, Args)]
pub struct SignArgs {
    #[command(flatten)]
    pub provider: ProviderArgs,
    #[command(flatten)]
    pub request: RequestArgs,
    /// Print the headers only, as `curl -H @-` reads them
    #[arg(long, conflicts_with = "json")]
    pub headers_only: bool,
    /// Print JSON; the body as text, or as base64 where it is none
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// The command line or a file cannot be used, or requests of this provider cannot be signed with what is given.
pub fn run(args: &SignArgs) -> anyhow::Result<Exit> {
    let preset = args.provider.preset()?;
    let (signed, is_elsewhere) = sign(&preset, &args.provider, &args.request)?;
    if args.json {
        terminal::line(&serde_json::to_string_pretty(&as_json(&signed))?)?;
        return Ok(Exit::Ok);
    }
    let mut out = Vec::new();
    if !args.headers_only {
        writeln!(out, "{} {}", signed.method, signed.url)?;
    }
    for (name, value) in &signed.headers {
        out.extend_from_slice(format!("{name}: ").as_bytes());
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    if !args.headers_only {
        out.push(b'\n');
        out.extend_from_slice(&signed.body);
    } else if is_elsewhere {
        let text = format!("{} signs in the body or the URL: take the whole request, without --headers-only", preset.name());
        return Err(Failure::new(Exit::Usage, text).into());
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()?;
    Ok(Exit::Ok)
}

/// The signed request, and whether the signature stands outside of its headers.
fn sign(preset: &Preset, provider: &ProviderArgs, args: &RequestArgs) -> anyhow::Result<(Signed, bool)> {
    let (mut headers, body, example) = (args.headers()?, args.body()?, preset.example());
    let mut credentials = provider.credentials()?;
    let method = if body.is_none() { example.method.to_owned() } else { args.method() };
    if body.is_none() {
        let is_given = |name: &str, headers: &[(&str, &[u8])]| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        for (name, value) in &example.headers {
            if !is_given(name, &headers) {
                headers.push((name, value.as_bytes()));
            }
        }
        credentials = with_example_settings(credentials, provider, preset);
    }
    let url = args.url.clone().unwrap_or_else(|| example.url.clone());
    let body = body.unwrap_or_else(|| example.body.as_bytes().to_vec());
    let peer = args.peer.or(example.peer);
    let request = Request { method: &method, url: &url, headers: &headers, body: &body, peer };
    let signed = preset.sign(&request, &credentials, args.now_s());
    let signed =
        signed.map_err(|refusal| Failure::new(Exit::Failure, format!("{}: {}: {refusal}", preset.id(), refusal.code())))?;
    let is_elsewhere = signed.body != body || signed.url != url;
    Ok((signed, is_elsewhere))
}

/// The example's settings, but for those that were given.
fn with_example_settings(credentials: Credentials, provider: &ProviderArgs, preset: &Preset) -> Credentials {
    let is_given = |name: &str| provider.setting.iter().any(|text| text.split('=').next().map(str::trim) == Some(name));
    let example = preset.example();
    example.settings.iter().filter(|(name, _)| !is_given(name)).fold(credentials, |all, (name, value)| all.setting(name, value))
}

fn as_json(signed: &Signed) -> Value {
    let headers: serde_json::Map<String, Value> =
        signed.headers.iter().map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into())).collect();
    let mut shown = json!({ "method": signed.method, "url": signed.url, "headers": headers });
    match std::str::from_utf8(&signed.body) {
        Ok(text) => shown["body"] = text.into(),
        Err(_) => shown["bodyBase64"] = STANDARD.encode(&signed.body).into(),
    }
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: what `sign` prints is not what `verify` takes.
    #[test]
    fn signed_bodies_keep_their_bytes_and_verify() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("body");
        std::fs::write(&path, b"{ \"id\" : 1.10 }\n").unwrap();
        let provider = ProviderArgs { provider: Some("stripe".into()), secret: vec!["s".into()], ..Default::default() };
        let args = RequestArgs { method: "post".into(), body: Some(path), now: Some(1_700_000_000), ..Default::default() };
        let preset = provider.preset().unwrap();
        let (signed, is_elsewhere) = sign(&preset, &provider, &args).unwrap();
        assert!(!is_elsewhere);
        assert_eq!((signed.method.as_str(), signed.body.as_slice()), ("POST", b"{ \"id\" : 1.10 }\n".as_slice()));
        let verdict = signed.with_request(|request| preset.verify(request, &Credentials::secret("s"), 1_700_000_000));
        assert!(verdict.is_ok(), "{verdict:?}");
        assert!(as_json(&signed)["headers"]["Stripe-Signature"].as_str().unwrap().starts_with("t=1700000000,v1="));
    }

    /// Broken: signing without a secret looks as if it had worked.
    #[test]
    fn nothing_is_signed_without_a_secret() {
        let provider = ProviderArgs { provider: Some("paypal".into()), ..Default::default() };
        let error = sign(&provider.preset().unwrap(), &provider, &RequestArgs::default()).unwrap_err();
        assert!(error.to_string().contains("secret_missing"), "{error}");
    }
}
