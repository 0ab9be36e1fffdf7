//! Logging set-up: readable on a terminal, one JSON object a line otherwise; always on standard error, so that what a command
//! prints stays clean. Secrets and payloads are kept out where events are written, not filtered here.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::log::{Log, LogFormat};

/// Starts logging for this process; later calls change nothing.
pub fn start(log: &Log) {
    // The directives were checked when the configuration was read.
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_pretty = match log.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let result = if is_pretty {
        builder.with_ansi(colours).with_target(false).compact().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
    // Already started (several servers in one test process): the first one's settings stand.
    drop(result);
}
