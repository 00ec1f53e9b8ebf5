//! Parsers of bytes that somebody else writes, each as a function of those bytes: those that `fuzz/` tries with any.
//!
//! Each answers with what it made of them, so that it can be held to its promises. The buffer ([`crate::buffer`]), the probe's answers
//! ([`crate::probe`]), settings of one word and the frames of the session (`protocol`) are public as they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use peer::{Address, Stream};
use protocol::session::{Outcome, Welcome};
use protocol::task::ApplyState;
use serde_json::Value;
use tokio::sync::watch;

use crate::cgroup::Cgroup;
use crate::config::{self, Reader, Sources};
use crate::http::query::Query;
use crate::http::signed::Signed;
use crate::init::stat;
use crate::link::Trust;
use crate::link::commands::Report;
use crate::link::dial::{self, DialError};
use crate::link::kept::Kept;
use crate::link::lines::line::{Line, Source};
use crate::link::proxy;
use crate::link::reconnect::{Reconnect, Why};
use crate::mounts::Mount;
use crate::tasks::journal::{self, Record};
use crate::tasks::request::Spec;
use crate::workspace::archive::{self, Item};
use crate::workspace::relay;
use crate::workspace::work::Span;
use crate::{exit, http, mounts, preflight, tasks};

pub use crate::agent::notify::{Message, parse as notification};
pub use crate::link::lines::line::LONGEST as LONGEST_LINE;
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

/// The body of a request to send a task a signal; its number.
pub fn signal(body: &[u8]) -> Option<i32> {
    http::tasks::number(body).ok()
}

/// The body of a request that approves a patch; the name of its file.
pub fn approval(body: &[u8]) -> Option<String> {
    http::patch::approved(body).ok()
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

/// The address of the relay.
pub fn relay_url(text: &str) -> Result<String, String> {
    relay::address(text).map(|uri| uri.to_string())
}

/// The address of a proxy; what logs show of it.
pub fn proxy(text: &str) -> Result<String, String> {
    proxy::parse(text).map(|proxy| format!("{proxy:?}"))
}

/// A list of those who are called without the proxy; whether `host` is one.
pub fn spares(list: &str, host: &str) -> bool {
    proxy::spares(list, host)
}

/// What the link has left of itself for the next start; the longest that it waits then before it dials.
pub fn left_behind(file: &[u8]) -> Option<Duration> {
    let kept: Kept = serde_json::from_slice(file).ok()?;
    Some(Reconnect::new(kept.window()).wait(Why::Lost(Duration::ZERO), 1.0))
}

/// What the link has left of the gateway's commands: the newest that was applied, what became of those that the gateway may not know of yet,
/// and the file as it would be written again.
pub fn commands(file: &[u8]) -> Option<(i64, Vec<Outcome>, Vec<u8>)> {
    let report: Report = serde_json::from_slice(file).ok()?;
    let written = serde_json::to_vec(&report).ok()?;
    Some((report.applied, report.outcomes.into(), written))
}

/// Why a dial came to nothing.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What the log says.
    pub said: String,
    /// The longest waits before the next dial and before the one after that, should it fail.
    pub waits: [Duration; 2],
}

/// Somebody answers the link as a gateway; what follows its handshake.
pub async fn dial(
    stream: impl Stream + 'static,
    gateway: &Address,
    token: HeaderValue,
) -> Result<Box<dyn Stream>, Refused> {
    let dialled = dial::handshake(Box::new(stream), gateway, Some(token)).await;
    dialled.map(|connection| Box::new(connection) as Box<dyn Stream>).map_err(|error| {
        let mut reconnect = Reconnect::new(None);
        if let DialError::Refused { window: Some(window), .. } = &error {
            reconnect.learn(*window);
        }
        let waits = [error.why(), Why::Failed].map(|why| reconnect.wait(why, 1.0));
        Refused { said: exit::reason(&error), waits }
    })
}

/// Somebody answers as this proxy; what follows in the tunnel to the gateway, or what the log says.
pub async fn tunnel(stream: impl Stream + 'static, proxy: &str, gateway: &Address) -> Result<Box<dyn Stream>, String> {
    proxy::parse(proxy)?.tunnel(stream, gateway).await.map_err(|error| exit::reason(&error))
}

/// Somebody answers as the relay; what became of the patch, and in which words.
pub async fn relay(stream: impl Stream + 'static) -> Option<(ApplyState, String)> {
    let request = Request::post("/").body(Body::empty()).ok()?;
    let (status, words) = relay::exchange(Box::new(stream), request).await.ok()?;
    Some((relay::state(status), words))
}

/// What a record tells of a line that the agent writes.
#[derive(Clone, Debug)]
pub struct Told {
    /// The bytes that it is of.
    pub bytes: Vec<u8>,
    /// More of the line follows.
    pub more: bool,
    /// The record's body.
    pub body: Value,
}

/// What the agent writes, in these pieces; and how many bytes of it are a line that has not ended.
pub fn lines<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<Told>, usize) {
    let (source, mut line, mut told) = (Source { task: None, stream: "stdout" }, Line::default(), Vec::new());
    for part in pieces.flat_map(|piece| piece.split_inclusive(|byte| *byte == b'\n')) {
        line.write(part, |bytes, more| told.push(Told { bytes: bytes.into(), more, body: source.body(bytes, more) }));
    }
    (told, line.len())
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

/// Our control groups, by the mounts and `/proc/self/cgroup`; the directory of each, and that which the mount shows.
pub fn groups(mounts: &[Mount], own: &str) -> Vec<(PathBuf, PathBuf)> {
    let Cgroup { old, new } = Cgroup::at(Path::new("/"), mounts, own);
    old.into_iter().map(|(_, group)| group).chain(new).map(|group| (group.dir, group.top)).collect()
}

/// The parent of a process, by its `/proc/PID/stat`.
pub fn parent(text: &[u8]) -> Option<i32> {
    stat::parse(text).map(|stat| stat.parent)
}

/// `/proc/PID/status` and `uid_map`, as the preflight reads them.
pub fn status(text: &str) {
    drop(preflight::status::parse(text));
    drop(preflight::status::parse_uid_map(text));
}
