//! One text out of a JSON body, without building the rest of it: what is passed over is checked for its form and forgotten.

use memchr::memmem;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::place::text_of;

/// The text at a pointer of these tokens; `None` where there is none, or the body is no JSON. Of members that come twice the last
/// one counts, as it does for whoever parses all of it.
pub(crate) fn text_at(body: &[u8], tokens: &[String]) -> Option<String> {
    if tokens.iter().any(|token| is_nowhere(body, token)) {
        return None;
    }
    // What is passed over is not looked at that closely.
    let text = std::str::from_utf8(body).ok()?;
    let mut json = serde_json::Deserializer::from_str(text);
    let found = At(tokens).deserialize(&mut json).ok()?;
    json.end().ok()?;
    found
}

/// No member can have this name, as most events have none of those that are looked for: found out much faster than by parsing.
fn is_nowhere(body: &[u8], name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    // A number may be a place in an array, and only `\u` writes plain characters in another way.
    name.chars().all(is_plain)
        && name.parse::<usize>().is_err()
        && memmem::find(body, format!("\"{name}\"").as_bytes()).is_none()
        && memmem::find(body, b"\\u").is_none()
}

/// What stands at the end of a path.
#[derive(Clone, Copy)]
struct At<'t>(&'t [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl At<'_> {
    fn here(self, value: impl Into<Value>) -> Option<String> {
        self.0.is_empty().then(|| value.into()).as_ref().and_then(text_of).map(std::borrow::Cow::into_owned)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.here(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.here(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.here(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.here(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let next = self.0.split_first().and_then(|(token, rest)| Some((token.parse::<usize>().ok()?, At(rest))));
        let mut found = None;
        for index in 0.. {
            let is_there = match next {
                Some((wanted, rest)) if wanted == index => elements.next_element_seed(rest)?.map(|text| found = text).is_some(),
                _ => elements.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_there {
                break;
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.split_first();
        let mut found = None;
        while let Some(is_wanted) = members.next_key_seed(Is(wanted.map(|(token, _)| token.as_str())))? {
            match wanted {
                Some((_, rest)) if is_wanted => found = members.next_value_seed(At(rest))?,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Whether a name is the one that is looked for.
struct Is<'t>(Option<&'t str>);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(self.0 == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(pointer: &str) -> Vec<String> {
        pointer.split('/').skip(1).map(str::to_owned).collect()
    }

    /// Broken: an event is called otherwise than it was when all of the body was parsed.
    #[test]
    fn what_is_plucked_is_what_parsing_all_of_it_gives() {
        let bodies = [
            r#"{"action":"opened","a":{"b":[1,{"c":"x\u00e9\n"},true,null,1.50,-3,1e3]},"z":18446744073709551615}"#,
            r#"{"a":{"b":[0,{"c":1}]},"a":{"b":[]}}"#,
            r#"{"a":{"b":[0,{"c":1}]},"a":7}"#,
            r#"{"action":"first","action":"last","a":{"c":1,"b":2}}"#,
            r#"{"\u0061ction":"written otherwise","\u007a":1,"a":{"\u0063":"too","b":[1]}}"#,
            r#"{"b":{"action":1},"text":"no member: \"action\""}"#,
            r#"[{"a":1},"t"]"#,
            r#""text""#,
            r#"{"action":"opened"} x"#,
            r#"{"action":"opened""#,
            r#"{"action":{"a":1},"a":[]}"#,
            "",
        ];
        for body in bodies {
            for pointer in [
                "/action", "/a", "/a/b", "/a/b/0", "/a/b/1/c", "/a/b/2", "/a/b/3", "/a/b/4", "/a/b/5", "/a/b/6", "/a/b/9",
                "/a/b/-1", "/0/a", "/1", "/z", "/", "/a/c",
            ] {
                let whole: Option<Value> = serde_json::from_slice(body.as_bytes()).ok();
                let expected = whole.as_ref().and_then(|value| value.pointer(pointer)).and_then(text_of);
                assert_eq!(
                    text_at(body.as_bytes(), &tokens(pointer)),
                    expected.map(|text| text.into_owned()),
                    "{pointer} of {body}"
                );
            }
        }
        assert_eq!(text_at(b"{\"action\":\"a\",\"b\":\"\xff\"}", &tokens("/action")), None);
    }
}
