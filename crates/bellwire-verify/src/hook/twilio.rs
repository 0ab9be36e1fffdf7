//! Twilio: the URL, with or without its default port, and the form; JSON bodies by a digest in the URL.

use aws_lc_rs::digest;

use super::params;
use crate::algorithm::is_equal;
use crate::encoding::to_hex;
use crate::place::Scope;
use crate::request::parse_form;
use crate::{Reason, Refusal};

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let request = &scope.view.request;
    let query = parse_form(request.query()).ok_or_else(|| Refusal::at(Reason::ValueMismatch, "url"))?;
    let announced = query.iter().find(|(name, _)| name == "bodySHA256").map(|(_, value)| value);
    let params = match announced {
        Some(announced) => {
            let actual = to_hex(digest::digest(&digest::SHA256, request.body).as_ref());
            if !is_equal(actual.as_bytes(), announced.to_ascii_lowercase().as_bytes()) {
                return Err(Refusal::at(Reason::ValueMismatch, "query:bodySHA256"));
            }
            String::new()
        }
        // Without the digest, only a form is covered by the signature; anything else could be exchanged.
        None => params::joined(scope.view, true)?,
    };
    let urls = [Some(request.url.to_owned()), with_port(request.url), without_port(request.url)];
    Ok(urls.into_iter().flatten().map(|url| (url + &params).into_bytes()).collect())
}

fn split(url: &str) -> Option<(&str, &str, &str, &'static str)> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some((scheme, &rest[..end], &rest[end..], port))
}

fn with_port(url: &str) -> Option<String> {
    let (scheme, host, rest, port) = split(url)?;
    let has_port = host.rsplit_once(':').is_some_and(|(_, digits)| digits.bytes().all(|c| c.is_ascii_digit()));
    (!has_port).then(|| format!("{scheme}://{host}{port}{rest}"))
}

fn without_port(url: &str) -> Option<String> {
    let (scheme, host, rest, port) = split(url)?;
    host.strip_suffix(port).map(|host| format!("{scheme}://{host}{rest}"))
}
