//! Query parameters: read once, checked by name, faults told with value and bounds.

use std::str::FromStr;

use bellwire_core::{Direction, PageQuery, Timestamp, limits};

use crate::error::ApiError;
use crate::iterator::{self, Travel};

/// The decoded pairs of a query string.
pub struct Query(Vec<(String, String)>);

fn invalid(name: &str, msg: String) -> ApiError {
    ApiError::invalid(&["query", name], msg, "value_error")
}

fn shown(value: &str) -> String {
    let short: String = value.chars().take(64).collect();
    format!("{short:?}")
}

impl Query {
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let pairs: Vec<_> = url::form_urlencoded::parse(text.as_bytes())
            .take(limits::QUERY_PAIRS_MAX + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        if pairs.len() > limits::QUERY_PAIRS_MAX {
            let text = format!("more than {} parameters", limits::QUERY_PAIRS_MAX);
            return Err(ApiError::invalid(&["query"], text, "value_error"));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; the last one if it is repeated.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn bool(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(invalid(name, format!("{} is neither true nor false", shown(other)))),
        }
    }

    pub fn timestamp(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let parse = |value: &str| {
            Timestamp::parse_rfc3339(value).ok_or_else(|| {
                invalid(name, format!("{} is not a date-time such as 2026-11-20T10:00:00Z (RFC 3339)", shown(value)))
            })
        };
        self.get(name).map(parse).transpose()
    }

    /// A parameter of a wire text type.
    pub fn text<T: FromStr<Err = String>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name).map(|value| value.parse().map_err(|msg| invalid(name, msg))).transpose()
    }

    /// A parameter that may be repeated and may hold several values with commas between.
    pub fn list<T: FromStr<Err = String>>(&self, name: &str) -> Result<Vec<T>, ApiError> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .flat_map(|(_, values)| values.split(','))
            .filter(|value| !value.is_empty())
            .map(|value| value.parse().map_err(|msg| invalid(name, msg)))
            .collect()
    }

    /// One of the numbers that mean something.
    pub fn one_of(&self, name: &str, known: &[i64]) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) if known.contains(&number) => Ok(Some(number)),
            _ => {
                let list: Vec<_> = known.iter().map(i64::to_string).collect();
                Err(invalid(name, format!("{} is not one of {}", shown(value), list.join(", "))))
            }
        }
    }

    /// One of some texts.
    pub fn choice(&self, name: &str, known: &[&'static str]) -> Result<Option<&'static str>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match known.iter().find(|text| **text == value) {
            Some(text) => Ok(Some(text)),
            None => Err(invalid(name, format!("{} is not one of {}", shown(value), known.join(", ")))),
        }
    }

    pub fn limit(&self) -> Result<usize, ApiError> {
        let Some(value) = self.get("limit") else { return Ok(limits::PAGE_LIMIT_DEFAULT) };
        match value.parse() {
            Ok(limit) if (1..=limits::PAGE_LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(invalid("limit", format!("{} is not a whole number from 1 to {}", shown(value), limits::PAGE_LIMIT_MAX))),
        }
    }

    fn order(&self, default: Direction) -> Result<Direction, ApiError> {
        match self.get("order") {
            None => Ok(default),
            Some("ascending") => Ok(Direction::Ascending),
            Some("descending") => Ok(Direction::Descending),
            Some(other) => Err(invalid("order", format!("{} is neither ascending nor descending", shown(other)))),
        }
    }

    /// `limit`, `iterator` and `order` of a list.
    pub fn page<C: FromStr>(&self, default_order: Direction) -> Result<PageQuery<C>, ApiError> {
        let (limit, order) = (self.limit()?, self.order(default_order)?);
        let Some(text) = self.get("iterator").filter(|text| !text.is_empty()) else {
            return Ok(PageQuery { limit, order, after: None, backwards: false });
        };
        let (travel, cursor) = iterator::read(text);
        let cursor = cursor.parse().map_err(|_| {
            invalid(
                "iterator",
                format!(
                    "{} is not an iterator of this list; pass on `iterator` or `prevIterator` of an earlier answer",
                    shown(text)
                ),
            )
        })?;
        Ok(PageQuery { limit, order, after: Some(cursor), backwards: travel == Travel::Backward })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::text::EventTypeName;
    use bellwire_core::MessageId;

    #[test]
    fn bounds_are_named_when_they_are_broken() {
        for wrong in ["0", "251", "-1", "1e3", "", "99999999999999999999"] {
            let error = Query::parse(&format!("limit={wrong}")).unwrap().limit().unwrap_err();
            assert!(format!("{error}").contains("from 1 to 250"), "{error}");
        }
        assert_eq!(Query::parse("limit=250").unwrap().limit().unwrap(), 250);
    }

    #[test]
    fn event_types_come_repeated_or_with_commas() {
        let query = Query::parse("event_types=a.b,c.d&event_types=e").unwrap();
        let names: Vec<EventTypeName> = query.list("event_types").unwrap();
        assert_eq!(names.iter().map(|n| n.0.as_str()).collect::<Vec<_>>(), ["a.b", "c.d", "e"]);
        assert!(Query::parse("event_types=a%20b").unwrap().list::<EventTypeName>("event_types").is_err());
    }

    #[test]
    fn an_iterator_of_another_list_is_refused() {
        let query = Query::parse("iterator=app_0ujtsYcgvSTl8PAuAdqWYSMnLOv").unwrap();
        assert!(query.page::<MessageId>(Direction::Ascending).is_err());
    }
}
