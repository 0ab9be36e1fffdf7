//! Inngest: the body as it is, or as RFC 8785 (JCS) would write it, and the time.

use serde_json::Value;

use crate::place::Scope;
use crate::{Reason, Refusal};

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let time = scope.field("t").ok_or_else(|| Refusal::at(Reason::ValueMissing, "field:t"))?;
    let body = scope.view.request.body;
    let mut contents = vec![[body, time.as_bytes()].concat()];
    if let Some(json) = scope.view.json() {
        let mut canonical = String::with_capacity(body.len() + time.len());
        write(json, &mut canonical);
        canonical.push_str(time);
        contents.push(canonical.into_bytes());
    }
    Ok(contents)
}

/// Depth is bounded by the parser, which refuses documents nested more than 128 deep.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(element, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|left, right| left.0.encode_utf16().cmp(right.0.encode_utf16()));
            out.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write(member, out);
            }
            out.push('}');
        }
        Value::Number(number) => out.push_str(&number_text(number.as_f64().unwrap_or_default())),
        other => out.push_str(&other.to_string()),
    }
}

/// A number as ECMAScript writes it.
fn number_text(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{:e}", number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let written = match exponent {
        e if (count - 1..21).contains(&e) => format!("{digits}{}", zeros(e - count + 1)),
        e if (0..21).contains(&e) => {
            let (whole, fraction) = digits.split_at(usize::try_from(e + 1).unwrap_or_default());
            format!("{whole}.{fraction}")
        }
        e if (-6..0).contains(&e) => format!("0.{}{digits}", zeros(-e - 1)),
        e => {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            format!("{first}{point}{rest}e{}{}", if e < 0 { '-' } else { '+' }, e.abs())
        }
    };
    if number < 0.0 { format!("-{written}") } else { written }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: genuine requests with fractions or large numbers are refused (examples of RFC 8785).
    #[test]
    fn numbers_and_members_are_written_as_the_rfc_says() {
        for (number, text) in [
            (4.5, "4.5"),
            (1e30, "1e+30"),
            (2e-3, "0.002"),
            (0.000_001, "0.000001"),
            (1e-7, "1e-7"),
            (1e-27, "1e-27"),
            (333_333_333.333_333_3, "333333333.3333333"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (-0.0, "0"),
            (-123.0, "-123"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (5e-324, "5e-324"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
        ] {
            assert_eq!(number_text(number), text);
        }
        let json: Value =
            serde_json::from_str("{\"\u{20ac}\":1,\"\\r\":2,\"\u{1f600}\":3,\"\u{fb33}\":4,\"a\":[true,null,\"\\u001f\"]}")
                .unwrap();
        let mut out = String::new();
        write(&json, &mut out);
        assert_eq!(out, "{\"\\r\":2,\"a\":[true,null,\"\\u001f\"],\"\u{20ac}\":1,\"\u{1f600}\":3,\"\u{fb33}\":4}");
    }
}
