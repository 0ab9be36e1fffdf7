//! Example payloads: from an event type's schema, or made up from it.

use bellwire_core::{EventType, limits};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The example number `index` of the newest schema version; made up from the schema if it has none.
///
/// # Errors
/// A text for the caller, when the schema has examples but not that many, or one that is no object.
pub fn payload(event_type: &EventType, index: u32) -> Result<Bytes, String> {
    let schema = newest(event_type);
    let example = match &schema {
        Some(schema) => given(schema, index)?.unwrap_or_else(|| made_up(schema, 0)),
        None => json!({ "example": true }),
    };
    if !example.is_object() {
        return Err(format!("the example of {:?} is not a JSON object", event_type.name));
    }
    Ok(Bytes::from(example.to_string()))
}

/// The schema of the highest version: by number where versions are numbers, else by name.
fn newest(event_type: &EventType) -> Option<Value> {
    let versions: Map<String, Value> = serde_json::from_str(event_type.schemas.as_deref()?).ok()?;
    versions
        .into_iter()
        .max_by(|(a, _), (b, _)| (a.parse::<u64>().ok(), a).cmp(&(b.parse::<u64>().ok(), b)))
        .map(|(_, schema)| schema)
}

fn given(schema: &Value, index: u32) -> Result<Option<Value>, String> {
    if let Some(examples) = schema.get("examples").and_then(Value::as_array).filter(|examples| !examples.is_empty()) {
        let found = usize::try_from(index).ok().and_then(|index| examples.get(index));
        return match found {
            Some(example) => Ok(Some(example.clone())),
            None => Err(format!("there is no example {index}; the schema has {}, counted from 0", examples.len())),
        };
    }
    Ok(schema.get("example").cloned())
}

/// The least that a simple schema allows. References and combinations are not followed: it is an example, not a proof.
fn made_up(schema: &Value, depth: usize) -> Value {
    for fixed in ["const", "default", "example"] {
        if let Some(value) = schema.get(fixed) {
            return value.clone();
        }
    }
    for list in ["enum", "examples"] {
        if let Some(value) = schema.get(list).and_then(|values| values.get(0)) {
            return value.clone();
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null"),
        _ if schema.get("properties").is_some() || depth == 0 => "object",
        _ => "null",
    };
    match kind {
        "object" => {
            let mut object = Map::new();
            if depth < limits::EXAMPLE_DEPTH_MAX
                && let Some(properties) = schema.get("properties").and_then(Value::as_object)
            {
                for (name, property) in properties {
                    object.insert(name.clone(), made_up(property, depth + 1));
                }
            }
            Value::Object(object)
        }
        "array" => match schema.get("items") {
            Some(items) if depth < limits::EXAMPLE_DEPTH_MAX => json!([made_up(items, depth + 1)]),
            _ => json!([]),
        },
        "string" => json!(match schema.get("format").and_then(Value::as_str) {
            Some("date-time") => "2026-01-01T00:00:00Z",
            Some("date") => "2026-01-01",
            Some("email") => "user@example.com",
            Some("uri" | "url") => "https://example.com",
            Some("uuid") => "00000000-0000-4000-8000-000000000000",
            _ => "string",
        }),
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(0)),
        "boolean" => json!(true),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwire_core::{IdKind, OrgId, Timestamp};

    fn event_type(schemas: Option<Value>) -> EventType {
        EventType {
            org: OrgId::from_bytes([0; 20]),
            name: "a.b".into(),
            description: String::new(),
            archived: false,
            deprecated: false,
            schemas: schemas.map(|schemas| schemas.to_string()),
            feature_flags: None,
            group_name: None,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    fn example(schemas: Value, index: u32) -> Result<Value, String> {
        payload(&event_type(Some(schemas)), index).map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn the_newest_schemas_own_examples_come_first() {
        let schemas = json!({ "9": { "example": { "old": 1 } }, "10": { "examples": [{ "n": 0 }, { "n": 1 }] } });
        assert_eq!(example(schemas.clone(), 1), Ok(json!({ "n": 1 })));
        assert!(example(schemas, 2).unwrap_err().contains("has 2"));
        assert_eq!(example(json!({ "1": { "example": { "a": 1 } } }), 7), Ok(json!({ "a": 1 })));
    }

    #[test]
    fn without_examples_one_is_made_up_and_is_an_object() {
        let schema = json!({ "1": { "type": "object", "properties": {
            "id": { "type": "string", "format": "uuid" }, "n": { "type": ["null", "integer"] },
            "list": { "type": "array", "items": { "type": "boolean" } }, "kind": { "enum": ["x", "y"] },
        } } });
        let made = example(schema, 0).unwrap();
        assert_eq!(made, json!({ "id": "00000000-0000-4000-8000-000000000000", "n": 0, "list": [true], "kind": "x" }));
        assert!(payload(&event_type(None), 0).is_ok());
        assert!(example(json!({ "1": { "type": "string" } }), 0).is_err(), "a payload that is no object would be refused later");
    }
}
