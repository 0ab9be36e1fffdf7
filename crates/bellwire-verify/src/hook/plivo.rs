//! Plivo V3: the URL with its query sorted, the form, and the nonce.

use super::params;
use crate::place::Scope;
use crate::request::parse_form;
use crate::{Reason, Refusal};

const NONCE: &str = "X-Plivo-Signature-V3-Nonce";

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let request = &scope.view.request;
    let nonce = scope.view.header(NONCE)?.filter(|nonce| !nonce.is_empty());
    let nonce = nonce.ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("header:{NONCE}")))?;
    let mut query = parse_form(request.query()).ok_or_else(|| Refusal::at(Reason::ValueMismatch, "url"))?;
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = query.join("&");
    let base = request.url_without_query();
    if request.method == "GET" && !request.body.is_empty() {
        return Err(Refusal::new(Reason::BodyMalformed));
    }
    let fields = params::sorted(scope.view, false)?;
    let mut values = fields;
    values.sort();
    let params: String = values.into_iter().flat_map(|(name, value)| [name, value]).collect();
    let urls = match (query.is_empty(), params.is_empty()) {
        (true, true) => vec![base.to_owned()],
        (false, true) => vec![format!("{base}?{query}")],
        // Plivo's libraries differ on whether an empty query leaves its question mark behind.
        (true, false) => vec![format!("{base}?{params}"), format!("{base}{params}")],
        (false, false) => vec![format!("{base}?{query}.{params}")],
    };
    Ok(urls.into_iter().map(|url| format!("{url}.{nonce}").into_bytes()).collect())
}
