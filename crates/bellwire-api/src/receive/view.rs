//! A body as JSON, for what looks inside: places (`/data/id`, `header:x-id`, `query:id`), schemas, and later filters. The body itself
//! stays as it came.
//!
//! | content type | view |
//! |---|---|
//! | `application/x-www-form-urlencoded` | an object of texts; a name that comes several times is an array |
//! | `multipart/form-data` | the same of its text parts; files are left out |
//! | `text/xml`, `application/xml`, `…+xml` | `{root: …}`: attributes as `@name`, text as `#text` (or alone), repeated elements as arrays |
//! | anything else | the JSON it is, or nothing |

use bellwire_core::limits;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

/// Fields of a form or parts of a multipart body.
const FIELDS_MAX: usize = 4_096;

/// The body, read as its content type says; `None` where it cannot be.
pub fn of(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/x-www-form-urlencoded" => form(body),
        "multipart/form-data" => multipart(body, boundary(content_type)?),
        "text/xml" | "application/xml" => xml(body),
        _ if media_type.ends_with("+xml") => xml(body),
        _ => serde_json::from_slice(body).ok(),
    }
}

/// A query or form as an object.
pub fn form(body: &[u8]) -> Option<Value> {
    let mut fields = Map::new();
    for (count, (name, value)) in url::form_urlencoded::parse(body).enumerate() {
        if count >= FIELDS_MAX {
            return None;
        }
        add(&mut fields, name.into_owned(), Value::String(value.into_owned()));
    }
    Some(Value::Object(fields))
}

/// Under a name that is taken, both are kept.
fn add(fields: &mut Map<String, Value>, name: String, value: Value) {
    match fields.get_mut(&name) {
        Some(Value::Array(values)) => values.push(value),
        Some(known) => {
            let first = std::mem::take(known);
            *known = Value::Array(vec![first, value]);
        }
        None => drop(fields.insert(name, value)),
    }
}

fn boundary(content_type: &str) -> Option<&str> {
    parameter(content_type, "boundary")
}

fn parameter<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    let mut parameters = header.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, value) = parameters.find(|(key, _)| key.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"')).filter(|value| !value.is_empty())
}

fn multipart(body: &[u8], boundary: &str) -> Option<Value> {
    let marker = format!("--{boundary}");
    let text = String::from_utf8_lossy(body);
    let mut fields = Map::new();
    for (count, part) in text.split(marker.as_str()).skip(1).enumerate() {
        if part.starts_with("--") {
            return Some(Value::Object(fields));
        }
        if count >= FIELDS_MAX {
            return None;
        }
        let (head, value) = part.strip_prefix("\r\n")?.split_once("\r\n\r\n")?;
        let value = value.strip_suffix("\r\n")?;
        let disposition = head
            .split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"));
        let (_, disposition) = disposition?;
        if parameter(disposition, "filename").is_none() {
            add(&mut fields, parameter(disposition, "name")?.to_owned(), Value::String(value.to_owned()));
        }
    }
    None
}

/// Without DTDs: entities cannot make a small document large.
fn xml(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    // The parser goes down by itself: how deep is known before it starts.
    if depth_bound(text) > limits::XML_DEPTH_MAX {
        return None;
    }
    let options = roxmltree::ParsingOptions { nodes_limit: limits::XML_NODES_MAX, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options).ok()?;
    let root = document.root_element();
    let mut whole = Map::new();
    whole.insert(root.tag_name().name().to_owned(), element(root));
    Some(Value::Object(whole))
}

/// Never less than the depth of the elements.
fn depth_bound(text: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for tag in text.split('<').skip(1) {
        if tag.starts_with('/') {
            depth = depth.saturating_sub(1);
        } else if !tag.starts_with(['!', '?']) {
            let is_closed_at_once = tag.split('>').next().is_some_and(|head| head.ends_with('/'));
            most = most.max(depth + 1);
            depth += usize::from(!is_closed_at_once);
        }
    }
    most
}

fn element(node: roxmltree::Node<'_, '_>) -> Value {
    let mut fields = Map::new();
    for attribute in node.attributes() {
        fields.insert(format!("@{}", attribute.name()), Value::String(attribute.value().to_owned()));
    }
    let mut text = String::new();
    for child in node.children() {
        if child.is_element() {
            add(&mut fields, child.tag_name().name().to_owned(), element(child));
        } else if let Some(piece) = child.text().filter(|_| child.is_text()) {
            text.push_str(piece);
        }
    }
    let text = text.trim();
    match (fields.is_empty(), text.is_empty()) {
        (true, _) => Value::String(text.to_owned()),
        (false, true) => Value::Object(fields),
        (false, false) => {
            fields.insert("#text".to_owned(), Value::String(text.to_owned()));
            Value::Object(fields)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(content_type: &str, body: &str) -> Option<Value> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        of(&headers, body.as_bytes())
    }

    /// Broken: a place that an operator names is looked for in something else than the sender sent.
    #[test]
    fn bodies_are_seen_as_the_same_json_whatever_their_kind() {
        assert_eq!(view("application/json", r#"{"a":1}"#), Some(json!({"a": 1})));
        assert_eq!(view("application/x-www-form-urlencoded", "a=1&b=x+y&b=%C3%A9"), Some(json!({"a": "1", "b": ["x y", "é"]})));
        let parts = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; name=\"f\"; \
                     filename=\"f\"\r\n\r\nfile\r\n--x--\r\n";
        assert_eq!(view("multipart/form-data; boundary=x", parts), Some(json!({"a": "1"})));
        let xml = "<?xml version=\"1.0\"?><order id=\"7\"><item>a</item><item q=\"2\">b</item><note/></order>";
        let seen = json!({"order": {"@id": "7", "item": ["a", {"@q": "2", "#text": "b"}], "note": ""}});
        assert_eq!(view("application/soap+xml; charset=utf-8", xml), Some(seen));
        assert_eq!(view("text/plain", "hello"), None);
    }

    /// Broken: a small body takes the stack or the memory of the server (T10, T23).
    #[test]
    fn hostile_bodies_are_not_seen_at_all() {
        assert_eq!(view("text/xml", &"<a>".repeat(1_000_000)), None);
        assert_eq!(view("text/xml", &format!("{}{}", "<a>".repeat(65), "</a>".repeat(65))), None);
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><x>&b;</x>";
        assert_eq!(view("text/xml", bomb), None);
        let file = "<!DOCTYPE x [<!ENTITY f SYSTEM \"file:///etc/passwd\">]><x>&f;</x>";
        assert_eq!(view("text/xml", file), None);
        assert_eq!(view("application/json", &"[".repeat(1_000_000)), None);
        assert_eq!(view("application/x-www-form-urlencoded", &"a&".repeat(FIELDS_MAX + 1)), None);
    }
}
