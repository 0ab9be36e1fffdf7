//! Writes `docs/providers/`, one page a family, from the preset files: what to enter at the provider, what is checked, what is not.
//! `UPDATE=1 cargo test -p bellwire-verify --test it pages` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bellwire_verify::handshake::Flow;
use bellwire_verify::{Confidence, Preset, Presets, fixtures};
use toml::Value;

/// Families in the order of the index, each with its title and what holds for all of its providers.
const FAMILIES: [(&str, &str, &str); 11] = [
    (
        "standard-webhooks",
        "Standard Webhooks",
        "The sender signs id, time and body as the [Standard Webhooks](https://www.standardwebhooks.com) specification says. Damage, other \
         senders and replays after the tolerance are refused; a replay within it is recognised by its id.",
    ),
    (
        "hmac-timestamp",
        "Shared secret over time and body",
        "The sender computes a keyed digest (HMAC) over the request and the time of sending. Damage, other senders and old copies are \
         refused; a copy within the tolerance is recognised as a duplicate.",
    ),
    (
        "hmac",
        "Shared secret over the body",
        "The sender computes a keyed digest (HMAC) over the request. Damage and other senders are refused. Unless the entry names a limit of \
         time, an old copy still verifies: it is recognised as a duplicate only while its event is remembered.",
    ),
    (
        "hash",
        "Plain digest with a secret in it",
        "The sender hashes the request together with a secret. That is weaker than HMAC, but all that these providers offer.",
    ),
    (
        "public-key",
        "Public key",
        "The sender signs with a private key that nobody else has; you hold the public one, so that not even your own configuration can be \
         used to forge a request.",
    ),
    (
        "certificate",
        "Public key in a certificate",
        "As with public keys, but each request says where the certificate is. It is fetched over https, from the provider's hosts only, and \
         kept.",
    ),
    (
        "jwt",
        "Signed token",
        "The sender adds a signed token (JSON Web Token) that expires. Whether it says anything about the body differs: each entry tells.",
    ),
    (
        "token",
        "Shared token",
        "The sender repeats a token that you have agreed on. Who has seen one request can make others: keep the connection encrypted, and \
         restrict networks where the provider publishes its addresses. Neither body nor time is proven.",
    ),
    (
        "basic",
        "User and password",
        "The sender uses basic authentication. Who has seen one request can make others: keep the connection encrypted. Neither body nor time \
         is proven.",
    ),
    (
        "secret-url",
        "Secret in the URL",
        "The sender offers nothing but the URL itself, so a part of it has to be secret. URLs are written to logs of proxies: restrict \
         networks where the provider publishes its addresses, and fetch the facts from the provider's API before you act on them.",
    ),
    (
        "network",
        "Addresses of the provider",
        "The sender signs nothing; that a request comes from the provider's addresses is all that can be checked. Set trusted proxies right, \
         and fetch the facts from the provider's API before you act on them.",
    ),
];

const GENERATED: &str =
    "<!-- Generated from crates/bellwire-verify/presets: UPDATE=1 cargo test -p bellwire-verify --test it pages -->";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers")
}

fn file_of(preset: &Preset) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("presets").join(format!("{}.toml", preset.id()));
    Value::Table(std::fs::read_to_string(path).unwrap().parse().unwrap())
}

fn sureness(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Verified => {
            "**Verified**: agrees with requests that a library of the provider, or a well-known one, made or judged."
        }
        Confidence::Docs => {
            "**From the documentation**: written after it, not tried against the provider. Send a test event first."
        }
        _ => {
            "**From memory**: nobody has compared it with the documentation yet. Try it with a genuine request before you rely on it."
        }
    }
}

/// Text in backticks; what holds backticks itself is not expected in a preset.
fn code(text: &str) -> String {
    assert!(!text.contains('`'), "{text}");
    format!("`{text}`")
}

fn codes<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    texts.into_iter().map(code).collect::<Vec<_>>().join(", ")
}

fn texts<'v>(value: &'v Value, path: &[&str]) -> Vec<&'v str> {
    let found = path.iter().try_fold(value, |value, name| value.get(name));
    match found {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// `webhook_id` as a source's config has it: `webhookId`.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (head, rest) = word.split_at(word.len().min(1));
        text + &head.to_ascii_uppercase() + rest
    })
}

fn secret_form(preset: &Preset, file: &Value) -> &'static str {
    match (preset.family(), texts(file, &["key"]).first().copied()) {
        ("network", _) => "what the provider repeats in each request, see the notes",
        ("basic", _) => "`user:password`",
        ("secret-url", _) => "part of the URL; where you set none, it is the token of the source's URL itself",
        (_, Some("public-key")) => "the provider's public key: PEM, JSON Web Key or key set, hexadecimal or base64",
        (_, Some("whsec")) => "the secret as shown, `whsec_` and base64",
        (_, Some("whsec-or-utf8")) => "the secret as shown, with or without `whsec_`",
        (_, Some("base64")) => "the secret as shown; it is base64",
        (_, Some("hex")) => "the secret as shown; it is hexadecimal",
        (_, Some("signkey")) => "the key as shown, `signkey-…`",
        _ => "the secret exactly as the provider shows it, or as you have entered it there",
    }
}

fn section(preset: &Preset) -> String {
    let file = file_of(preset);
    let mut out = format!("\n## {}\n\n{}\n\n", preset.name(), sureness(preset.confidence()));
    let _ = writeln!(out, "Source type {}; documentation: <{}>\n", code(preset.id()), preset.docs().split(' ').next().unwrap());
    out.push_str("**What to enter**\n\n");
    let _ = writeln!(out, "* At the provider: the source's URL, `https://YOUR-HOST/in/TOKEN`{}.", content_type_hint(preset));
    if preset.family() == "certificate" {
        out.push_str("* In the source's config: no secret; the certificate is fetched.\n");
    } else {
        let _ = writeln!(out, "* In the source's config: `secret`: {}.", secret_form(preset, &file));
    }
    for (name, setting) in preset.settings() {
        let need = if setting.is_required { " Required." } else { "" };
        let default = setting.default.as_deref().map(|value| format!(" Default: {}.", code(value))).unwrap_or_default();
        let _ = writeln!(out, "* {}: {}{need}{default}", code(&camel(name)), setting.about);
    }
    out.push_str(&registration(preset));
    let _ = writeln!(out, "\n**What is checked**\n");
    for line in checked(preset, &file) {
        let _ = writeln!(out, "* {line}");
    }
    let missing = not_checked(preset, &file);
    if !missing.is_empty() {
        let _ = writeln!(out, "\n**What is not checked**\n");
        for line in missing {
            let _ = writeln!(out, "* {line}");
        }
    }
    let _ = writeln!(out, "\n**What is recognised**\n");
    for line in recognised(preset, &file) {
        let _ = writeln!(out, "* {line}");
    }
    if !preset.notes().is_empty() {
        let _ = writeln!(out, "\nNotes: {}", preset.notes().replace('<', "\\<"));
    }
    out
}

fn content_type_hint(preset: &Preset) -> String {
    match preset.content_types() {
        [] => String::new(),
        types => format!(" (it sends {})", codes(types.iter().map(String::as_str))),
    }
}

fn registration(preset: &Preset) -> String {
    let Some(flow) = preset.handshake().and_then(Flow::named) else { return String::new() };
    let mut text = format!("* Registration: Bellwire answers “{}” by itself", flow.name());
    if let Some(seconds) = flow.reply_within_s() {
        let _ = write!(text, " (the provider waits {seconds} s)");
    }
    if !flow.settings().is_empty() {
        let names: Vec<String> = flow.settings().iter().map(|name| camel(name)).collect();
        let _ = write!(text, "; it needs {}", codes(names.iter().map(String::as_str)));
    }
    text + ".\n"
}

fn checked(preset: &Preset, file: &Value) -> Vec<String> {
    let places = preset.signature_places();
    let places = codes(places.iter().map(String::as_str));
    let mut lines = Vec::new();
    if let Some(signature) = file.get("signature") {
        let mut algorithms: Vec<&str> = texts(signature, &["algorithm"]);
        if let Some(Value::Table(table)) = signature.get("algorithms") {
            algorithms = table.values().filter_map(Value::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        }
        let of = match (texts(signature, &["content"]).as_slice(), texts(signature, &["hook"]).first()) {
            ([], Some(hook)) => format!("the content as {hook} builds it"),
            (contents, _) => contents.iter().map(|content| code(content)).collect::<Vec<_>>().join(" or "),
        };
        lines.push(format!("The signature in {places}: {} over {of}.", codes(algorithms)));
    } else if file.get("jwt").is_some() {
        lines.push(format!("The token in {places}, signed with {}; when it ends.", codes(texts(file, &["jwt", "algorithms"]))));
        let issuers = texts(file, &["jwt", "issuer"]);
        if !issuers.is_empty() {
            lines.push(format!("Its issuer: {}.", codes(issuers)));
        }
        for audience in texts(file, &["jwt", "audience"]) {
            lines.push(format!("Its audience: {}.", code(audience)));
        }
        for claim in tables(file, &["jwt", "claims"]) {
            lines.push(format!("Its claim {} against {}.", codes(texts(claim, &["name"])), codes(texts(claim, &["of"]))));
        }
    } else {
        lines.push(format!("The secret in {places}, in constant time."));
    }
    if let Some(seconds) = preset.tolerance_s() {
        lines.push(format!("The time: at most {seconds} s from the clock (`toleranceSeconds` sets another limit)."));
    }
    for rule in tables(file, &["require"]) {
        let at = codes(texts(rule, &["at"]));
        let is_set = |name: &str| rule.get(name).and_then(Value::as_bool) == Some(true);
        let what = match (texts(rule, &["equals"]).first(), texts(rule, &["one_of"]).as_slice()) {
            (Some(value), _) => format!("{at} is {}", code(value)),
            (None, [_, ..]) => format!("{at} is one of {}", codes(texts(rule, &["one_of"]))),
            _ if is_set("absent") => format!("{at} is not there"),
            _ if is_set("message_id") => format!("{at} is short, printable and without a full stop"),
            _ => format!("{at} is there"),
        };
        lines.push(format!("{what}{}.", if is_set("optional") { ", if it is there" } else { "" }));
    }
    let networks = texts(file, &["network", "allow"]);
    if !networks.is_empty() {
        lines.push(format!("The sender's address is in {} (`allow` replaces the list).", codes(networks)));
    }
    if file.get("certificate").is_some() {
        let hosts = codes(texts(file, &["certificate", "hosts"]));
        let names = texts(file, &["certificate", "common_name"]);
        let names = if names.is_empty() { String::new() } else { format!("; it is for {}", codes(names)) };
        lines.push(format!("The certificate: fetched over https from {hosts} only{names}; the clock is within its dates."));
    }
    lines
}

fn tables<'v>(value: &'v Value, path: &[&str]) -> Vec<&'v Value> {
    let found = path.iter().try_fold(value, |value, name| value.get(name));
    found.and_then(Value::as_array).map(|items| items.iter().collect()).unwrap_or_default()
}

fn not_checked(preset: &Preset, file: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if !preset.covers_body() {
        lines.push("The whole body: what is not covered is as trustworthy as the connection.".to_owned());
    }
    let is_time_read = file.get("timestamp").is_some() || file.get("jwt").is_some();
    match (preset.tolerance_s(), is_time_read) {
        (Some(_), _) => {}
        (None, true) if file.get("jwt").is_some() => {
            lines.push("The age of a request: a copy verifies until its token ends. `toleranceSeconds` sets a limit.".to_owned());
        }
        (None, true) => {
            lines.push("The age of a request: the provider names no limit. `toleranceSeconds` sets one.".to_owned());
        }
        (None, false) => {
            lines.push("The age of a request: no time is signed. A copy is recognised while its event is remembered.".to_owned());
        }
    }
    if file.get("certificate").is_some() {
        lines.push("The issuer of the certificate: the https connection to the provider's host vouches for it.".to_owned());
    }
    lines
}

fn recognised(preset: &Preset, file: &Value) -> Vec<String> {
    let kinds = texts(file, &["event", "type"]);
    let ids = texts(file, &["event", "id"]);
    let mut lines = Vec::new();
    lines.push(match kinds.as_slice() {
        [] => "Event type: none; set `eventType` in the source's settings.".to_owned(),
        _ => format!("Event type: {}.", codes(kinds)),
    });
    lines.push(match ids.as_slice() {
        [] => "Duplicates: by the whole body; the provider sends no event id.".to_owned(),
        _ => format!(
            "Duplicates: by {}; without it, by the whole body.",
            ids.iter().map(|id| code(id)).collect::<Vec<_>>().join(" or ")
        ),
    });
    let events: BTreeSet<&str> = fixtures::for_provider(preset.id()).map(|fixture| fixture.event()).collect();
    if !events.is_empty() {
        lines.push(format!("Example events: {}.", codes(events)));
    }
    lines
}

fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut index = format!(
        "# Providers\n\n{GENERATED}\n\nWhose webhooks are verified, by what their scheme can prove. `bellwire provider show ID` says the same \
         on the\ncommand line; `bellwire sign` makes a genuine request of each for trying. In\n`{{braces}}` stand places of the request, as \
         [the preset format](../../crates/bellwire-verify/presets/FORMAT.md) explains them.\n\n| scheme | providers |\n|---|---|\n"
    );
    for (family, title, about) in FAMILIES {
        let own: Vec<&Preset> = Presets::builtin().iter().filter(|preset| preset.family() == family).collect();
        let mut page = format!(
            "# {title}\n\n{GENERATED}\n\n{about}\n\n| provider | source type | how sure | covers the body |\n|---|---|---|---|\n"
        );
        for preset in &own {
            let covers = if preset.covers_body() { "yes" } else { "no" };
            let (name, id, sure) = (preset.name(), preset.id(), preset.confidence().as_str());
            let _ = writeln!(page, "| {name} | `{id}` | {sure} | {covers} |");
        }
        own.iter().for_each(|preset| page.push_str(&section(preset)));
        let _ = writeln!(index, "| [{title}]({family}.md) | {} |", codes(own.iter().map(|preset| preset.id())));
        pages.insert(format!("{family}.md"), page);
    }
    let count = |confidence| Presets::builtin().iter().filter(|preset| preset.confidence() == confidence).count();
    index.push_str("\nHow sure an entry is:\n\n");
    for confidence in [Confidence::Verified, Confidence::Docs, Confidence::Recalled] {
        let _ = writeln!(index, "* {} ({} providers)", sureness(confidence), count(confidence));
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

/// Broken: the pages tell operators something else than what is checked. `UPDATE=1` writes them anew.
#[test]
fn the_pages_are_generated_from_the_presets() {
    let (folder, pages) = (folder(), pages());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
    }
    let there: BTreeSet<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, pages.keys().cloned().collect(), "files of docs/providers");
    for (name, text) in &pages {
        assert_eq!(&std::fs::read_to_string(folder.join(name)).unwrap(), text, "{name}: run with UPDATE=1");
    }
}

/// Broken: a provider is on no page, or its page keeps quiet about what nobody has proven.
#[test]
fn every_provider_is_on_one_page_that_says_how_sure_it_is_and_what_is_missing() {
    let pages = pages();
    for preset in Presets::builtin().iter() {
        let heading = format!("\n## {}\n\n{}\n", preset.name(), sureness(preset.confidence()));
        let own: Vec<_> = pages.values().filter(|page| page.contains(&heading)).collect();
        assert_eq!(own.len(), 1, "{}", preset.id());
        let section = own[0].split(&heading).nth(1).unwrap().split("\n## ").next().unwrap();
        assert_eq!(section.contains("* The whole body: "), !preset.covers_body(), "{}", preset.id());
        for name in preset.settings().keys() {
            assert!(section.contains(&code(&camel(name))), "{}: {name}", preset.id());
        }
    }
}
