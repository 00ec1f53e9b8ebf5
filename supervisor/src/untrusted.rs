//! Parsers of bytes that somebody else writes, each as a function of those bytes: those that `fuzz/` tries with any.
//!
//! Each answers with what it made of them, so that it can be held to its promises. The buffer ([`crate::buffer`]) and the frames of the
//! session (`protocol`) are public as they are.

use std::path::PathBuf;
use std::time::Duration;

use protocol::session::Welcome;
use tokio::sync::watch;

use crate::config::{self, Reader, Sources};
use crate::http::query::Query;
use crate::http::signed::Signed;
use crate::link::Trust;
use crate::mounts::Mount;
use crate::tasks::journal::{self, Record};
use crate::tasks::request::Spec;
use crate::workspace::archive::{self, Item};
use crate::workspace::work::Span;
use crate::{http, mounts, preflight, tasks};

pub use crate::agent::notify::{Message, parse as notification};
pub use crate::workspace::path::Relative;

/// The operator's bounds where nobody has set any.
pub fn bounds() -> tasks::Config {
    tasks::Config::read(&mut Reader::new(&Sources::gather(Default::default(), Vec::new())))
}

/// The body of a request for a task.
pub fn task(body: &[u8], bounds: &tasks::Config) -> Option<Spec> {
    let create = http::tasks::parse(body).ok()?;
    Spec::new(&create, bounds).ok()
}

/// The query of a request; whether all of it was understood by one who wants `wait`.
pub fn query(text: &str) -> bool {
    let Ok(mut query) = Query::parse(Some(text)) else { return false };
    query.duration("wait", Duration::from_secs(60)).is_ok() && query.finish().is_ok()
}

/// A `Range` header's value without its unit: begin and end of what it means of `size` bytes.
pub fn span(text: &str, size: u64) -> Option<(u64, u64)> {
    Span::parse(text)?.within(size)
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: Relative,
    /// Of a link: where it points.
    pub target: Option<Vec<u8>>,
    /// Bytes of content that came out.
    pub bytes: u64,
}

/// What a client's `tar.gz` unpacks to, as far as it is taken; `most` bytes come out of the decompressor. Nothing is written.
pub fn archive(bytes: &[u8], most: u64) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let read = archive::read(bytes, most, &mut |path, item| {
        let (target, bytes) = match item {
            Item::Directory { .. } => (None, 0),
            Item::Link { target } => (Some(target.to_vec()), 0),
            Item::File { content, .. } => {
                let bytes = content.left();
                content.copy_to(&mut std::io::sink())?;
                (None, bytes)
            }
        };
        entries.push(Entry { path: path.clone(), target, bytes });
        Ok(())
    });
    read.is_ok().then_some(entries)
}

/// One line of the journal of tasks.
pub fn journal(line: &[u8]) -> Option<Record> {
    journal::parse(line)
}

/// That record as a line.
pub fn journal_line(record: &Record) -> Option<Vec<u8>> {
    journal::line(record).ok()
}

/// A settings file; how many mistakes it has.
pub fn settings(text: &str) -> Option<usize> {
    config::file::parse(text).ok().map(|(_, mistakes)| mistakes.len())
}

/// A bearer token of a call past the session; whether a supervisor takes it that was just welcomed like this.
pub fn signed(token: &str, welcome: &Welcome) -> bool {
    let (_keep, trust) = watch::channel(Some(Trust::new(welcome, None)));
    Signed::new("agent".into(), "pod".into(), trust).verify(token).is_ok()
}

/// The kernel's table of mounts.
pub fn mounts(text: &[u8]) -> Vec<Mount> {
    mounts::parse(text)
}

/// Where a path of theirs lies.
pub fn inside(mount: &Mount, path: &str) -> Option<PathBuf> {
    mount.inside(path.as_ref())
}

/// `/proc/PID/status` and `uid_map`, as the preflight reads them.
pub fn status(text: &str) {
    drop(preflight::status::parse(text));
    drop(preflight::status::parse_uid_map(text));
}
