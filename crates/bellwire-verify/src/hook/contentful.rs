//! Contentful: method, path, the headers that the request itself lists, and the body, a line each.

use crate::encoding::percent_encode;
use crate::place::Scope;
use crate::request::View;
use crate::{Reason, Refusal};

const SIGNED_HEADERS: &str = "x-contentful-signed-headers";
const TIMESTAMP: &str = "x-contentful-timestamp";
/// Contentful signs about six.
const HEADERS_MAX: usize = 64;

pub(super) fn contents(scope: &Scope<'_, '_>) -> Result<Vec<Vec<u8>>, Refusal> {
    let view = scope.view;
    let list =
        view.header(SIGNED_HEADERS)?.ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("header:{SIGNED_HEADERS}")))?;
    let mut names: Vec<String> = list.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    // A list without the timestamp would let anybody renew an old request.
    if names.len() > HEADERS_MAX || !names.iter().any(|name| name == TIMESTAMP) {
        return Err(Refusal::at(Reason::ValueMismatch, format!("header:{SIGNED_HEADERS}")));
    }
    let request = &view.request;
    let escaped = match request.query() {
        "" => request.path().to_owned(),
        query => format!("{}?{}", request.path(), escape(query)),
    };
    let listed = lines(view, &names)?;
    names.sort();
    let sorted = lines(view, &names)?;
    let mut contents = Vec::new();
    // Contentful's own library escapes the query as a whole and then the address once more; its documentation shows it plainly.
    let twice = encode_uri(&escaped);
    for (path, headers) in
        [(twice.as_str(), &sorted), (escaped.as_str(), &sorted), (request.path_and_query(), &sorted), (twice.as_str(), &listed)]
    {
        let mut content = format!("{}\n{path}\n{headers}\n", request.method).into_bytes();
        content.extend_from_slice(request.body);
        if !contents.contains(&content) {
            contents.push(content);
        }
    }
    Ok(contents)
}

fn lines(view: &View<'_>, names: &[String]) -> Result<String, Refusal> {
    let mut pairs = Vec::new();
    for name in names {
        let value = view.header(name)?.ok_or_else(|| Refusal::at(Reason::ValueMissing, format!("header:{name}")))?;
        pairs.push(format!("{name}:{}", value.trim()));
    }
    Ok(pairs.join(";"))
}

/// What JavaScript's `querystring.escape` leaves alone besides the unreserved characters.
fn escape(query: &str) -> String {
    let mut text = percent_encode(query);
    for (escape, character) in [("%21", "!"), ("%2A", "*"), ("%27", "'"), ("%28", "("), ("%29", ")")] {
        text = text.replace(escape, character);
    }
    text
}

/// What JavaScript's `encodeURI` does.
fn encode_uri(text: &str) -> String {
    text.split_inclusive(|c: char| c.is_ascii() && b";,/?:@&=+$!*'()#".contains(&(c as u8))).fold(String::new(), |out, part| {
        let (plain, kept) = match part.char_indices().next_back() {
            Some((at, last)) if last.is_ascii() && b";,/?:@&=+$!*'()#".contains(&(last as u8)) => part.split_at(at),
            _ => (part, ""),
        };
        out + &percent_encode(plain) + kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: genuine requests to addresses with a query are refused.
    #[test]
    fn addresses_are_escaped_as_the_official_library_does() {
        assert_eq!(escape("a=1&b=(é)"), "a%3D1%26b%3D(%C3%A9)");
        assert_eq!(encode_uri("/in/x?a%3D1 é"), "/in/x?a%253D1%20%C3%A9");
        assert_eq!(encode_uri(""), "");
    }
}
