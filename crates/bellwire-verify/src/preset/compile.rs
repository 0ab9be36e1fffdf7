//! From the text of a preset file to rules that can be followed without looking at it again.

use super::error::Blame;
use super::file::{self, File, Layout, Names};
use super::{
    AlgorithmRule, CertificateRule, ClaimRule, Content, JwtRule, Preset, PresetError, RequireCheck, RequireRule, Scheme,
    SignatureRule, TimestampRule,
};
use crate::hook::Hook;
use crate::key_format::KeyFormat;
use crate::place::{Place, Places};
use crate::template::Template;
use crate::verify::SIGNATURES_MAX;

/// The most that a preset may raise the number of signatures to.
const MOST_MAX: usize = 128;

pub(super) fn compile(name: &str, text: &str) -> Result<Preset, PresetError> {
    let file: File = toml::from_str(text)
        .map_err(|error| PresetError::Syntax { file: name.to_owned(), message: error.to_string().trim_end().to_owned() })?;
    let blame = Blame(name);
    let is_id = !file.id.is_empty() && file.id.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if !is_id {
        return Err(blame.value("id", &file.id, "lower-case letters, digits and hyphens, such as my-provider"));
    }
    let scheme = scheme(&blame, &file)?;
    let key = key(&blame, &file, &scheme)?;
    Ok(Preset {
        key,
        aliases: file.alias.iter().map(|alias| (alias.from.clone(), alias.to.clone())).collect(),
        defaults: file.settings.iter().filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))).collect(),
        requires: file.require.iter().map(|rule| require(&blame, rule)).collect::<Result<_, _>>()?,
        network: network(&blame, &file)?,
        certificate: certificate(&blame, &file)?,
        event_type: file.event.kind.iter().map(|text| places(&blame, "event.type", text)).collect::<Result<_, _>>()?,
        event_id: file.event.id.iter().map(|text| places(&blame, "event.id", text)).collect::<Result<_, _>>()?,
        scheme,
        file,
    })
}

fn place(blame: &Blame<'_>, key: &str, text: &str) -> Result<Place, PresetError> {
    Place::parse(text).map_err(|hint| blame.value(key, text, hint))
}

fn places(blame: &Blame<'_>, key: &str, text: &str) -> Result<Places, PresetError> {
    Places::parse(text).map_err(|hint| blame.value(key, text, hint))
}

fn template(blame: &Blame<'_>, key: &str, text: &str) -> Result<Template, PresetError> {
    Template::parse(text).map_err(|(hole, hint)| blame.value(key, &hole, hint))
}

fn scheme(blame: &Blame<'_>, file: &File) -> Result<Scheme, PresetError> {
    let all = |key: &str, texts: &[String]| -> Result<Vec<Place>, PresetError> {
        if texts.is_empty() {
            return Err(blame.value(key, "[]", "at least one place, such as \"header:X-Signature\""));
        }
        texts.iter().map(|text| place(blame, key, text)).collect()
    };
    match (&file.signature, &file.jwt, &file.token) {
        (Some(rule), None, None) => Ok(Scheme::Signature(signature(blame, file, rule, all("signature.at", &rule.at)?)?)),
        (None, Some(rule), None) => Ok(Scheme::Jwt(jwt(blame, rule)?)),
        (None, None, Some(rule)) => Ok(Scheme::Token(all("token.at", &rule.at)?)),
        _ => Err(blame.value("signature, jwt, token", "none or several", "exactly one of [signature], [jwt] and [token]")),
    }
}

fn signature(blame: &Blame<'_>, file: &File, rule: &file::Signature, at: Vec<Place>) -> Result<SignatureRule, PresetError> {
    let algorithm = match (&rule.algorithm, rule.algorithm_by.as_deref()) {
        (Some(algorithm), None) if rule.algorithms.is_empty() => AlgorithmRule::One(*algorithm),
        (None, Some(by)) if !rule.algorithms.is_empty() => {
            let list = rule.algorithms.iter().map(|(name, algorithm)| (name.clone(), *algorithm)).collect();
            match by {
                "prefix" => AlgorithmRule::ByPrefix(list),
                text => AlgorithmRule::ByPlace(place(blame, "signature.algorithm_by", text)?, list),
            }
        }
        _ => {
            let hint = "either algorithm = \"hmac-sha256\", or algorithm_by with a table [signature.algorithms]";
            return Err(blame.value("signature.algorithm", "", hint));
        }
    };
    let content = match (&rule.hook, rule.content.as_slice()) {
        (Some(hook), []) => {
            let hint = || format!("one of the hooks {}", Hook::NAMES.join(", "));
            Content::Hook(Hook::named(hook).ok_or_else(|| blame.value("signature.hook", hook, hint()))?)
        }
        (None, texts @ [_, ..]) => {
            let templates = texts.iter().map(|text| template(blame, "signature.content", text));
            Content::Templates(templates.collect::<Result<_, _>>()?)
        }
        _ => return Err(blame.value("signature.content", "", "either content = [\"{body}\"] or a hook")),
    };
    let field = match (rule.layout, rule.field.as_deref()) {
        (Layout::Pairs | Layout::Base64Json, Some(field)) => field,
        (Layout::Plain | Layout::JwsDetached, None) => "",
        (_, field) => {
            let hint = "the name of the field that holds the signature, with the layouts pairs and base64-json only";
            return Err(blame.value("signature.field", field.unwrap_or_default(), hint));
        }
    };
    if rule.assign.is_empty() || rule.separator.as_deref() == Some("") || rule.group_separator.as_deref() == Some("") {
        return Err(blame.value("signature.separator", "", "one or more characters, or leave the key away"));
    }
    let most = rule.most.unwrap_or(SIGNATURES_MAX);
    if !(1..=MOST_MAX).contains(&most) {
        return Err(blame.value("signature.most", &most.to_string(), format!("a number from 1 to {MOST_MAX}")));
    }
    let timestamp = match &file.timestamp {
        Some(rule) => Some(TimestampRule {
            at: places(blame, "timestamp.at", &rule.at)?,
            unit: rule.unit,
            tolerance_s: rule.tolerance_s,
            future_s: rule.future_s,
        }),
        None => None,
    };
    Ok(SignatureRule {
        at,
        layout: rule.layout,
        separator: rule.separator.clone(),
        group_separator: rule.group_separator.clone(),
        assign: rule.assign.clone(),
        field: template(blame, "signature.field", field)?,
        prefix: rule.prefix.clone(),
        encoding: rule.encoding,
        algorithm,
        content,
        timestamp,
        most,
        covers_body: rule.covers_body,
    })
}

fn jwt(blame: &Blame<'_>, rule: &file::Jwt) -> Result<JwtRule, PresetError> {
    const KNOWN: [&str; 8] = ["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "EdDSA"];
    let unknown = rule.algorithms.iter().find(|name| !KNOWN.contains(&name.as_str()));
    if let Some(name) = unknown {
        return Err(blame.value("jwt.algorithms", name, format!("one of {}", KNOWN.join(", "))));
    }
    if rule.algorithms.is_empty() {
        return Err(blame.value("jwt.algorithms", "[]", format!("at least one of {}", KNOWN.join(", "))));
    }
    let claims = rule.claims.iter().map(|claim| {
        Ok(ClaimRule {
            name: claim.name.clone(),
            of: template(blame, "jwt.claims.of", &claim.of)?,
            form: claim.form,
            is_optional_when_empty: claim.is_optional_when_empty,
        })
    });
    Ok(JwtRule {
        at: place(blame, "jwt.at", &rule.at)?,
        prefix: rule.prefix.clone(),
        algorithms: rule.algorithms.clone(),
        issuers: rule.issuer.iter().map(|text| template(blame, "jwt.issuer", text)).collect::<Result<_, _>>()?,
        audience: rule.audience.as_deref().map(|text| template(blame, "jwt.audience", text)).transpose()?,
        max_age_s: rule.max_age_s,
        required: rule.required.clone(),
        claims: claims.collect::<Result<_, _>>()?,
    })
}

/// The form of the key must fit what is done with it: a public key as an HMAC secret could be forged by anybody.
fn key(blame: &Blame<'_>, file: &File, scheme: &Scheme) -> Result<KeyFormat, PresetError> {
    let is_public = |key: KeyFormat| matches!(key, KeyFormat::PublicKey | KeyFormat::Certificate);
    let (default, fits): (KeyFormat, fn(bool) -> bool) = match scheme {
        Scheme::Signature(rule) => {
            if rule.algorithm.is_public() {
                (KeyFormat::PublicKey, |public| public)
            } else if rule.algorithm.all().iter().any(|algorithm| algorithm.is_public()) {
                return Err(blame.value(
                    "signature.algorithms",
                    "mixed",
                    "either symmetric or public-key algorithms, never both",
                ));
            } else {
                (KeyFormat::Utf8, |public| !public)
            }
        }
        Scheme::Jwt(rule) if rule.algorithms.iter().all(|name| !name.starts_with("HS")) => {
            (KeyFormat::PublicKey, |public| public)
        }
        // With both kinds allowed, the key itself decides which one counts.
        Scheme::Jwt(_) | Scheme::Token(_) => (KeyFormat::Utf8, |public| !public),
    };
    let key = file.key.unwrap_or(default);
    if !fits(is_public(key)) || (key == KeyFormat::Certificate) != file.certificate.is_some() {
        let hint = "public-key (or certificate, with a [certificate]) for public-key algorithms, another form for the others";
        return Err(blame.value("key", &format!("{key:?}"), hint));
    }
    Ok(key)
}

fn require(blame: &Blame<'_>, rule: &file::Require) -> Result<RequireRule, PresetError> {
    let check = match (&rule.equals, rule.one_of.as_slice(), rule.is_absent, rule.is_message_id) {
        (Some(text), [], false, false) => RequireCheck::Equals(template(blame, "require.equals", text)?),
        (None, list @ [_, ..], false, false) => RequireCheck::OneOf(list.to_vec()),
        (None, [], true, false) => RequireCheck::Absent,
        (None, [], false, true) => RequireCheck::MessageId,
        (None, [], false, false) => RequireCheck::Present,
        _ => return Err(blame.value("require", &rule.at, "at most one of equals, one_of, absent and message_id")),
    };
    Ok(RequireRule { at: place(blame, "require.at", &rule.at)?, check, is_optional: rule.is_optional })
}

fn network(blame: &Blame<'_>, file: &File) -> Result<Option<Vec<String>>, PresetError> {
    let Some(network) = &file.network else { return Ok(None) };
    for range in &network.allow {
        if crate::network::Range::parse(range).is_none() {
            return Err(blame.value("network.allow", range, "addresses or ranges, such as 192.0.2.0/24"));
        }
    }
    Ok(Some(network.allow.clone()))
}

fn certificate(blame: &Blame<'_>, file: &File) -> Result<Option<CertificateRule>, PresetError> {
    let Some(rule) = &file.certificate else { return Ok(None) };
    if rule.hosts.is_empty() || rule.hosts.iter().any(|host| !host.trim_start_matches("*.").contains('.')) {
        return Err(blame.value(
            "certificate.hosts",
            &rule.hosts.join(", "),
            "host names of the provider, such as *.provider.com",
        ));
    }
    Ok(Some(CertificateRule {
        url: place(blame, "certificate.url", &rule.url)?,
        hosts: rule.hosts.clone(),
        path_suffix: rule.path_suffix.clone(),
        common_names: rule.common_name.as_ref().map(Names::list).unwrap_or_default(),
    }))
}
