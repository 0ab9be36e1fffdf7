//! The OpenAPI 3.1 document, made from the route table and the wire types: what is not served cannot be in it.

pub mod operation;
mod param;

use std::collections::BTreeMap;

use bellwire_core::limits;
use serde_json::{Map, Value, json};

use crate::error::Code;
use crate::router::{Access, ROUTES, Reach, Route};
use operation::Shape;

/// The document, indented, always the same text for the same code.
pub fn openapi_json() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

fn document() -> Value {
    let mut schemas = BTreeMap::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES.iter().filter(|route| route.path.starts_with("/api/") || route.path.starts_with("/ingest/")) {
        let operation = operation_of(route, &mut schemas);
        paths.entry(route.path).or_default().insert(route.method.as_str().to_ascii_lowercase(), operation);
    }
    schemas.insert("HttpErrorOut".into(), error_schema());
    schemas.insert("HTTPValidationError".into(), validation_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bellwire",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Webhooks: send, see, repeat. What the Svix API names has its paths and shapes here, so its client libraries work.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "HTTPBearer": { "type": "http", "scheme": "bearer", "description": "An API key (`bw_…`) or a token." },
            },
        },
    })
}

fn error_schema() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "properties": { "code": { "type": "string", "enum": codes }, "detail": { "type": "string" } },
        "required": ["code", "detail"],
    })
}

fn validation_schema() -> Value {
    json!({
        "type": "object",
        "properties": { "detail": { "type": "array", "items": {
            "type": "object",
            "properties": {
                "loc": { "type": "array", "items": { "type": "string" } },
                "msg": { "type": "string" },
                "type": { "type": "string" },
            },
            "required": ["loc", "msg", "type"],
        } } },
        "required": ["detail"],
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Registers a shape with everything in it, and refers to it.
fn shape(shape: &Shape, schemas: &mut BTreeMap<String, Value>) -> Value {
    let name = (shape.name)().into_owned();
    let mut nested = Vec::new();
    (shape.nested)(&mut nested);
    nested.push((name.clone(), (shape.schema)()));
    for (name, schema) in nested {
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
    }
    if !shape.is_list {
        return reference(&name);
    }
    let list = format!("ListResponse_{name}_");
    let page = json!({
        "type": "object",
        "properties": {
            "data": { "type": "array", "items": reference(&name), "maxItems": limits::PAGE_LIMIT_MAX },
            "iterator": { "type": ["string", "null"], "description": "Of the last row; for the next page." },
            "prevIterator": { "type": ["string", "null"], "description": "Of the first row; for the page before." },
            "done": { "type": "boolean", "description": "No more in this direction." },
        },
        "required": ["data", "iterator", "prevIterator", "done"],
    });
    schemas.entry(list.clone()).or_insert(page);
    reference(&list)
}

fn content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn operation_of(route: &Route, schemas: &mut BTreeMap<String, Value>) -> Value {
    let op = route.op;
    let mut operation = Map::new();
    operation.insert("operationId".into(), json!(op.id));
    operation.insert("summary".into(), json!(op.summary));
    operation.insert("tags".into(), json!([op.tag]));
    let parameters: Vec<_> = param::of_path(route.path).into_iter().chain(op.params.iter().map(param::describe)).collect();
    if !parameters.is_empty() {
        operation.insert("parameters".into(), json!(parameters));
    }
    if let Some(body) = &op.body {
        let schema = shape(body, schemas);
        operation.insert("requestBody".into(), json!({ "required": true, "content": content(&schema) }));
    }
    let mut responses = Map::new();
    for (status, body) in op.answers {
        let mut response = json!({ "description": success_text(*status) });
        if let Some(body) = body {
            response["content"] = content(&shape(body, schemas));
        }
        responses.insert(status.to_string(), response);
    }
    for (status, text) in errors_of(route) {
        let name = if status == 422 { "HTTPValidationError" } else { "HttpErrorOut" };
        responses.insert(status.to_string(), json!({ "description": text, "content": content(&reference(name)) }));
    }
    operation.insert("responses".into(), Value::Object(responses));
    if route.access == Access::Public {
        operation.insert("security".into(), json!([]));
    } else {
        operation.insert("security".into(), json!([{ "HTTPBearer": [] }]));
        let scope = match route.access {
            Access::Scope(scope) => scope.as_str(),
            _ => "any",
        };
        operation.insert("x-scope".into(), json!(scope));
        operation.insert("x-application-credential".into(), json!(route.reach == Reach::Application));
    }
    Value::Object(operation)
}

fn success_text(status: u16) -> &'static str {
    match status {
        201 => "Created",
        202 => "Accepted: durable, and on its way",
        204 => "Done",
        _ => "OK",
    }
}

/// What can go wrong in any operation of this kind.
fn errors_of(route: &Route) -> Vec<(u16, &'static str)> {
    let mut errors = vec![
        (405, "The path exists, but not with this method"),
        (500, "Our fault; it is logged under the request id in the text"),
        (503, "Overloaded, stopping, or the disk is full; nothing was stored; retry after the time in Retry-After"),
    ];
    if route.access != Access::Public {
        errors.extend([
            (400, "The request is not HTTP as it should be, or broke off"),
            (401, "No credential, or not a valid one"),
            (403, "The credential may not do this"),
            (404, "Not here, for this credential"),
            (422, "A value is not what it must be; `loc` says where"),
        ]);
    }
    if route.op.body.is_some() {
        errors.extend([
            (408, "The body did not arrive in time"),
            (413, "The body is too large; nothing was stored"),
            (415, "The body is not JSON by its Content-Type, or has a Content-Encoding"),
        ]);
    }
    if route.method != http::Method::GET && route.access != Access::Public {
        errors.push((409, "A unique name is taken, or the idempotency key was used with another request"));
    }
    errors
}
