//! Example events of every built-in preset, for tests, demos and the command line: realistic bodies without anybody's data.
//!
//! Signatures are not part of a fixture; [`crate::Preset::sign`] makes them for the secret at hand.
//!
//! ```
//! use bellwire_verify::fixtures;
//!
//! let pushes = fixtures::for_provider("github").filter(|fixture| fixture.event() == "push");
//! assert_eq!(pushes.count(), 1);
//! ```

pub mod handshake;
mod table;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

const INDEX: &str = include_str!("../fixtures/index.toml");

/// One example event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    provider: String,
    event: String,
    file: String,
    content_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(skip)]
    body: &'static [u8],
}

impl Fixture {
    /// The id of the preset (`github`).
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// What the preset reads as the event type, or a plain name where it reads none.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// Its path in `fixtures/`, unique (`github/push.json`).
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The value of the `Content-Type` header; `None` where the provider sends neither body nor type.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// All headers but those of signatures: the content type first, then what the provider sends with this event.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let content_type = self.content_type.as_deref().map(|value| ("Content-Type", value));
        content_type.into_iter().chain(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// The raw body.
    pub fn body(&self) -> &'static [u8] {
        self.body
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    fixture: Vec<Fixture>,
}

/// The index is part of the program and read by a test, so that it cannot be broken here; files without a row, or rows without a
/// file, are another test's.
static FIXTURES: LazyLock<Vec<Fixture>> = LazyLock::new(|| {
    let bodies: BTreeMap<&str, &'static [u8]> = table::FILES.iter().copied().collect();
    let mut fixtures = toml::from_str::<Index>(INDEX).map(|index| index.fixture).unwrap_or_default();
    for fixture in &mut fixtures {
        fixture.body = bodies.get(fixture.file.as_str()).copied().unwrap_or_default();
    }
    fixtures
});

/// All of them, providers in the order of the published list.
pub fn all() -> &'static [Fixture] {
    &FIXTURES
}

/// Those of one provider; none if there is no such provider.
pub fn for_provider(id: &str) -> impl Iterator<Item = &'static Fixture> {
    all().iter().filter(move |fixture| fixture.provider == id)
}
