//! What the head of a request must show before its body is read: network, basic credentials, a token, a client certificate.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};

use super::address::is_from_trusted_proxy;
use super::{Refused, Stop, Visit};

/// Where trusted proxies put the subject of the certificate they have checked.
pub const SUBJECT_HEADER: &str = "x-client-cert-subject";

pub fn check_network(visit: &Visit<'_>) -> Result<(), Stop> {
    let networks = &visit.ready.networks;
    if networks.is_empty() || networks.iter().any(|network| network.contains(&visit.client)) {
        return Ok(());
    }
    let detail = format!("{} is in none of the networks that may send to this source (allowedNetworks)", visit.client);
    Err(Refused::new(StatusCode::FORBIDDEN, "network", detail).into())
}

/// Hashes are compared: they have one length, and their difference says nothing about the texts'.
fn is_same(given: &[u8], expected: &[u8]) -> bool {
    let hash = |bytes: &[u8]| digest(&SHA256, bytes);
    !expected.is_empty() && verify_slices_are_equal(hash(given).as_ref(), hash(expected).as_ref()).is_ok()
}

/// A header that is there once; twice is nobody's honest request.
fn header_once<'h>(visit: &'h Visit<'_>, name: &str) -> Option<&'h [u8]> {
    let mut values = visit.parts.headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

pub fn check_credentials(visit: &Visit<'_>) -> Result<(), Stop> {
    check_basic(visit)?;
    check_token(visit)?;
    check_subject(visit)
}

fn unauthorized(reason: &str, detail: &str) -> Refused {
    Refused::new(StatusCode::UNAUTHORIZED, reason, detail)
}

/// What `Basic …` holds: `user:password`.
pub fn basic_credentials(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, credentials) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("basic") { STANDARD.decode(credentials.trim()).ok() } else { None }
}

fn check_basic(visit: &Visit<'_>) -> Result<(), Stop> {
    let source = &visit.ready.source;
    let Some(user) = &source.settings.basic_user else { return Ok(()) };
    let refuse = |detail: &str| Stop::from(Refused { challenge: Some("Basic"), ..unauthorized("basic", detail) });
    let Some(password) = source.config.get("basicPassword") else {
        return Err(refuse("the source has a basicUser, but its config has no basicPassword: set one"));
    };
    let expected = format!("{user}:{}", password.expose());
    let given = header_once(visit, header::AUTHORIZATION.as_str()).and_then(basic_credentials);
    match given {
        Some(given) if is_same(&given, expected.as_bytes()) => Ok(()),
        Some(_) => Err(refuse("user or password are not the source's")),
        None => Err(refuse("there is no `authorization: Basic …`")),
    }
}

fn check_token(visit: &Visit<'_>) -> Result<(), Stop> {
    let source = &visit.ready.source;
    let Some(name) = &source.settings.token_header else { return Ok(()) };
    let Some(expected) = source.config.get("headerToken") else {
        let detail = "the source has a tokenHeader, but its config has no headerToken: set one";
        return Err(unauthorized("token", detail).into());
    };
    match header_once(visit, name) {
        Some(given) if is_same(given, expected.expose().as_bytes()) => Ok(()),
        Some(_) => Err(unauthorized("token", &format!("the token in {name} is not the source's")).into()),
        None => Err(unauthorized("token", &format!("the header {name} is missing, or there twice")).into()),
    }
}

fn check_subject(visit: &Visit<'_>) -> Result<(), Stop> {
    let allowed = &visit.ready.source.settings.client_certificate_subjects;
    if allowed.is_empty() {
        return Ok(());
    }
    if !is_from_trusted_proxy(visit.parts, &visit.api.receive().trusted_proxies) {
        let detail = "a client certificate is asked for, and the request did not come by a trusted proxy (trusted_proxies)";
        return Err(unauthorized("certificate", detail).into());
    }
    let given = header_once(visit, SUBJECT_HEADER).and_then(|value| std::str::from_utf8(value).ok());
    match given {
        Some(given) if allowed.iter().any(|subject| subject == given.trim()) => Ok(()),
        Some(_) => Err(unauthorized("certificate", "the client certificate's subject is none of the source's").into()),
        None => Err(unauthorized("certificate", &format!("the proxy passed on no {SUBJECT_HEADER}")).into()),
    }
}
