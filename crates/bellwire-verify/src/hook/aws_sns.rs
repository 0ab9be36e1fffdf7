//! AWS SNS: chosen members of the envelope, sorted, each as a line with its name and a line with its value.

use serde_json::Value;

use crate::place::Scope;
use crate::{Reason, Refusal};

const NOTIFICATION: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const CONFIRMATION: [&str; 7] = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let envelope = scope.view.json().ok_or_else(|| Refusal::new(Reason::BodyMalformed))?;
    let text = |name: &str| envelope.get(name).and_then(Value::as_str);
    let names: &[&str] = match text("Type") {
        Some("Notification") => &NOTIFICATION,
        Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => &CONFIRMATION,
        _ => return Err(Refusal::at(Reason::ValueMismatch, "json:/Type")),
    };
    let mut content = Vec::new();
    for name in names {
        match text(name) {
            Some(value) => {
                for part in [name.as_bytes(), b"\n", value.as_bytes(), b"\n"] {
                    content.extend_from_slice(part);
                }
            }
            None if *name == "Subject" && envelope.get("Subject").is_none_or(Value::is_null) => {}
            None => return Err(Refusal::at(Reason::ValueMissing, format!("json:/{name}"))),
        }
    }
    Ok(vec![content])
}
