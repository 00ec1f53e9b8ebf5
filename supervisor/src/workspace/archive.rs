//! A client's `tar.gz`, read as what it may be: hostile.
//!
//! Every entry is checked before anybody acts on it, and the same rules hold for the trial run (`check`), for unpacking
//! and for the diff, so that they never disagree:
//! - directories, plain files and symlinks that stay inside as their words say; no hard link, device, FIFO or sparse file;
//! - no absolute path, no `..`, no path twice, nothing beneath a file or a link; bounded lengths, depth and count;
//! - bytes are counted as they come out of the decompressor, so that what a header claims does not matter.
//!
//! Headers are taken one by one: long names (GNU, PAX) are read here with a bound, and a PAX size that differs from the
//! header's is refused, because two readers of one archive must not see two archives.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType, Header};

use super::failure::{Failure, Kind};
use super::path::Relative;

/// Entries of one archive.
const MAX_ENTRIES: u64 = 100_000;
/// All its paths and link targets together, which are kept in memory.
const MAX_NAMES: usize = 16 * 1024 * 1024;
/// One extension header: a long name, or a set of PAX records.
const MAX_EXTENSION: u64 = 64 * 1024;

/// What an entry is.
pub(crate) enum Item<'a, 'b> {
    Directory { mode: u32 },
    File { mode: u32, mtime: i64, content: &'a mut Content<'b> },
    Link { target: &'a [u8] },
}

/// What is known of a path that was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Directory,
    Other,
}

/// Hand each entry to `take`, in the archive's order. `most` bounds what comes out of the decompressor.
pub(crate) fn read(
    archive: impl Read,
    most: u64,
    take: &mut dyn FnMut(&Relative, Item<'_, '_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let unzipped = Bounded { inner: MultiGzDecoder::new(BufReader::new(archive)), left: most };
    let mut archive = Archive::new(unzipped);
    let mut reader = Reader { most, entries: 0, names: 0, seen: BTreeMap::new(), next: Extension::default() };
    for entry in archive.entries().map_err(|e| damaged(&e, most))?.raw(true) {
        let mut entry = entry.map_err(|e| damaged(&e, most))?;
        let header = entry.header().clone();
        let left = entry.size();
        let mut content = Content { inner: &mut entry, left, most };
        reader.entry(&header, &mut content, take)?;
        // What nobody wanted still has to be there.
        content.copy_to(&mut io::sink())?;
    }
    if reader.next != Extension::default() {
        return Err(bad("the archive ends with a long name that belongs to nothing"));
    }
    // The checksum of gzip stands at the end, behind tar's padding.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| damaged(&e, most))?;
    Ok(())
}

/// What extension headers say about the next entry.
#[derive(Default, PartialEq, Eq)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

struct Reader {
    most: u64,
    entries: u64,
    names: usize,
    seen: BTreeMap<Relative, Seen>,
    next: Extension,
}

impl Reader {
    fn entry(
        &mut self,
        header: &Header,
        content: &mut Content<'_>,
        take: &mut dyn FnMut(&Relative, Item<'_, '_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(Failure::new(Kind::TooLarge, format!("the archive has more than {MAX_ENTRIES} entries")));
        }
        match header.entry_type() {
            EntryType::GNULongName => return once(&mut self.next.path, without_nul(extension(content)?)),
            EntryType::GNULongLink => return once(&mut self.next.link, without_nul(extension(content)?)),
            EntryType::XHeader => return self.records(&extension(content)?),
            // Defaults for the whole archive: `git archive` puts the commit there. Nothing of them is wanted.
            EntryType::XGlobalHeader => return extension(content).map(drop),
            _ => {}
        }
        let Extension { path, link, size } = std::mem::take(&mut self.next);
        let name = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&name).into_owned();
        let wrong = |what: &str| bad(format!("entry {shown:?} {what}"));
        if size.is_some_and(|size| size != content.left) {
            return Err(wrong("has two different sizes"));
        }
        let path = Relative::from_archive(&name).map_err(|e| wrong(&e.to_string()))?;
        let mode = header.mode().map_err(|_| wrong("has a mode that is no number"))? & 0o777;
        let Some(path) = path else {
            return if header.entry_type().is_dir() { Ok(()) } else { Err(wrong("names the workspace itself")) };
        };
        self.names += name.len() + link.as_ref().map_or(0, Vec::len);
        if self.names > MAX_NAMES {
            return Err(Failure::new(Kind::TooLarge, "the archive's names take more than 16 MiB"));
        }
        let kind = header.entry_type();
        self.remember(&path, kind.is_dir()).map_err(&wrong)?;
        match kind {
            EntryType::Directory => take(&path, Item::Directory { mode }),
            EntryType::Regular | EntryType::Continuous => {
                if content.left > self.most {
                    return Err(Failure::new(
                        Kind::TooLarge,
                        format!("entry {shown:?} is larger than {} bytes", self.most),
                    ));
                }
                let mtime = header.mtime().map_or(0, |t| i64::try_from(t).unwrap_or(0));
                take(&path, Item::File { mode, mtime, content })
            }
            EntryType::Symlink => {
                let target = link.or_else(|| header.link_name_bytes().map(|t| t.into_owned())).unwrap_or_default();
                if !path.link_stays_inside(&target) {
                    return Err(wrong("is a symbolic link that leads out of the workspace"));
                }
                take(&path, Item::Link { target: &target })
            }
            EntryType::Link => Err(wrong("is a hard link; make the archive with files of their own")),
            EntryType::Char | EntryType::Block => Err(wrong("is a device")),
            EntryType::Fifo => Err(wrong("is a FIFO")),
            EntryType::GNUSparse => Err(wrong("is a sparse file")),
            _ => Err(wrong("is of an unknown type")),
        }
    }

    /// Directories may come again; everything on the way to an entry is a directory.
    fn remember(&mut self, path: &Relative, directory: bool) -> Result<(), &'static str> {
        let mut above = path.parent();
        while let Some(parent) = above {
            match self.seen.get(&parent) {
                Some(Seen::Directory) => break,
                Some(Seen::Other) => return Err("lies beneath what is no directory"),
                None => {
                    self.names += parent.bytes().len();
                    above = parent.parent();
                    self.seen.insert(parent, Seen::Directory);
                }
            }
        }
        let kind = if directory { Seen::Directory } else { Seen::Other };
        match self.seen.insert(path.clone(), kind) {
            None => Ok(()),
            Some(Seen::Directory) if directory => Ok(()),
            Some(_) => Err("is in the archive twice"),
        }
    }

    /// PAX records: `LENGTH KEY=VALUE\n`, the length with itself (pax(1)).
    fn records(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let broken = || bad("the archive has a PAX header that is none");
        while !bytes.is_empty() {
            let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
            let length: usize =
                std::str::from_utf8(&bytes[..digits]).ok().and_then(|d| d.parse().ok()).ok_or_else(broken)?;
            if length <= digits + 1 || length > bytes.len() {
                return Err(broken());
            }
            let (record, rest) = bytes.split_at(length);
            bytes = rest;
            let record = record[digits..].strip_prefix(b" ").and_then(|r| r.strip_suffix(b"\n")).ok_or_else(broken)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => once(&mut self.next.path, value.to_vec())?,
                b"linkpath" => once(&mut self.next.link, value.to_vec())?,
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or_else(broken)?;
                    once(&mut self.next.size, size)?;
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err(bad("the archive has a sparse file")),
                // Times, owners, attributes: not wanted.
                _ => {}
            }
        }
        Ok(())
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Failure> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad("the archive names one entry twice")),
    }
}

fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn extension(content: &mut Content<'_>) -> Result<Vec<u8>, Failure> {
    if content.left > MAX_EXTENSION {
        return Err(Failure::new(Kind::TooLarge, "the archive has an extension header of more than 64 KiB"));
    }
    let mut bytes = Vec::new();
    content.copy_to(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of one file in the archive.
pub(crate) struct Content<'a> {
    inner: &'a mut dyn Read,
    left: u64,
    most: u64,
}

impl Content<'_> {
    /// How many bytes are still to come, as the header says.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// A piece of what is left, 0 at its end. An archive that is cut off or damaged is the client's fault, whatever was
    /// to be done with the bytes.
    pub(crate) fn piece(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most]).map_err(|e| damaged(&e, self.most))?;
        if count == 0 && most > 0 {
            return Err(bad("the archive ends in the middle of an entry"));
        }
        self.left -= count as u64;
        Ok(count)
    }

    /// All that is left, into what cannot fail.
    pub(crate) fn copy_to(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        let mut buffer = vec![0; 64 * 1024];
        while self.left > 0 {
            let count = self.piece(&mut buffer)?;
            out.write_all(&buffer[..count]).map_err(|e| Failure::new(Kind::Internal, e.to_string()))?;
        }
        Ok(())
    }
}

/// Ends with an error after `left` bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

/// Says which error it was, through the layers between.
const TOO_MUCH: &str = "more than the bound came out of the decompressor";

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(TOO_MUCH))?;
        Ok(count)
    }
}

fn damaged(error: &io::Error, most: u64) -> Failure {
    match error.to_string().contains(TOO_MUCH) {
        true => Failure::new(Kind::TooLarge, format!("the archive unpacks to more than {most} bytes")),
        false => bad(format!("the archive is no whole tar.gz: {error}")),
    }
}

fn bad(what: impl Into<String>) -> Failure {
    Failure::new(Kind::Invalid, what)
}

#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
