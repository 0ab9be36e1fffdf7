//! What can be wrong with a configuration: each error names the place, the key, the value, and what is accepted.

use std::path::PathBuf;

/// The texts are meant for people and are complete: nothing needs to be added around them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{place}: unknown key {key:?}{}", hint(.suggestion.as_deref()))]
    UnknownKey { place: String, key: String, suggestion: Option<String> },
    #[error("unknown environment variable {name}{} (variables that begin with BELLWIRE_ are configuration)", hint(.suggestion.as_deref()))]
    UnknownVariable { name: String, suggestion: Option<String> },
    #[error("{place}: {key} = {value:?}: {problem}; accepted: {accepts}")]
    Value { place: String, key: &'static str, value: String, problem: String, accepts: &'static str },
    #[error("{path}: cannot be read: {problem}", path = .path.display())]
    Unreadable { path: PathBuf, problem: String },
    #[error("{path}: is not valid TOML: {problem}", path = .path.display())]
    Syntax { path: PathBuf, problem: String },
    #[error("--set {text}: write it as key=value, such as --set delivery.request_timeout=10s")]
    SetForm { text: String },
    /// Keys that are fine alone and not together.
    #[error("{0}")]
    Together(String),
}

fn hint(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `bellwire config default` lists all keys".to_owned(),
    }
}
