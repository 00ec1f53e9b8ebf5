//! One output stream of one task on disk: bounded, readable at any byte while it grows and after a crash.
//!
//! The stream is cut into segments, files named by the position of their first byte, so that everything about it can
//! be read off a directory listing and nothing else has to be written down. Below the limit all is kept. Above it the
//! first half stays, and of the rest the oldest segments go: head and tail are kept, and what is missing is exactly
//! the gap between two names. Readers hold no lock and never slow the writer; a cursor that fell into the gap is moved
//! to its end and told so.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::exit;

/// How far a stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes written to it, kept or not.
    pub total: u64,
    /// Bytes that are no longer kept.
    pub cut: u64,
    /// Nothing more will come.
    pub ended: bool,
}

/// Bytes from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Position of the first byte; later than what was asked for where that has been cut.
    pub start: u64,
    /// Empty at the end of what there is.
    pub bytes: Vec<u8>,
}

/// One stream.
pub struct Stream {
    directory: PathBuf,
    name: &'static str,
    limit: u64,
    segments: Mutex<Segments>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Segments {
    /// In order; the last one grows.
    known: VecDeque<Segment>,
    open: Option<File>,
    cut: u64,
}

#[derive(Clone, Copy)]
struct Segment {
    start: u64,
    length: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// The files of a stream, in any order.
fn segments(directory: &Path, name: &str) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    let Some(entries) = unless_scarce(std::fs::read_dir(directory))? else { return Ok(found) };
    for entry in entries {
        let Some(entry) = unless_scarce(entry)? else { continue };
        let position = |file: &str| file.strip_prefix(name)?.strip_prefix('.')?.parse().ok();
        let Some(start) = entry.file_name().to_str().and_then(position) else { continue };
        if let Some(metadata) = unless_scarce(entry.metadata())? {
            found.push(Segment { start, length: metadata.len() });
        }
    }
    Ok(found)
}

/// What there is; nothing where another try would find nothing either.
fn unless_scarce<T>(seen: io::Result<T>) -> io::Result<Option<T>> {
    match seen {
        Err(error) if exit::is_scarce(error.raw_os_error().unwrap_or(0)) => Err(error),
        seen => Ok(seen.ok()),
    }
}

impl Stream {
    /// A stream that has nothing yet. Nothing is made on disk before its first byte.
    pub fn new(directory: &Path, name: &'static str, limit: u64) -> Stream {
        let progress = watch::channel(Progress::default()).0;
        Stream { directory: directory.into(), name, limit, segments: Mutex::default(), progress }
    }

    /// A stream of a task of an earlier supervisor, as far as it reached the disk. Fails where that cannot be seen now, for want of memory or
    /// of a descriptor: then it must not be told as if there were nothing. What the disk will never give is taken for nothing.
    pub fn reopen(directory: &Path, name: &'static str, limit: u64) -> io::Result<Stream> {
        let stream = Stream::new(directory, name, limit);
        let mut found = segments(directory, name)?;
        found.sort_by_key(|segment| segment.start);
        let total = found.last().map_or(0, Segment::end);
        let kept: u64 = found.iter().map(|segment| segment.length).sum();
        let cut = total.saturating_sub(kept);
        *stream.lock() = Segments { known: found.into(), open: None, cut };
        stream.progress.send_replace(Progress { total, cut, ended: true });
        Ok(stream)
    }

    /// The word for it in paths, metrics and files.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Follow how far it is.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Nothing more will come.
    pub fn end(&self) {
        self.lock().open = None;
        self.progress.send_modify(|progress| progress.ended = true);
    }

    /// Take what the task wrote; answers how many bytes are no longer kept for it. Blocks on the disk; for one writer
    /// at a time.
    pub fn append(&self, mut bytes: &[u8]) -> io::Result<u64> {
        let mut segments = self.lock();
        let cut_before = segments.cut;
        while !bytes.is_empty() {
            let room = self.room(&mut segments)?;
            let part = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            if let Some(file) = segments.open.as_mut() {
                file.write_all(part)?;
            }
            if let Some(segment) = segments.known.back_mut() {
                segment.length += part.len() as u64;
            }
            bytes = &bytes[part.len()..];
            self.keep_within_limit(&mut segments);
        }
        let total = segments.known.back().map_or(0, Segment::end);
        let cut = segments.cut;
        self.progress.send_modify(|progress| (progress.total, progress.cut) = (total, cut));
        Ok(cut - cut_before)
    }

    /// At most `most` bytes from `cursor` on. Blocks on the disk.
    pub fn read(&self, cursor: u64, most: usize) -> io::Result<Chunk> {
        loop {
            let Some(segment) = self.lock().known.iter().find(|s| s.end() > cursor).copied() else {
                return Ok(Chunk { start: cursor, bytes: Vec::new() });
            };
            let start = cursor.max(segment.start);
            let length = (segment.end() - start).min(most as u64);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(most)];
            let read =
                File::open(self.path(segment.start)).and_then(|f| f.read_exact_at(&mut bytes, start - segment.start));
            match read {
                Ok(()) => return Ok(Chunk { start, bytes }),
                // Cut between the look and the open: look again.
                Err(e) if e.kind() == io::ErrorKind::NotFound && !self.still_has(segment.start) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What is missing between head and tail: from, and to before which position.
    pub fn gap(&self) -> Option<(u64, u64)> {
        let segments = self.lock();
        let mut end = 0;
        for segment in &segments.known {
            if segment.start > end {
                return Some((end, segment.start));
            }
            end = segment.end();
        }
        None
    }

    /// Room in the growing segment, a new one where it is full.
    fn room(&self, segments: &mut Segments) -> io::Result<u64> {
        let size = self.segment_size();
        if let (Some(last), true) = (segments.known.back(), segments.open.is_some())
            && last.length < size
        {
            return Ok(size - last.length);
        }
        let start = segments.known.back().map_or(0, Segment::end);
        std::fs::create_dir_all(&self.directory)?;
        segments.open = Some(File::options().append(true).create_new(true).open(self.path(start))?);
        segments.known.push_back(Segment { start, length: 0 });
        Ok(size)
    }

    /// The head is what began in the first half of the limit; behind it the oldest go.
    fn keep_within_limit(&self, segments: &mut Segments) {
        let mut kept: u64 = segments.known.iter().map(|s| s.length).sum();
        while kept > self.limit {
            let oldest = segments.known.iter().position(|s| s.start >= self.limit / 2);
            let Some(oldest) = oldest.filter(|at| at + 1 < segments.known.len()) else { return };
            if let Some(gone) = segments.known.remove(oldest) {
                // What cannot be removed is not counted as kept all the same: it will not be read again.
                let _ = std::fs::remove_file(self.path(gone.start));
                kept -= gone.length;
                segments.cut += gone.length;
            }
        }
    }

    /// Small enough that dropping one leaves most of the tail, large enough for few files.
    fn segment_size(&self) -> u64 {
        (self.limit / 16).clamp(1, 4 * 1024 * 1024)
    }

    fn still_has(&self, start: u64) -> bool {
        self.lock().known.iter().any(|s| s.start == start)
    }

    fn path(&self, start: u64) -> PathBuf {
        self.directory.join(format!("{}.{start}", self.name))
    }

    fn lock(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte(position: u64) -> u8 {
        (position % 251) as u8
    }

    /// Everything that can be read, with its positions.
    fn read_all(stream: &Stream) -> Vec<(u64, u8)> {
        let mut all = Vec::new();
        let mut cursor = 0;
        loop {
            let chunk = stream.read(cursor, 7).expect("read");
            if chunk.bytes.is_empty() {
                return all;
            }
            cursor = chunk.start + chunk.bytes.len() as u64;
            all.extend(chunk.bytes.iter().enumerate().map(|(i, b)| (chunk.start + i as u64, *b)));
        }
    }

    proptest! {
        #[test]
        fn every_byte_is_kept_or_counted_as_cut_and_head_and_tail_are_kept(
            parts in proptest::collection::vec(1usize..70, 1..40), limit in 32u64..400,
        ) {
            let dir = tempfile::tempdir().expect("tempdir");
            let stream = Stream::new(dir.path(), "stdout", limit);
            let mut total = 0;
            for part in parts {
                let bytes: Vec<u8> = (total..total + part as u64).map(byte).collect();
                stream.append(&bytes).expect("append");
                total += part as u64;
            }
            let reopened = Stream::reopen(dir.path(), "stdout", limit).expect("it can be seen");
            for stream in [&stream, &reopened] {
                let all = read_all(stream);
                prop_assert!(all.iter().all(|(position, value)| *value == byte(*position)));
                let progress = *stream.progress().borrow();
                prop_assert_eq!(progress.total, total);
                prop_assert_eq!(progress.total, progress.cut + all.len() as u64);
                prop_assert!(all.len() as u64 <= limit, "kept {} of {limit}", all.len());
                let head = total.min(limit / 2);
                prop_assert!((0..head).all(|p| all.get(p as usize).is_some_and(|(at, _)| *at == p)), "the head");
                prop_assert_eq!(all.last().map(|(at, _)| at + 1), Some(total), "the tail");
            }
        }
    }

    #[test]
    fn a_stream_without_output_leaves_nothing_on_disk() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("none");
        let stream = Stream::new(&path, "stdout", 100);
        stream.end();
        assert_eq!(stream.read(0, 10).expect("read").bytes, b"");
        assert!(!path.exists());
    }
}
