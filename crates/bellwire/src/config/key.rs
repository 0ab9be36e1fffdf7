//! One configuration key: its name in the file and in the environment, what it accepts, and its default. The whole table is
//! what the reader, `config show`, `config default` and `docs/configuration.md` are made of.

/// A key as documented. All texts are part of the generated reference.
#[derive(Debug)]
pub struct Key {
    /// `section.key`, or `key` for the few outside a section.
    pub path: &'static str,
    /// The default as it would be written; empty: none.
    pub default: &'static str,
    /// A value to show where there is no default.
    pub example: &'static str,
    /// What a value looks like.
    pub accepts: &'static str,
    /// What it does, and why one would change it.
    pub about: &'static str,
    pub secrecy: Secrecy,
}

/// How much of a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// All of it.
    Open,
    /// A URL whose user name and password are hidden.
    UrlCredentials,
    /// Nothing.
    Secret,
}

pub const REDACTED: &str = "[redacted]";

impl Key {
    /// `BELLWIRE_SECTION__KEY`.
    pub fn variable(&self) -> String {
        format!("BELLWIRE_{}", self.path.replace('.', "__").to_ascii_uppercase())
    }

    /// The section, empty for keys outside one.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name within its section.
    pub fn leaf(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, leaf)| leaf)
    }

    /// A value as it may be shown to people.
    pub fn shown(&self, value: &str) -> String {
        self.secrecy.shown(value)
    }
}

impl Secrecy {
    /// A value as it may be shown to people.
    pub fn shown(self, value: &str) -> String {
        match self {
            Self::Open => value.to_owned(),
            Self::Secret if value.is_empty() => String::new(),
            Self::Secret => REDACTED.to_owned(),
            Self::UrlCredentials => {
                let shown = match (value.find("://"), value.rfind('@')) {
                    (Some(scheme), Some(at)) if at > scheme => {
                        format!("{}://{REDACTED}{}", &value[..scheme], &value[at..])
                    }
                    (None, Some(_)) => REDACTED.to_owned(),
                    _ => value.to_owned(),
                };
                without_password(&shown)
            }
        }
    }
}

/// Databases take the password as a parameter too (`?password=…`).
fn without_password(url: &str) -> String {
    let Some((before, query)) = url.split_once('?') else { return url.to_owned() };
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    };
    format!("{before}?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn key(secrecy: Secrecy) -> Key {
        Key { path: "delivery.proxy", default: "", example: "", accepts: "", about: "", secrecy }
    }

    /// Broken: `config show` or an error message hands a password to whoever reads the terminal or the log.
    #[test]
    fn secrets_and_passwords_in_urls_are_never_shown() {
        assert_eq!(key(Secrecy::Secret).shown("hunter2"), REDACTED);
        assert_eq!(key(Secrecy::Secret).shown(""), "");
        let shown = key(Secrecy::UrlCredentials);
        assert_eq!(shown.shown("http://joe:p@ss@proxy:3128"), "http://[redacted]@proxy:3128");
        assert_eq!(shown.shown("joe:pass@proxy:3128"), REDACTED);
        assert_eq!(shown.shown("http://proxy:3128"), "http://proxy:3128");
        assert_eq!(
            shown.shown("postgres://db/x?password=p&sslmode=require"),
            "postgres://db/x?password=[redacted]&sslmode=require"
        );
        assert_eq!(shown.shown("postgres://db/x?password=p@q"), "postgres://[redacted]@q", "rather too much than too little");
    }

    /// Broken: the names that the outside relies on (`BELLWIRE_DELIVERY__PROXY`) change.
    #[test]
    fn the_variable_is_made_of_section_and_key() {
        let key = key(Secrecy::Open);
        assert_eq!((key.variable().as_str(), key.section(), key.leaf()), ("BELLWIRE_DELIVERY__PROXY", "delivery", "proxy"));
    }
}
