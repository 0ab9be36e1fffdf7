//! Verifying with public keys: those that the receiver was given, and those in certificates whose address stands in the request.
//!
//! What is checked of a certificate: that its address is the provider's, that it is for one of the provider's names, and that the clock
//! is within its dates. Who issued it is not: chains of these providers begin with authorities that change, and whoever could exchange
//! the certificate on the provider's own https host could exchange one with a chain as well.

use crate::check::Group;
use crate::der::Certificate;
use crate::place::Scope;
use crate::preset::{CertificateRule, Preset, SignatureRule};
use crate::public_key::PublicKey;
use crate::{Reason, Refusal};

/// Longest address of a certificate.
const URL_BYTES_MAX: usize = 2048;

/// The address of the certificate, if it is the provider's.
pub(crate) fn checked_url(preset: &Preset, scope: &Scope<'_, '_>) -> Result<Option<String>, Refusal> {
    let Some(rule) = &preset.certificate else { return Ok(None) };
    let missing = || Refusal::at(Reason::ValueMissing, rule.url.to_string());
    let url = rule.url.read_all(scope)?.into_iter().next().ok_or_else(missing)?;
    if is_allowed(rule, &url) {
        Ok(Some(url.into_owned()))
    } else {
        Err(Refusal::at(Reason::CertificateRefused, rule.url.to_string()))
    }
}

/// Only plain https addresses: what another reader might take for user, port, query or escape is refused.
fn is_allowed(rule: &CertificateRule, url: &str) -> bool {
    let Some((host, path)) = url.strip_prefix("https://").and_then(|rest| rest.split_once('/')) else { return false };
    let is_plain = |text: &str, also: &[u8]| text.bytes().all(|c| c.is_ascii_alphanumeric() || also.contains(&c));
    url.len() <= URL_BYTES_MAX
        && is_plain(host, b"-.")
        && is_plain(path, b"-._/")
        && !path.split('/').any(|segment| segment == "..")
        && path.ends_with(&rule.path_suffix)
        && rule.hosts.iter().any(|pattern| is_host(pattern, &host.to_ascii_lowercase()))
}

/// `*.paypal.com` is any name below; `sns.*.amazonaws.com` has exactly one label of three or more characters in the middle. None that
/// begins with `s3`: `sns.s3-us-west-2.amazonaws.com` is whoever's bucket is called `sns`.
fn is_host(pattern: &str, host: &str) -> bool {
    if let Some(domain) = pattern.strip_prefix("*.") {
        return host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty());
    }
    let (mut wanted, mut given) = (pattern.split('.'), host.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("*"), Some(label)) if label.len() >= 3 && !label.starts_with("s3") => {}
            (Some(label), Some(other)) if label == other => {}
            _ => return false,
        }
    }
}

/// Both ends count as within, to the second.
fn check_dates(certificate: &Certificate, now_s: u64, may_begin_later: bool) -> Result<(), Reason> {
    let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
    if now_s > certificate.not_after_s {
        return Err(Reason::CertificateExpired);
    }
    if now_s < certificate.not_before_s && !may_begin_later {
        return Err(Reason::CertificateNotYetValid);
    }
    Ok(())
}

/// Which secret fitted; `None` for a certificate.
pub(crate) fn is_signed(
    preset: &Preset,
    rule: &SignatureRule,
    scope: &Scope<'_, '_>,
    group: &Group,
    now_s: u64,
) -> Result<Option<usize>, Refusal> {
    let contents: Vec<Vec<u8>> = rule.contents(scope, "")?.iter().map(|parts| parts.concat()).collect();
    let fits = |key: &PublicKey| {
        let mut pairs = contents.iter().flat_map(|content| group.signatures.iter().map(move |signature| (content, signature)));
        pairs.any(|(content, (algorithm, signature))| key.is_signature(*algorithm, content, signature))
    };
    if let Some(rule) = &preset.certificate {
        let url = checked_url(preset, scope)?.unwrap_or_default();
        let pem = scope.credentials.certificates.get(&url).ok_or_else(|| Refusal::at(Reason::CertificateMissing, url.clone()))?;
        let certificate = Certificate::from_pem(pem).ok_or_else(|| Refusal::at(Reason::CertificateInvalid, url.clone()))?;
        let name = certificate.common_name.as_deref().unwrap_or_default().to_ascii_lowercase();
        if !rule.common_names.is_empty() && !rule.common_names.iter().any(|pattern| is_host(pattern, &name)) {
            return Err(Refusal::at(Reason::CertificateInvalid, url));
        }
        check_dates(&certificate, now_s, scope.credentials.may_certificates_begin_later)
            .map_err(|reason| Refusal::at(reason, url))?;
        let key = PublicKey::Bytes(certificate.public_key);
        return if fits(&key) { Ok(None) } else { Err(Refusal::new(Reason::NoMatch)) };
    }
    for (index, secret) in scope.credentials.secrets.iter().enumerate() {
        // A set of keys may hold none for this request while another secret does.
        let Some(key) = PublicKey::parse(secret, scope.field("kid")) else { continue };
        if fits(&key) {
            return Ok(Some(index));
        }
    }
    Err(Refusal::new(Reason::NoMatch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Presets;

    /// Broken: an attacker's certificate is fetched and trusted.
    #[test]
    fn only_the_providers_own_addresses_are_fetched_from() {
        let sns = Presets::builtin().get("aws-sns").unwrap().certificate.clone().unwrap();
        for url in ["https://sns.us-east-1.amazonaws.com/a.pem", "https://sns.cn-north-1.amazonaws.com.cn/a.pem"] {
            assert!(is_allowed(&sns, url), "{url}");
        }
        for url in [
            "http://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com.evil.test/a.pem",
            "https://sns.us-east-1.amazonaws.com@evil.test/a.pem",
            "https://evil.test/sns.us-east-1.amazonaws.com/a.pem",
            "https://evil.sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com:8443/a.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem?x",
            "https://sns.us-east-1.amazonaws.com/a.pem#x.pem",
            "https://sns.us-east-1.amazonaws.com\\@evil.test/a.pem",
            "https://sns.us-east-1.amazonaws.com/../a.pem",
            "https://sns.us-east-1.amazonaws.com/a.crt",
            "https://sns.us.evil.amazonaws.com/a.pem",
            "https://sns..amazonaws.com/a.pem",
            "https://sns.s3-us-west-2.amazonaws.com/a.pem",
            "https://sns.s3-accelerate.amazonaws.com/a.pem",
            "HTTPS://sns.us-east-1.amazonaws.com/a.pem",
            "",
        ] {
            assert!(!is_allowed(&sns, url), "{url}");
        }
        let paypal = Presets::builtin().get("paypal").unwrap().certificate.clone().unwrap();
        assert!(is_allowed(&paypal, "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1"));
        assert!(!is_allowed(&paypal, "https://evilpaypal.com/x") && !is_allowed(&paypal, "https://.paypal.com/x"));
    }
}
