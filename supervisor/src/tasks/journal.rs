//! What survives a crash of the supervisor: every task that a client was told of, with what is known of it.
//!
//! One append-only file of lines: the CRC32C of what follows in eight hex digits, a space, the record as JSON, a newline.
//! JSON has no raw newline, so a damaged line loses itself and nothing after it; it is counted and left out. A record
//! is the whole of one task; the last one of an id counts.
//!
//! A record is written before a client is told, which survives the end of every process. It is fsynced within
//! [`SYNC_WITHIN`] by group commit, which survives the loss of power; with `sync = always` the answer waits for that.
//! When the file has grown to several times what it tells, it is written anew beside and renamed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::task::{Create, Task};
use serde::{Deserialize, Serialize};

use crate::link::feed::Numbers;

/// The longest that a written record waits for the disk.
pub const SYNC_WITHIN: Duration = Duration::from_millis(50);
/// Behind what may be a part of a line: that is none then, whatever was missing of it.
const BREAK: &[u8] = b"#\n";
/// Small journals are not worth the rewriting.
const REWRITE_FROM: u64 = 1024 * 1024;

/// One task on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this record.
    pub v: u32,
    /// What clients are told.
    pub task: Task,
    /// What is needed to run it, while it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Create>,
    /// The client's `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Digest of the request that came with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What the records of its end are numbered for the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Numbers>,
    /// Removed by a client or by retention.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl Record {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;

    /// With an earlier supervisor, and nobody was told: what is needed to run it is let go of with its end.
    pub fn ended_just_now(&self) -> bool {
        self.task.state.is_final() && self.create.is_some()
    }
}

/// What went wrong with the journal.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum JournalError {
    #[error("the task journal {path} cannot be opened")]
    Open { path: PathBuf, source: io::Error },
    #[error("the task journal {path} cannot be written")]
    Write { path: PathBuf, source: io::Error },
    #[error("the name of the task journal {path} cannot be synced: a loss of power may bring back the one before")]
    Name { path: PathBuf, source: io::Error },
    #[error("the output of a task in {path} cannot be seen")]
    Output { path: PathBuf, source: io::Error },
    #[error("a task cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
}

/// The open journal.
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
    /// Length of the last rewriting: what the records that count took.
    settled: u64,
    /// A write failed and has left what could not be taken back (a full disk takes what fits of a line).
    torn: bool,
    /// Something of that may be a whole line.
    spoiled: bool,
    /// A loss of power may still bring back the file before.
    unnamed: Arc<AtomicBool>,
}

/// What is written, and does not yet outlive the node.
pub struct Syncer {
    file: Arc<File>,
    path: PathBuf,
    unnamed: Arc<AtomicBool>,
}

impl Syncer {
    /// Now it does. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        let named = if self.unnamed.load(Ordering::Relaxed) { self.name() } else { Ok(()) };
        synced.and(named)
    }

    /// The file has its name for good: without this it is the old file's after a loss of power, or nobody's (fsync(2)).
    fn name(&self) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), sync_folder)?;
        self.unnamed.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// What an earlier supervisor left.
pub struct Loaded {
    /// The last record of each task, by id.
    pub records: BTreeMap<String, Record>,
    /// Lines that could not be read.
    pub damaged: u64,
}

impl Journal {
    /// Open or make `path`, and read it. On return it outlives the loss of power under that name.
    pub fn open(path: &Path) -> Result<(Journal, Loaded), JournalError> {
        let failed = |source| JournalError::Open { path: path.into(), source };
        let mut file = File::options().read(true).append(true).create(true).open(path).map_err(failed)?;
        let (loaded, whole) = load(&file).map_err(failed)?;
        if !whole {
            // A torn last line must not swallow the next record.
            file.write_all(b"\n").map_err(failed)?;
        }
        let length = file.metadata().map_err(failed)?.len();
        let (path, file, unnamed) = (path.into(), Arc::new(file), Arc::default());
        let mut journal = Journal { path, file, length, settled: 0, torn: false, spoiled: false, unnamed };
        journal.rewrite(loaded.records.values())?;
        Ok((journal, loaded))
    }

    /// Append; on return the record outlives this process. A part of one that is refused does not. Answers the line.
    pub fn write(&mut self, record: &Record) -> Result<Vec<u8>, JournalError> {
        let line = line(record)?;
        self.write_line(&line)?;
        Ok(line)
    }

    /// The same for a line that was written before.
    pub fn write_line(&mut self, line: &[u8]) -> Result<(), JournalError> {
        // Behind a part of a line this would be the end of that, and be lost with it.
        let written =
            if self.torn { (&*self.file).write_all(&[BREAK, line].concat()) } else { (&*self.file).write_all(line) };
        match written {
            Ok(()) => (self.torn, self.length) = (false, self.measured()),
            Err(_) => self.take_back(self.length),
        }
        written.map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }

    /// What stands at the end may not be there any more: the next line begins behind a break.
    pub fn doubt_the_end(&mut self) {
        self.torn = true;
    }

    /// Its name is not for good.
    #[cfg(test)]
    pub(super) fn unname(&mut self) {
        self.unnamed.store(true, Ordering::Relaxed);
    }

    /// How long the file is.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn measured(&self) -> u64 {
        self.file.metadata().map_or(self.length, |meta| meta.len())
    }

    /// What was written behind this length is not there any more. Where the disk refuses that, a line of it that is whole counts until the next
    /// [`Journal::rewrite`], which is wanted then.
    pub fn take_back(&mut self, length: u64) {
        self.torn = self.file.set_len(length).is_err();
        self.spoiled |= self.torn;
        self.length = self.measured();
    }

    /// For everything that was written so far.
    pub fn syncer(&self) -> Syncer {
        Syncer { file: self.file.clone(), path: self.path.clone(), unnamed: self.unnamed.clone() }
    }

    /// Whether most of the file is history, or what could not be taken back.
    pub fn wants_rewriting(&self) -> bool {
        self.spoiled || (self.length > REWRITE_FROM && self.length > 4 * self.settled)
    }

    /// Replace the file by one that has just `records`. Where only the name could not be synced, that is done with the next sync.
    pub fn rewrite<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), JournalError> {
        let failed = |source| JournalError::Write { path: self.path.clone(), source };
        let beside = self.path.with_extension("new");
        let begin = || {
            // What a crash left of an earlier attempt.
            std::fs::remove_file(&beside)
                .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
            File::options().append(true).create_new(true).open(&beside)
        };
        // Line by line: a megabyte at once, now and then, is what leaves holes in a heap.
        let mut file = BufWriter::new(begin().map_err(failed)?);
        let mut length = 0;
        for record in records.filter(|record| !record.deleted) {
            let line = line(record)?;
            file.write_all(&line).map_err(failed)?;
            length += line.len() as u64;
        }
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_data().and_then(|()| std::fs::rename(&beside, &self.path)).map_err(failed)?;
        self.file = Arc::new(file);
        self.length = length;
        self.settled = self.length;
        (self.torn, self.spoiled) = (false, false);
        // A sync that still lasts is of the file before.
        self.unnamed = Arc::new(AtomicBool::new(true));
        let named = self.syncer().name();
        named.map_err(|source| JournalError::Name { path: self.path.clone(), source })
    }
}

/// Its names outlive the loss of power.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A record as a line.
pub(crate) fn line(record: &Record) -> Result<Vec<u8>, JournalError> {
    let json = serde_json::to_vec(record).map_err(JournalError::Encode)?;
    let mut line = format!("{:08x} ", crc32c::crc32c(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

/// The records, and whether the last line is whole.
fn load(file: &File) -> io::Result<(Loaded, bool)> {
    let mut loaded = Loaded { records: BTreeMap::new(), damaged: 0 };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut whole = true;
    while reader.read_until(b'\n', &mut line)? > 0 {
        whole = line.last() == Some(&b'\n');
        match parse(&line) {
            Some(record) => drop(loaded.records.insert(record.task.task_id.clone(), record)),
            None if line == b"\n" || line == BREAK => {}
            None => loaded.damaged += 1,
        }
        line.clear();
    }
    loaded.records.retain(|_, record| !record.deleted);
    Ok((loaded, whole))
}

/// The record of one line, where the line is whole.
pub(crate) fn parse(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    if crc32c::crc32c(json) != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
