//! Hygraph: a JSON object that holds the body as text, the environment and the time, as `JSON.stringify` writes it.

use crate::place::Scope;
use crate::{Reason, Refusal};

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let field = |name: &str| scope.field(name).ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("field:{name}")));
    let (time, environment) = (field("t")?, field("env")?);
    // The time is written as a number, so it must be one in its shortest form.
    let time: u64 = time.parse().map_err(|_| Refusal::at(Reason::TimestampMalformed, "field:t"))?;
    let body = std::str::from_utf8(scope.view.request.body).map_err(|_| Refusal::new(Reason::BodyMalformed))?;
    let quoted = |text: &str| serde_json::to_string(text).map_err(|_| Refusal::new(Reason::BodyMalformed));
    let content = format!("{{\"Body\":{},\"EnvironmentName\":{},\"TimeStamp\":{time}}}", quoted(body)?, quoted(environment)?);
    Ok(vec![content.into_bytes()])
}
