//! TrueLayer: a detached JSON Web Signature over method, path, the headers that it lists, and the body.

use crate::encoding::Encoding;
use crate::place::Scope;
use crate::signature::RAW_HEADER;
use crate::{Reason, Refusal};

const TIMESTAMP: &str = "X-Tl-Webhook-Timestamp";
/// TrueLayer signs one or two.
const HEADERS_MAX: usize = 64;

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let request = &scope.view.request;
    let field = |name: &str| scope.field(name).ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("field:{name}")));
    let (header, list) = (field(RAW_HEADER)?, field("tl_headers")?);
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    // A list without the timestamp would let anybody renew an old request.
    if names.len() > HEADERS_MAX || !names.iter().any(|name| name.eq_ignore_ascii_case(TIMESTAMP)) {
        return Err(Refusal::at(Reason::ValueMismatch, "field:tl_headers"));
    }
    let mut lines = String::new();
    for name in names {
        let value = scope.view.header(name)?.ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("header:{name}")))?;
        lines.push_str(&format!("{name}: {value}\n"));
    }
    let path = request.path();
    let other = match path.strip_suffix('/') {
        Some(shorter) => shorter.to_owned(),
        None => format!("{path}/"),
    };
    let contents = [path, other.as_str()].map(|path| {
        let mut payload = format!("{} {path}\n{lines}", request.method.to_ascii_uppercase()).into_bytes();
        payload.extend_from_slice(request.body);
        format!("{header}.{}", Encoding::Base64url.encode(&payload)).into_bytes()
    });
    Ok(contents.to_vec())
}
