//! Hook0 v1: the time, the names of the headers that the request lists, their values, and the body, with full stops between.

use crate::place::Scope;
use crate::{Reason, Refusal};

/// Hook0 signs a handful.
const HEADERS_MAX: usize = 64;

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let field = |name: &str| scope.field(name).ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("field:{name}")));
    let (time, list) = (field("t")?, field("h")?);
    let mut values = Vec::new();
    for name in list.split(' ').filter(|name| !name.is_empty()).take(HEADERS_MAX) {
        let value = scope.view.header(name)?;
        values.push(value.ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("header:{name}")))?);
    }
    let mut content = format!("{time}.{list}.{}.", values.join(".")).into_bytes();
    content.extend_from_slice(scope.view.request.body);
    Ok(vec![content])
}
