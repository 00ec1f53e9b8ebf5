//! Single files beneath a root: list, look at, read, replace, remove.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use nix::sys::stat::FileStat;
use serde::{Deserialize, Serialize};

use super::failure::{Failure, Kind};
use super::path::Relative;
use super::root::Root;
use super::walk::{Go, is, walk};
use super::work::Span;
use crate::bootstrap::place::{PlaceError, replace};
use crate::tasks::identity;

/// One path, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From the root on; where it is no UTF-8, with replacement characters.
    pub path: String,
    /// Its bytes in base64, where it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// `file`, `directory`, `link` or `other`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// Permissions, octal.
    pub mode: String,
    /// Last change, RFC 3339.
    pub mtime: String,
}

impl Entry {
    fn new(path: &[u8], stat: &FileStat) -> Entry {
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => "file",
            libc::S_IFDIR => "directory",
            libc::S_IFLNK => "link",
            _ => "other",
        };
        let text = std::str::from_utf8(path).is_err().then(|| base64::engine::general_purpose::STANDARD.encode(path));
        Entry {
            path: String::from_utf8_lossy(path).into_owned(),
            path_b64: text,
            kind: kind.into(),
            size: stat.st_size.max(0) as u64,
            mode: format!("{:04o}", stat.st_mode & 0o7777),
            mtime: modified(stat),
        }
    }
}

fn modified(stat: &FileStat) -> String {
    let since = std::time::Duration::new(stat.st_mtime.max(0) as u64, stat.st_mtime_nsec.clamp(0, 999_999_999) as u32);
    // humantime ends with the year 9999, file times do not.
    let since = since.min(std::time::Duration::from_secs(253_402_300_799));
    identity::time(std::time::UNIX_EPOCH + since)
}

/// A page of entries, and the path to go on after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of their names.
    pub entries: Vec<Entry>,
    /// Where more follow.
    pub next: Option<String>,
}

/// What is in a directory, or beneath it.
pub(crate) fn list(
    root: &Root,
    directory: Option<&Relative>,
    recursive: bool,
    after: Option<&Relative>,
    limit: u64,
) -> Result<Listing, Failure> {
    let mut listing = Listing { entries: Vec::new(), next: None };
    walk(root, directory, &mut |path, stat| {
        let inside = if recursive { Go::Into } else { Go::Over };
        if let Some(after) = after.filter(|after| !path.names().gt(after.names())) {
            // What is in a directory comes after it; before `after` only where `after` lies in it.
            let leads_there = after.names().take(path.names().count()).eq(path.names());
            return Ok(if leads_there { inside } else { Go::Over });
        }
        if listing.entries.len() as u64 == limit {
            listing.next = listing.entries.last().map(|entry| entry.path.clone());
            return Ok(Go::Stop);
        }
        listing.entries.push(Entry::new(path.bytes(), stat));
        Ok(inside)
    })?;
    Ok(listing)
}

/// What is at a path; `None` for the root.
pub(crate) fn stat(root: &Root, path: Option<&Relative>) -> Result<Entry, Failure> {
    let Some(path) = path else {
        let found = root.directory().and_then(|dir| Ok(nix::sys::stat::fstat(&dir)?));
        return found.map(|stat| Entry::new(b".", &stat)).map_err(|e| Failure::at(".", &e));
    };
    let stat = root.stat(path).map_err(|e| Failure::at(&path.display(), &e))?;
    Ok(Entry::new(path.bytes(), &stat))
}

/// A file that is being read: what to say before its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Bytes of the whole file.
    pub size: u64,
    /// First byte that follows and how many; `None` where the range has none.
    pub part: Option<(u64, u64)>,
    /// Last change, RFC 3339.
    pub mtime: String,
}

/// Open the file and go to the first byte.
pub(crate) fn open(root: &Root, path: &Relative, span: Span) -> Result<(Opened, impl Read + use<>), Failure> {
    let failed = |e: io::Error| Failure::at(&path.display(), &e);
    let (mut file, stat) = root.open_file(path).map_err(failed)?;
    let size = stat.st_size.max(0) as u64;
    let part = span.within(size);
    let (first, count) = part.unwrap_or((0, 0));
    file.seek(SeekFrom::Start(first)).map_err(failed)?;
    Ok((Opened { size, part, mtime: modified(&stat) }, file.take(count)))
}

/// Replace the file by exactly `length` bytes: whole, or as it was.
pub(crate) fn write(
    root: &Root,
    path: &Relative,
    mode: u32,
    parents: bool,
    (length, content): (u64, impl Read),
) -> Result<Entry, Failure> {
    let failed = |e: io::Error| Failure::at(&path.display(), &e);
    let parent = match (parents, path.parent()) {
        (true, Some(parent)) => root.make_directories(&parent),
        _ => root.open_parent(path),
    };
    let parent = parent.map_err(failed)?;
    let mut content = Exactly { content, left: length };
    // rename(2) replaces a link itself, and answers EISDIR for a directory.
    replace(&parent, path.name(), &mut content, mode).map_err(|error| match error {
        PlaceError::Read(e) => Failure::new(Kind::Invalid, format!("the content did not come whole: {e}")),
        PlaceError::Write(e) => failed(e),
    })?;
    stat(root, Some(path))
}

/// Remove a file, a link or an empty directory.
pub(crate) fn remove(root: &Root, path: &Relative) -> Result<(), Failure> {
    root.remove(path).map_err(|e| Failure::at(&path.display(), &e))
}

/// Remove everything in the root. What somebody keeps putting there stays and is told.
pub(crate) fn clear(root: &Root) -> Result<(), Failure> {
    let mut paths = Vec::new();
    walk(root, None, &mut |path, stat| {
        if is(stat, libc::S_IFDIR) {
            open_up(root, path);
        }
        paths.push(path.clone());
        Ok(Go::Into)
    })?;
    // The deepest come last.
    paths.iter().rev().try_for_each(|path| match remove(root, path) {
        Err(gone) if gone.kind == Kind::NotFound => Ok(()),
        other => other,
    })
}

/// A directory that its owner closed can still be emptied by its owner.
fn open_up(root: &Root, path: &Relative) {
    use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
    if let Ok(parent) = root.open_parent(path) {
        // fchmodat2(2), or through /proc on older kernels; a link is never followed.
        let _ = fchmodat(
            &parent,
            path.as_path().file_name().unwrap_or_default().as_bytes(),
            Mode::S_IRWXU,
            FchmodatFlags::NoFollowSymlink,
        );
    }
}

/// Ends with an error where the content is shorter, and never reads more.
struct Exactly<R> {
    content: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.content.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Copy everything, or say that it ended early.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write, count: u64) -> io::Result<()> {
    match io::copy(&mut from.take(count), to)? {
        copied if copied == count => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
