//! The document: committed as generated, and never less than the Svix API's.

use std::collections::BTreeMap;

use serde_json::Value;

fn document() -> Value {
    serde_json::from_str(&bellwire_api::openapi_json()).unwrap()
}

/// If it fails, the committed document tells clients something that the server does not do.
#[test]
fn the_committed_document_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let generated = bellwire_api::openapi_json();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == generated, "docs/openapi.json is stale: run UPDATE=1 cargo test -p bellwire-api --test it contract");
}

#[derive(Debug)]
struct Facts {
    operations: Vec<Value>,
    schemas: serde_json::Map<String, Value>,
}

fn facts() -> Facts {
    let facts: Value = serde_json::from_str(include_str!("../data/svix-operations.json")).unwrap();
    Facts { operations: facts["operations"].as_array().unwrap().clone(), schemas: facts["schemas"].as_object().unwrap().clone() }
}

fn schema_name(content: &Value) -> Option<&str> {
    content["content"]["application/json"]["schema"]["$ref"].as_str()?.rsplit('/').next()
}

/// If it fails, a client library of Svix calls something that is not there, or with a status it does not expect.
#[test]
fn every_first_operation_of_the_svix_api_is_served_with_its_statuses_and_parameters() {
    let document = document();
    let mut missing = Vec::new();
    for fact in facts().operations {
        let (method, path) = (fact["method"].as_str().unwrap(), fact["path"].as_str().unwrap());
        let operation = &document["paths"][path][method.to_lowercase()];
        if operation["operationId"] != fact["operationId"] {
            missing.push(format!("{method} {path}"));
            continue;
        }
        let ours: Vec<&String> =
            operation["responses"].as_object().unwrap().keys().filter(|status| status.starts_with('2')).collect();
        let theirs: Vec<&String> = fact["success"].as_object().unwrap().keys().collect();
        // One client generation reads the new key from an answer that its document does not have.
        let is_extra = |status: &String| path.ends_with("/secret/rotate") && status == "200";
        let ours: Vec<&String> = ours.into_iter().filter(|status| !is_extra(status)).collect();
        if ours != theirs {
            missing.push(format!("{method} {path}: statuses {ours:?} instead of {theirs:?}"));
        }
        let known: Vec<&str> = operation["parameters"]
            .as_array()
            .map_or(Vec::new(), |list| list.iter().filter_map(|p| p["name"].as_str()).collect());
        for parameter in fact["parameters"].as_array().unwrap() {
            // Keys on PUT and PATCH mean nothing: these are idempotent by themselves.
            if !known.contains(&parameter.as_str().unwrap()) {
                missing.push(format!("{method} {path}: parameter {parameter}"));
            }
        }
    }
    assert!(missing.is_empty(), "not as in the Svix API:\n{}", missing.join("\n"));
}

/// If it fails, today's client libraries cannot deserialize an answer, or a field they send is dropped in silence.
#[test]
fn bodies_have_the_whole_field_set_of_the_svix_api() {
    let (document, facts) = (document(), facts());
    let mut missing = Vec::new();
    let fields = |name: &str| -> BTreeMap<String, Value> {
        let schema = &document["components"]["schemas"][name];
        schema["properties"].as_object().map_or(BTreeMap::new(), |p| p.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    };
    let item_of = |name: &str| name.strip_prefix("ListResponse_").and_then(|rest| rest.strip_suffix('_')).map(str::to_owned);
    for fact in &facts.operations {
        let (method, path) = (fact["method"].as_str().unwrap(), fact["path"].as_str().unwrap());
        let operation = &document["paths"][path][method.to_lowercase()];
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (status, theirs) in fact["success"].as_object().unwrap() {
            if let (Some(theirs), Some(ours)) = (theirs.as_str(), schema_name(&operation["responses"][status])) {
                pairs.push((theirs, ours));
            }
        }
        if let (Some(theirs), Some(ours)) = (fact["body"].as_str(), schema_name(&operation["requestBody"])) {
            pairs.push((theirs, ours));
        }
        for (theirs, ours) in pairs {
            let mut compare = |theirs: &str, ours: &str| {
                let ours_fields = fields(ours);
                for field in facts.schemas[theirs]["properties"].as_array().unwrap() {
                    if !ours_fields.contains_key(field.as_str().unwrap()) {
                        missing.push(format!("{method} {path}: {ours} lacks {field} of {theirs}"));
                    }
                }
            };
            compare(theirs, ours);
            if let (Some(theirs), Some(ours)) = (item_of(theirs), item_of(ours)) {
                compare(&theirs, &ours);
            }
        }
    }
    assert!(missing.is_empty(), "fields are missing:\n{}", missing.join("\n"));
}

/// If it fails, a tool reading the document stops at a reference to nothing.
#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => found.push(target.clone()),
                _ => walk(value, found),
            }),
            Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    walk(&document, &mut found);
    assert!(!found.is_empty());
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} leads nowhere");
    }
}
