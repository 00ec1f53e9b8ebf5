//! Our own log lines, on stderr: JSON for programs, plain for people.
//!
//! A line goes into a bounded queue and is written by the thread that also passes the agent's stderr on, at a line
//! boundary (`launch/output.rs`): the event loop never blocks on a reader that has stopped.

use std::io::{self, Write};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Reader, parse};
use crate::launch::output::Sink;

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
    pub fn read(reader: &mut Reader<'_>) -> Config {
        let json = reader.value("log_format", |text| match text {
            "json" => Ok(true),
            "plain" => Ok(false),
            _ => Err(format!("`{text}` is neither json nor plain")),
        });
        let level = reader.value("log_level", |text| {
            parse::text(text)?.parse().map_err(|_| format!("`{text}` is none of error, warn, info, debug"))
        });
        Config { json, level }
    }
}

/// From here on `tracing` goes to `sink`.
pub fn start(config: Config, sink: Arc<Sink>) {
    let builder = tracing_subscriber::fmt().with_max_level(config.level).with_writer(Lines(sink)).with_target(false);
    if config.json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        builder.with_ansi(false).init();
    }
}

struct Lines(Arc<Sink>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// The formatter writes each event with one call, so a write is a line.
struct Line<'a>(&'a Sink);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.queue_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
