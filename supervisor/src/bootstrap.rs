//! Defaults copied once into a volume, never over an edit.
//!
//! - Only what is not there is copied. Whatever stands in a file's place (an edited file, a link, a directory) stays.
//! - A file appears whole or not at all: written beside, synced, then linked to its name, which never replaces.
//! - The volume's owner may have planted links: from the mount point on, each step goes to one name beneath an open
//!   directory and follows none.
//!   (One name at a time is what `openat2(2)` with `RESOLVE_BENEATH` does, and also works where that is filtered.)
//! - `.version` is replaced last, so a run that was cut off is repeated, and repeating changes nothing else.
//!
//! Links in the source are followed as long as they stay inside it, and what they lead to is copied: a mounted
//! ConfigMap is made of such links, and a copied link would change its target with the next version. Names that begin
//! with `..` are that mount's machinery and are left out.

pub(crate) mod directory;
pub(crate) mod place;
mod source;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::fsync;
use protocol::words::steers;

use directory::Missing;
use place::Placed;
use source::{Entry, Kind};

use crate::config::{Reader, parse};

const MARKER: &str = ".version";

/// What to copy where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Directory of defaults.
    pub source: PathBuf,
    /// The volume; made where it is missing.
    pub target: PathBuf,
    /// What `.version` says; empty for the digest of the source.
    pub version: String,
}

impl Plan {
    /// From the settings `bootstrap_*`; `None` where neither a source nor a `usual` one is set.
    pub fn read(reader: &mut Reader<'_>, usual: Option<&Path>) -> Option<Plan> {
        let source = reader.optional("bootstrap_source", parse::path).or(usual.map(Path::to_path_buf));
        let target = reader.value("bootstrap_target", parse::path);
        let version = reader.optional("bootstrap_version", parse::text).unwrap_or_default();
        source.map(|source| Plan { source, target, version })
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Files that were missing and are there now.
    pub copied: u64,
    /// Files that were there and have not been touched.
    pub kept: u64,
    /// Directories of the source whose place is taken by something else; nothing beneath them was copied.
    pub blocked: Vec<PathBuf>,
    /// The version now in the marker.
    pub version: String,
}

/// What stopped a run. What was copied until then is whole and stays; the next run goes on from there.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BootstrapError {
    #[error("defaults {path} cannot be read")]
    Source { path: PathBuf, source: io::Error },
    #[error("defaults: {path} leads outside of the source; put the file itself there")]
    LeadsOutside { path: PathBuf },
    #[error("defaults: {path} is neither a file nor a directory")]
    Special { path: PathBuf },
    #[error("defaults: {path} is nested too deeply")]
    TooDeep { path: PathBuf },
    #[error("bootstrap target {path} cannot be used; mount a writable volume there and name it without symbolic links")]
    Target { path: PathBuf, source: io::Error },
    #[error("bootstrap source {path} and target {target} lie inside one another")]
    Overlap { path: PathBuf, target: PathBuf },
    #[error("{path} cannot be written")]
    Write { path: PathBuf, source: io::Error },
    #[error("bootstrap version must be one line of at most 256 printable characters")]
    Version,
}

/// Copies what is missing. A second run with the same source changes nothing.
pub fn run(plan: &Plan) -> Result<Summary, BootstrapError> {
    if plan.version.len() > 256 || plan.version.contains(steers) {
        return Err(BootstrapError::Version);
    }
    let entries = source::list(&plan.source)?;
    let target = open_target(plan)?;
    let mut copy = Copy { copied: 0, kept: 0, blocked: Vec::new() };
    copy.directory(&target, &plan.target, &entries)?;

    let version = match plan.version.as_str() {
        "" => source::digest(&entries)?,
        given => given.to_owned(),
    };
    if copy.copied > 0 || read_marker(&target).as_ref() != Some(&version) {
        write_marker(plan, &target, &version, &entries)?;
    }
    Ok(Summary { copied: copy.copied, kept: copy.kept, blocked: copy.blocked, version })
}

struct Copy {
    copied: u64,
    kept: u64,
    blocked: Vec<PathBuf>,
}

impl Copy {
    /// `path` is for messages only.
    fn directory(&mut self, dir: &OwnedFd, path: &Path, entries: &[Entry]) -> Result<(), BootstrapError> {
        place::remove_leftovers(dir);
        let mut changed = false;
        for entry in entries {
            let path = path.join(&entry.name);
            match &entry.kind {
                Kind::File => changed |= self.file(dir, &path, entry)?,
                Kind::Directory(children) => match self.enter(dir, &path, entry)? {
                    Some((child, made)) => {
                        changed |= made;
                        self.directory(&child, &path, children)?;
                    }
                    None => self.blocked.push(path),
                },
            }
        }
        // The names reach the disk with their directory.
        if changed {
            fsync(dir).map_err(|errno| written(path, errno.into()))?;
        }
        Ok(())
    }

    fn file(&mut self, dir: &OwnedFd, path: &Path, entry: &Entry) -> Result<bool, BootstrapError> {
        if place::exists(dir, &entry.name).map_err(|source| written(path, source))? {
            self.kept += 1;
            return Ok(false);
        }
        let mut content = source::open(&entry.path)?;
        let placed =
            place::place(dir, &entry.name, &mut content, entry.mode).map_err(|error| error.at(path, &entry.path))?;
        match placed {
            Placed::New => self.copied += 1,
            // Somebody else was quicker; theirs counts as an edit.
            Placed::WasThere => self.kept += 1,
        }
        Ok(placed == Placed::New)
    }

    /// The directory of that name and whether it was made now; `None` where something else has its place.
    fn enter(&self, dir: &OwnedFd, path: &Path, entry: &Entry) -> Result<Option<(OwnedFd, bool)>, BootstrapError> {
        // All bits and the umask: with `fsGroup` the volume's setgid bit and the Pod's umask decide who may write.
        let made = match mkdirat(dir, entry.name.as_os_str(), Mode::from_bits_truncate(0o777)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(written(path, errno.into())),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let child = match openat(dir, entry.name.as_os_str(), flags, Mode::empty()) {
            Ok(child) => child,
            // O_NOFOLLOW with O_DIRECTORY answers ENOTDIR for a link (open(2)); some file systems say ELOOP.
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(errno) => return Err(written(path, errno.into())),
        };
        Ok(Some((child, made)))
    }
}

fn open_target(plan: &Plan) -> Result<OwnedFd, BootstrapError> {
    let (from, to) = (crate::mounts::resolve(&plan.source), crate::mounts::resolve(&plan.target));
    if from.starts_with(&to) || to.starts_with(&from) {
        return Err(BootstrapError::Overlap { path: plan.source.clone(), target: plan.target.clone() });
    }
    directory::open(&plan.target, Missing::Make)
        .map_err(|source| BootstrapError::Target { path: plan.target.clone(), source })
}

/// The first line of the marker, where there is a readable one.
fn read_marker(target: &OwnedFd) -> Option<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = std::fs::File::from(openat(target, MARKER, flags, Mode::empty()).ok()?);
    let mut text = String::new();
    if !file.metadata().ok()?.is_file() || file.take(4096).read_to_string(&mut text).is_err() {
        return None;
    }
    text.lines().next().map(str::to_owned)
}

/// Version, then the digest of what it was made from.
fn write_marker(plan: &Plan, target: &OwnedFd, version: &str, entries: &[Entry]) -> Result<(), BootstrapError> {
    let path = plan.target.join(MARKER);
    let digest = source::digest(entries)?;
    let text = format!("{version}\n{}", if version == digest { String::new() } else { format!("{digest}\n") });
    place::replace(target, MARKER.as_ref(), &mut text.as_bytes(), 0o644).map_err(|error| error.at(&path, &path))?;
    fsync(target).map_err(|errno| written(&path, errno.into()))
}

fn written(path: &Path, source: io::Error) -> BootstrapError {
    BootstrapError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
