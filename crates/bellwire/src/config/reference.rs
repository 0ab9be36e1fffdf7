//! The configuration written out: the commented file of `config default`, and `docs/configuration.md`.

use std::fmt::Write as _;

use super::SECTIONS;
#[cfg(test)]
use super::key::{Key, Secrecy};
use super::layer::FILE_NAME;

/// A `bellwire.toml` in which every key stands commented out with its default.
pub fn default_file() -> String {
    let mut out = format!(
        "# {FILE_NAME}: every key with its default. Remove the # before what you change.\n\
         # Stronger than this file: the environment (BELLWIRE_SECTION__KEY), and flags.\n"
    );
    for (section, about, keys) in SECTIONS {
        out.push('\n');
        comment(&mut out, about);
        if !section.is_empty() {
            let _ = writeln!(out, "[{section}]");
        }
        for key in *keys {
            out.push('\n');
            comment(&mut out, key.about);
            comment(&mut out, &format!("Accepted: {}.", key.accepts));
            let value = if key.default.is_empty() { key.example } else { key.default };
            let _ = writeln!(out, "#{} = {}", key.leaf(), quoted(value));
        }
    }
    out
}

/// `docs/configuration.md`.
#[cfg(test)]
pub fn page() -> String {
    let mut out = format!(
        "# Configuration\n\n\
         <!-- Generated from crates/bellwire/src/config: UPDATE=1 cargo test -p bellwire writes it. -->\n\n\
         Bellwire starts without any configuration. What you change comes from four places, the strongest first:\n\n\
         1. flags: `--listen`, `--data-dir`, `--database`, and `--set section.key=value` for every other key;\n\
         2. environment variables: `BELLWIRE_` and the key in capitals, two underscores after the section;\n\
         3. the file `{FILE_NAME}` in the current folder, or the one named by `--config` or `BELLWIRE_CONFIG`;\n\
         4. the default.\n\n\
         Unknown keys and unknown `BELLWIRE_` variables are refused, with the name that was probably meant. `bellwire config show`\n\
         prints the effective values and where each comes from, `bellwire config default` a commented `{FILE_NAME}`.\n\n\
         Durations are a whole number and a unit: `250ms`, `5s`, `10m`, `2h`, `5d`. Lists are separated by commas; in the file they\n\
         may be arrays.\n"
    );
    for (section, about, keys) in SECTIONS {
        let title = if section.is_empty() { "Server".to_owned() } else { format!("`[{section}]`") };
        let _ = writeln!(out, "\n## {title}\n\n{about}");
        for key in *keys {
            entry(&mut out, key);
        }
    }
    out.push_str(
        "\n## Other variables\n\n\
         `BELLWIRE_CONFIG` names the file; `BELLWIRE_SERVER` and `BELLWIRE_TOKEN` are the address and the credential that the\n\
         commands use which talk to a running server. What Kubernetes sets for a Service called `bellwire` is passed over.\n",
    );
    out
}

#[cfg(test)]
fn entry(out: &mut String, key: &Key) {
    let default = match (key.default, key.secrecy) {
        ("", _) => "none".to_owned(),
        (text, _) => format!("`{text}`"),
    };
    let _ = writeln!(
        out,
        "\n### `{}`\n\n{}\n\n- environment: `{}`\n- accepted: {}\n- default: {default}",
        key.path,
        key.about,
        key.variable(),
        key.accepts
    );
    if key.secrecy == Secrecy::Secret {
        out.push_str("- secret: never shown or logged\n");
    } else if key.default.is_empty() && !key.example.is_empty() {
        let _ = writeln!(out, "- example: `{}`", key.example);
    }
}

fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    out.push('#');
    for word in text.split_whitespace() {
        if width > 0 && width + word.len() > 110 {
            out.push_str("\n#");
            width = 0;
        }
        out.push(' ');
        out.push_str(word);
        width += word.len() + 1;
    }
    out.push('\n');
}

fn quoted(value: &str) -> String {
    if value.parse::<u64>().is_ok() || matches!(value, "true" | "false") {
        value.to_owned()
    } else {
        toml::Value::String(value.to_owned()).to_string()
    }
}
