//! What `verify` and `sign` share: one request and the credentials of its provider, as they are typed.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bellwire_core::{Clock as _, SystemClock};
use bellwire_verify::{Credentials, Preset, Presets};
use clap::Args;

use crate::exit::{Exit, Failure};

/// Bodies, secrets and preset files are read into memory; more than this is a mistake.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whose request it is.
#[derive(Clone, Debug, Default, Args)]
pub struct ProviderArgs {
    /// Whose requests, such as stripe; `bellwire provider list` has all
    #[arg(long, value_name = "ID")]
    pub provider: Option<String>,
    /// A preset file of your own instead of a built-in provider
    #[arg(long, value_name = "FILE", conflicts_with = "provider")]
    pub preset: Option<PathBuf>,
    /// The secret, token or key as the provider shows it; may be repeated. A file is safer: other users see command lines
    #[arg(long, value_name = "TEXT")]
    pub secret: Vec<String>,
    /// A file with the secret or a PEM key; may be repeated
    #[arg(long, value_name = "FILE")]
    pub secret_file: Vec<PathBuf>,
    /// What the provider needs besides, such as webhook_id=1JE4; `bellwire provider show` names them; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub setting: Vec<String>,
    /// A certificate (PEM) and the address it was fetched from; may be repeated
    #[arg(long, value_name = "URL=FILE")]
    pub certificate: Vec<String>,
}

/// The request itself.
#[derive(Clone, Debug, Default, Args)]
pub struct RequestArgs {
    /// Its method
    #[arg(long, default_value = "POST")]
    pub method: String,
    /// The full public URL as configured at the provider, with its query: some providers sign it; default: the preset's example
    #[arg(long)]
    pub url: Option<String>,
    /// A header, such as 'Content-Type: application/json'; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// The raw body, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    pub body: Option<PathBuf>,
    /// Address of the sender, for providers whose addresses are checked
    #[arg(long, value_name = "ADDRESS")]
    pub peer: Option<IpAddr>,
    /// The clock, in seconds since 1970; default: now
    #[arg(long, value_name = "UNIX")]
    pub now: Option<u64>,
}

impl ProviderArgs {
    /// The preset that is meant.
    ///
    /// # Errors
    /// There is no such provider, or the file is no preset.
    pub fn preset(&self) -> anyhow::Result<Preset> {
        match (&self.provider, &self.preset) {
            (Some(id), _) => Ok(built_in(id)?.clone()),
            (None, Some(path)) => {
                let text = String::from_utf8(read(path)?).with_context(|| format!("{} is not text", path.display()))?;
                Ok(Preset::parse(&path.display().to_string(), &text)?)
            }
            (None, None) => Err(usage("whose request? Give --provider ID, or --preset FILE".to_owned()).into()),
        }
    }

    /// Secrets, settings and certificates together.
    ///
    /// # Errors
    /// A file cannot be read, or `=` is missing.
    pub fn credentials(&self) -> anyhow::Result<Credentials> {
        let mut all = self.secret.iter().fold(Credentials::none(), |all, secret| all.and_secret(secret.as_str()));
        for path in &self.secret_file {
            let text = String::from_utf8(read(path)?).with_context(|| format!("{} is not text", path.display()))?;
            all = all.and_secret(text.trim_end_matches(['\r', '\n']));
        }
        for text in &self.setting {
            let (name, value) = text.split_once('=').ok_or_else(|| usage(format!("--setting {text}: write it as NAME=VALUE")))?;
            all = all.setting(name.trim(), value);
        }
        for text in &self.certificate {
            // Addresses may hold `=` in their query, file names seldom do.
            let (url, path) =
                text.rsplit_once('=').ok_or_else(|| usage(format!("--certificate {text}: write it as URL=FILE")))?;
            let pem = String::from_utf8(read(Path::new(path))?).with_context(|| format!("{path} is not PEM"))?;
            all = all.certificate(url, pem);
        }
        Ok(all)
    }
}

impl RequestArgs {
    /// The headers, split at the first colon.
    ///
    /// # Errors
    /// One has no colon.
    pub fn headers(&self) -> Result<Vec<(&str, &[u8])>, Failure> {
        let split = |text: &String| -> Option<(usize, usize)> {
            let at = text.find(':').filter(|at| *at > 0)?;
            Some((at, text.len() - text[at + 1..].trim_start().len()))
        };
        self.header
            .iter()
            .map(|text| match split(text) {
                Some((name, value)) => Ok((text[..name].trim(), text[value..].trim_end().as_bytes())),
                None => Err(usage(format!("--header {text:?}: write it as 'Name: value'"))),
            })
            .collect()
    }

    /// The raw body; `None` when none was named.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn body(&self) -> anyhow::Result<Option<Vec<u8>>> {
        self.body.as_deref().map(read).transpose()
    }

    /// The method, upper-case as on the wire.
    pub fn method(&self) -> String {
        self.method.to_ascii_uppercase()
    }

    pub fn now_s(&self) -> u64 {
        self.now.unwrap_or_else(|| u64::try_from(SystemClock.now().as_millis() / 1_000).unwrap_or_default())
    }
}

/// The built-in preset of that id.
///
/// # Errors
/// There is none; the error names ids that resemble it.
pub fn built_in(id: &str) -> Result<&'static Preset, Failure> {
    let presets = Presets::builtin();
    presets.get(id).ok_or_else(|| {
        let near = presets.resembling(id);
        let hint = if near.is_empty() { String::new() } else { format!(" Did you mean {}?", near.join(", ")) };
        usage(format!("there is no provider {id:?}.{hint} `bellwire provider list` has all"))
    })
}

fn usage(text: String) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// A whole file, or standard input for `-`.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    let length = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).context("standard input")?
    } else {
        let file = std::fs::File::open(path).with_context(name)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(name)?
    };
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(usage(format!("{}: more than {FILE_BYTES_MAX} bytes", name())).into());
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Broken: a header's value is cut at its second colon, or a typing error is passed over.
    #[test]
    fn headers_are_split_at_the_first_colon() {
        let args = RequestArgs { header: vec!["Date: Mon, 01 Jan 2026 00:00:00 GMT".into(), "X:".into()], ..Default::default() };
        let expected: [(&str, &[u8]); 2] = [("Date", b"Mon, 01 Jan 2026 00:00:00 GMT"), ("X", b"")];
        assert_eq!(args.headers().unwrap(), expected);
        for wrong in ["no colon", ": value"] {
            let args = RequestArgs { header: vec![wrong.into()], ..Default::default() };
            assert_eq!(args.headers().unwrap_err().exit, Exit::Usage);
        }
    }

    /// Broken: the newline that editors add to a file becomes part of the secret.
    #[test]
    fn secrets_in_files_lose_their_last_newline_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, " s\n").unwrap();
        let args = ProviderArgs { provider: Some("gitlab".into()), secret_file: vec![path], ..Default::default() };
        let headers: [(&str, &[u8]); 1] = [("X-Gitlab-Token", b" s")];
        let preset = args.preset().unwrap();
        let request =
            bellwire_verify::Request { method: "POST", url: "https://h.test/", headers: &headers, body: b"{}", peer: None };
        let verdict = preset.verify(&request, &args.credentials().unwrap(), 0);
        // Header values are trimmed on the wire, secrets are not: the two differ, and no byte of the secret is lost.
        assert_eq!(verdict.unwrap_err().code(), "no_match");
    }

    /// Broken: who mistypes a provider is not told which there are.
    #[test]
    fn unknown_providers_name_their_neighbours() {
        let message = built_in("strip").unwrap_err().message;
        assert!(message.contains("stripe"), "{message}");
    }
}
