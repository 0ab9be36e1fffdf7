//! What is wrong with a preset file: which file, which key, which value, and what to write instead.

/// A preset file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PresetError {
    /// Not TOML, an unknown or missing key, or a value of a wrong type; the message names line, key and what was expected.
    #[error("{file}: {message}")]
    Syntax { file: String, message: String },
    #[error("{file}: {key} = {value:?} cannot be used; write {hint}")]
    Value { file: String, key: String, value: String, hint: String },
}

/// Makes the errors of one file.
pub(super) struct Blame<'a>(pub(super) &'a str);

impl Blame<'_> {
    pub(super) fn value(&self, key: &str, value: &str, hint: impl Into<String>) -> PresetError {
        PresetError::Value { file: self.0.to_owned(), key: key.to_owned(), value: value.to_owned(), hint: hint.into() }
    }
}
