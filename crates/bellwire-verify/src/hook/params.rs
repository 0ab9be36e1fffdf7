//! Form fields in one line, as Twilio, Plivo and Mandrill sign them: sorted by name, names and values without separators.

use crate::request::{Fields, View};
use crate::{Reason, Refusal};

/// The form of the body, sorted by name; `is_unique` also sorts values and drops repeated ones.
pub(crate) fn sorted(view: &View<'_>, is_unique: bool) -> Result<Fields, Refusal> {
    if view.request.body.is_empty() {
        return Ok(Fields::new());
    }
    let form = view.form().ok_or_else(|| Refusal::at(Reason::BodyMalformed, "a form is expected"))?;
    let mut fields = form.clone();
    if is_unique {
        fields.sort();
        fields.dedup();
    } else {
        fields.sort_by(|left, right| left.0.cmp(&right.0));
    }
    Ok(fields)
}

pub(crate) fn joined(view: &View<'_>, is_unique: bool) -> Result<String, Refusal> {
    Ok(sorted(view, is_unique)?.into_iter().flat_map(|(name, value)| [name, value]).collect())
}
