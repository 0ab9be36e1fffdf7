//! `[log]`: level and form of the log.

use tracing_subscriber::EnvFilter;

use super::error::ConfigError;
use super::key::{Key, Secrecy};
use super::layer::Layers;

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// Directives of `tracing_subscriber::EnvFilter`, checked.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    Pretty,
    Json,
}

pub const KEYS: &[Key; 2] = &[
    Key {
        path: "log.level",
        default: "info",
        example: "info,bellwire_engine=debug",
        accepts: "error, warn, info, debug, trace or off, also by module: info,bellwire_engine=debug",
        about: "What is logged. `info`: what an operator may want to know; `debug`: also a line for each attempt and each API request.",
        secrecy: Secrecy::Open,
    },
    Key {
        path: "log.format",
        default: "auto",
        example: "json",
        accepts: "auto, pretty or json",
        about: "`auto`: readable on a terminal, one JSON object a line otherwise.",
        secrecy: Secrecy::Open,
    },
];

impl Log {
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let [level, format] = KEYS;
        Ok(Self {
            level: layers.required(level, |text| {
                if text.is_empty() {
                    return Err("is empty".to_owned());
                }
                // A lone word that is no level would be taken for a module that never logs.
                let levels = ["error", "warn", "info", "debug", "trace", "off"];
                for part in text.split(',').map(str::trim).filter(|part| !part.contains('=')) {
                    if !levels.contains(&part.to_ascii_lowercase().as_str()) {
                        return Err(format!("{part:?} is not a level"));
                    }
                }
                EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
            })?,
            format: layers.required(format, |text| match text {
                "auto" => Ok(LogFormat::Auto),
                "pretty" => Ok(LogFormat::Pretty),
                "json" => Ok(LogFormat::Json),
                _ => Err(format!("{text:?} is not known")),
            })?,
        })
    }
}
