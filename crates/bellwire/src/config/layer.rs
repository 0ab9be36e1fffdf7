//! The layers, strongest first: flag, environment, file, default. Every value is kept as text with its origin; the sections
//! parse it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::Value;

use super::error::ConfigError;
use super::key::Key;
use super::{keys, node, suggest};

/// Variables that begin with our prefix and are not configuration keys: read by the command line itself.
pub const OTHER_VARIABLES: &[&str] = &["BELLWIRE_CONFIG", "BELLWIRE_SERVER", "BELLWIRE_TOKEN"];
/// The file that is read when it exists and no other is named.
pub const FILE_NAME: &str = "bellwire.toml";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// As written on the command line, such as `--listen`.
    Flag(String),
    Variable(String),
    File(PathBuf),
    /// Follows from another key, or from the machine.
    Derived(&'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Derived(key) => write!(f, "derived from {key}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What the layers are gathered from; all of it is an argument, so that tests need no process of their own.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by `--config` or `BELLWIRE_CONFIG`; it must exist.
    pub file: Option<PathBuf>,
    /// Folder in which [`FILE_NAME`] is looked for otherwise; it may be absent.
    pub folder: PathBuf,
    pub variables: Vec<(String, String)>,
    /// (flag as written, key, value)
    pub flags: Vec<(String, String, String)>,
}

/// One effective value.
#[derive(Clone, Debug)]
pub struct Setting {
    pub text: String,
    pub origin: Origin,
}

/// All effective values, one for each key.
#[derive(Debug)]
pub struct Layers {
    settings: BTreeMap<&'static str, Setting>,
}

impl Layers {
    /// Reads all layers.
    ///
    /// # Errors
    /// [`ConfigError`] for unknown names, unreadable files and values that are neither text, number, boolean nor list.
    pub fn gather(sources: &Sources) -> Result<Self, ConfigError> {
        let mut layers = Self { settings: BTreeMap::new() };
        for key in keys() {
            layers.put(key, key.default.to_owned(), Origin::Default);
        }
        layers.read_file(sources)?;
        layers.read_variables(&sources.variables)?;
        for (flag, name, value) in &sources.flags {
            let key = find(name).ok_or_else(|| unknown(flag.clone(), name))?;
            layers.put(key, value.clone(), Origin::Flag(flag.clone()));
        }
        if layers.text("storage.url").is_empty() {
            let text = format!("sqlite://{}", layers.text("data_dir"));
            layers.settings.insert("storage.url", Setting { text, origin: Origin::Derived("data_dir") });
        }
        if layers.text("node.name").is_empty() {
            let text = node::host_name();
            layers.settings.insert("node.name", Setting { text, origin: Origin::Derived("the host's name") });
        }
        Ok(layers)
    }

    /// The effective value of a key, and where it came from.
    pub fn setting(&self, key: &'static Key) -> Setting {
        self.settings.get(key.path).cloned().unwrap_or(Setting { text: String::new(), origin: Origin::Default })
    }

    /// Parses a key's value; an empty one is none.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with what `parse` says.
    pub fn optional<T>(
        &self,
        key: &'static Key,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        if self.text(key.path).trim().is_empty() { Ok(None) } else { self.required(key, parse).map(Some) }
    }

    /// Parses a key's value, which must not be empty unless `parse` takes that.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with what `parse` says.
    pub fn required<T>(&self, key: &'static Key, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        let setting = self.setting(key);
        parse(setting.text.trim()).map_err(|problem| {
            let shown = key.shown(&setting.text);
            // The parser may quote the value.
            let problem = if shown == setting.text { problem } else { "is not valid".to_owned() };
            ConfigError::Value { place: place(&setting.origin), key: key.path, value: shown, problem, accepts: key.accepts }
        })
    }

    fn text(&self, path: &str) -> &str {
        self.settings.get(path).map_or("", |setting| setting.text.as_str())
    }

    fn put(&mut self, key: &'static Key, text: String, origin: Origin) {
        self.settings.insert(key.path, Setting { text, origin });
    }

    fn read_file(&mut self, sources: &Sources) -> Result<(), ConfigError> {
        let path = sources.file.clone().unwrap_or_else(|| sources.folder.join(FILE_NAME));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if sources.file.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ConfigError::Unreadable { path, problem: error.to_string() }),
        };
        let table: toml::Table =
            toml::from_str(&text).map_err(|error| ConfigError::Syntax { path: path.clone(), problem: error.to_string() })?;
        let place = path.display().to_string();
        for (name, value) in table {
            match value {
                Value::Table(section) if keys().any(|key| key.section() == name) => {
                    for (leaf, value) in section {
                        self.put_from_file(&place, &path, &format!("{name}.{leaf}"), &value)?;
                    }
                }
                value => self.put_from_file(&place, &path, &name, &value)?,
            }
        }
        Ok(())
    }

    fn put_from_file(&mut self, place: &str, path: &std::path::Path, name: &str, value: &Value) -> Result<(), ConfigError> {
        let key = find(name).ok_or_else(|| unknown(place.to_owned(), name))?;
        let text = as_text(value).ok_or_else(|| ConfigError::Value {
            place: place.to_owned(),
            key: key.path,
            value: key.shown(&value.to_string()),
            problem: format!("is a {}", value.type_str()),
            accepts: key.accepts,
        })?;
        self.put(key, text, Origin::File(path.to_owned()));
        Ok(())
    }

    fn read_variables(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("BELLWIRE_")) {
            if OTHER_VARIABLES.contains(&name.as_str()) || is_of_kubernetes(name, value) {
                continue;
            }
            let Some(key) = keys().find(|key| key.variable() == *name) else {
                let nearest = suggest::nearest(name, keys().map(|key| key.path));
                let suggestion = nearest.and_then(find).map(Key::variable);
                return Err(ConfigError::UnknownVariable { name: name.clone(), suggestion });
            };
            self.put(key, value.clone(), Origin::Variable(name.clone()));
        }
        Ok(())
    }
}

/// Kubernetes gives every container `<SERVICE>_SERVICE_HOST`, `<SERVICE>_PORT` and their like for each Service of the
/// namespace; a Service called `bellwire` must not keep Bellwire from starting.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let rest = &name["BELLWIRE_".len()..];
    rest == "SERVICE_HOST"
        || rest.starts_with("SERVICE_PORT")
        || (rest == "PORT" && value.contains("://"))
        || rest.strip_prefix("PORT_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn find(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == name)
}

fn unknown(place: String, name: &str) -> ConfigError {
    let suggestion = suggest::nearest(name, keys().map(|key| key.path)).map(str::to_owned);
    ConfigError::UnknownKey { place, key: name.to_owned(), suggestion }
}

/// The place as an error names it.
pub fn place(origin: &Origin) -> String {
    match origin {
        Origin::Flag(name) | Origin::Variable(name) => name.clone(),
        Origin::File(path) => path.display().to_string(),
        Origin::Derived(_) | Origin::Default => "default".to_owned(),
    }
}

fn as_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Array(items) => items.iter().map(as_text).collect::<Option<Vec<_>>>()?.join(","),
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}
