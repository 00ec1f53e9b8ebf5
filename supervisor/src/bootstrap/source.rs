//! The defaults as a list, read before anything is written.
//!
//! The source is the operator's (an image, a ConfigMap), not the agent's; a link in it is checked, not raced against.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{BootstrapError, MARKER};

/// Deep enough for any set of defaults; links that lead in a circle end here.
const MAX_DEPTH: usize = 32;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: OsString,
    /// Where to read it, links undone.
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    File,
    Directory(Vec<Entry>),
}

/// Everything to copy, in the order of names.
pub(super) fn list(source: &Path) -> Result<Vec<Entry>, BootstrapError> {
    let root = std::fs::canonicalize(source).map_err(|error| unreadable(source, error))?;
    let mut entries = directory(&root, &root, 0)?;
    // The marker of that name is ours.
    entries.retain(|entry| entry.name != MARKER);
    Ok(entries)
}

fn directory(root: &Path, dir: &Path, depth: usize) -> Result<Vec<Entry>, BootstrapError> {
    if depth == MAX_DEPTH {
        return Err(BootstrapError::TooDeep { path: dir.to_owned() });
    }
    let names = std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>());
    let mut names = names.map_err(|error| unreadable(dir, error))?;
    names.sort();
    let hidden = |name: &OsString| name.as_bytes().starts_with(b"..");
    names.into_iter().filter(|name| !hidden(name)).map(|name| entry(root, dir, name, depth)).collect()
}

fn entry(root: &Path, dir: &Path, name: OsString, depth: usize) -> Result<Entry, BootstrapError> {
    let shown = dir.join(&name);
    let path = std::fs::canonicalize(&shown).map_err(|error| unreadable(&shown, error))?;
    if !path.starts_with(root) {
        return Err(BootstrapError::LeadsOutside { path: shown });
    }
    let data = path.metadata().map_err(|error| unreadable(&shown, error))?;
    let kind = if data.is_dir() {
        Kind::Directory(directory(root, &path, depth + 1)?)
    } else if data.is_file() {
        Kind::File
    } else {
        return Err(BootstrapError::Special { path: shown });
    };
    Ok(Entry { name, path, mode: data.mode(), kind })
}

pub(super) fn open(path: &Path) -> Result<File, BootstrapError> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    opened.map_err(|error| unreadable(path, error))
}

/// Names, modes and contents; the same for the same defaults, wherever they are mounted.
pub(super) fn digest(entries: &[Entry]) -> Result<String, BootstrapError> {
    let mut hash = Sha256::new();
    add(&mut hash, entries)?;
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

fn add(hash: &mut Sha256, entries: &[Entry]) -> Result<(), BootstrapError> {
    // Counts and lengths go first, so that no two trees give one stream of bytes.
    hash.update((entries.len() as u64).to_le_bytes());
    for entry in entries {
        hash.update((entry.name.len() as u64).to_le_bytes());
        hash.update(entry.name.as_bytes());
        match &entry.kind {
            Kind::Directory(children) => {
                hash.update(b"d");
                add(hash, children)?;
            }
            Kind::File => {
                hash.update(b"f");
                hash.update((entry.mode & 0o777).to_le_bytes());
                hash.update(content(&entry.path)?);
            }
        }
    }
    Ok(())
}

fn content(path: &Path) -> Result<[u8; 32], BootstrapError> {
    let mut file = open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => hash.update(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(path, error)),
        }
    }
}

fn unreadable(path: &Path, source: io::Error) -> BootstrapError {
    BootstrapError::Source { path: path.to_owned(), source }
}
