//! Parameters as the document describes them: the same bounds as the code that reads them.

use bellwire_core::limits;
use serde_json::{Value, json};
use utoipa::PartialSchema;

use super::operation::Param;
use crate::idempotency;
use crate::wire::text::{Channel, EventTypeName, IdOrUid, Tag};

fn schema_of<T: PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or_default()
}

fn id_schema(prefix: &str) -> Value {
    let length = prefix.len() + 27;
    json!({ "type": "string", "minLength": length, "maxLength": length, "pattern": format!("^{prefix}[A-Za-z0-9]{{27}}$") })
}

/// The parameters in a path such as `/api/v1/app/{app_id}`.
pub fn of_path(path: &str) -> Vec<Value> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let (about, schema) = match name {
                "app_id" => ("The application's id or uid.", schema_of::<IdOrUid>()),
                "endpoint_id" => ("The endpoint's id or uid.", schema_of::<IdOrUid>()),
                "msg_id" => ("The message's id or eventId.", schema_of::<IdOrUid>()),
                "attempt_id" => ("The attempt's id.", id_schema("atmpt_")),
                "task_id" => ("The background task's id.", id_schema("qtask_")),
                "source_id" => ("The source's id or uid.", schema_of::<IdOrUid>()),
                "provider_id" => ("The provider's id.", schema_of::<IdOrUid>()),
                "key_id" => ("The API key's id.", id_schema("key_")),
                _ => ("The event type's name.", schema_of::<EventTypeName>()),
            };
            json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema })
        })
        .collect()
}

/// A query parameter or header.
pub fn describe(param: &Param) -> Value {
    let date_time = || json!({ "type": "string", "format": "date-time" });
    let (name, about, schema) = match *param {
        Param::IdempotencyKey => {
            let schema = json!({ "type": "string", "minLength": 1, "maxLength": limits::IDEMPOTENCY_KEY_BYTES_MAX, "pattern": "^[ -~]+$" });
            let about = "The same key with the same request gives the same answer for 24 hours.";
            return json!({ "name": idempotency::HEADER, "in": "header", "required": false, "description": about, "schema": schema });
        }
        Param::Limit => (
            "limit",
            "Rows of a page.",
            json!({ "type": "integer", "minimum": 1, "maximum": limits::PAGE_LIMIT_MAX, "default": limits::PAGE_LIMIT_DEFAULT }),
        ),
        Param::Iterator(prefix) => (
            "iterator",
            "`iterator` of an earlier page to go on, `prevIterator` to go back.",
            json!({ "type": "string", "pattern": format!("^(-?{prefix}[A-Za-z0-9]{{27}})?$") }),
        ),
        Param::NameIterator => (
            "iterator",
            "`iterator` of an earlier page to go on, `prevIterator` to go back.",
            json!({ "type": "string", "maxLength": 257, "pattern": r"^([~\-]?[a-zA-Z0-9\-_.]+)?$" }),
        ),
        Param::Order => ("order", "Which way the list runs.", json!({ "type": "string", "enum": ["ascending", "descending"] })),
        Param::Before => ("before", "Only what was created before this.", date_time()),
        Param::After => ("after", "Only what was created after this.", date_time()),
        Param::Since => ("since", "From here.", date_time()),
        Param::Until => ("until", "Up to here.", date_time()),
        Param::Channel => ("channel", "Only of this channel.", schema_of::<Channel>()),
        Param::Tag => ("tag", "Only with this tag.", schema_of::<Tag>()),
        Param::EventTypes => (
            "event_types",
            "Only of these event types; repeated, or with commas between.",
            json!({ "type": "array", "items": schema_of::<EventTypeName>() }),
        ),
        Param::Status => (
            "status",
            "0 success, 1 pending, 2 fail, 3 sending, 4 canceled.",
            json!({ "type": "integer", "enum": [0, 1, 2, 3, 4] }),
        ),
        Param::StatusCodeClass => (
            "status_code_class",
            "Class of the HTTP status that came back; 0 when none came.",
            json!({ "type": "integer", "enum": [0, 100, 200, 300, 400, 500] }),
        ),
        Param::EndpointId => ("endpoint_id", "Only to this endpoint (id or uid).", schema_of::<IdOrUid>()),
        Param::Flag { name, default, about } => (name, about, json!({ "type": "boolean", "default": default })),
        Param::Choice { name, of, about } => (name, about, json!({ "type": "string", "enum": of })),
    };
    json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema })
}
