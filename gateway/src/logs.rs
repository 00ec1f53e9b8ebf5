//! Log lines on stderr: JSON for programs, plain for people.

use tracing::level_filters::LevelFilter;

use crate::config::{Reader, parse};

/// How lines look, and which are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// One JSON object a line, or plain text.
    pub json: bool,
    /// Least severity.
    pub level: LevelFilter,
}

impl Config {
    /// From the settings `log_format` and `log_level`.
    pub fn read(reader: &mut Reader) -> Config {
        let levels = [
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
        ];
        Config {
            json: reader.value("log_format", parse::one_of(&[("json", true), ("plain", false)])),
            level: reader.value("log_level", parse::one_of(&levels)),
        }
    }
}

/// From here on `tracing` goes to stderr.
pub fn start(config: Config) {
    let builder =
        tracing_subscriber::fmt().with_max_level(config.level).with_writer(std::io::stderr).with_target(false);
    if config.json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        builder.with_ansi(false).init();
    }
}
