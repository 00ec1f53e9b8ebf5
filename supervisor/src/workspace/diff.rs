//! The patch that leads from the seed to what is in the workspace now, as `git apply` takes it.
//!
//! The seed is the archive itself: it is read once for a list of digests, then again for the contents that changed, so
//! that nothing of it has to lie where a task could change it. Each file of the workspace is read as a whole, so that
//! the patch fits together even while a task writes. As in git, empty directories and all modes but `x` are nothing;
//! `.git` is left out wherever it lies, since git refuses to patch it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use nix::fcntl::readlinkat;
use nix::sys::stat::FileStat;
use sha2::{Digest, Sha256};

mod binary;
mod text;

use super::archive::{Item, read};
use super::failure::{Failure, Kind};
use super::path::Relative;
use super::root::Root;
use super::walk::{Go, is, walk};

/// Old and new contents that one patch may be made of, in memory.
const MAX_CONTENTS: u64 = 64 * 1024 * 1024;
/// A client has uploaded the seed under its bound; here it only must not run on for ever.
const MAX_SEED: u64 = 1 << 40;

/// git's three modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Executable,
    Link,
}

impl Mode {
    fn of(mode: u32) -> Mode {
        if mode & 0o100 == 0 { Mode::Plain } else { Mode::Executable }
    }

    pub(super) const fn octal(self) -> &'static str {
        match self {
            Mode::Plain => "100644",
            Mode::Executable => "100755",
            Mode::Link => "120000",
        }
    }
}

/// One side of one path.
pub(super) struct Side {
    pub(super) mode: Mode,
    pub(super) content: Vec<u8>,
}

#[derive(PartialEq, Eq)]
struct Known {
    mode: Mode,
    size: u64,
    digest: [u8; 32],
}

/// Write the patch from `seed` to `root`.
pub(crate) fn diff(root: &Root, mut seed: File, out: &mut impl Write) -> Result<(), Failure> {
    let seed_failed = |e: io::Error| Failure::new(Kind::Internal, format!("the seed cannot be read again: {e}"));
    let mut old = known(&seed)?;
    let mut new = BTreeMap::new();
    let mut left = MAX_CONTENTS;
    walk(root, None, &mut |path, stat| {
        if path.name() == ".git" {
            return Ok(Go::Over);
        }
        if let Some(now) = look(root, path, stat)? {
            match old.get(path) {
                Some(before) if *before == now => drop(old.remove(path)),
                _ => drop(new.insert(path.clone(), side(root, path, stat, &mut left)?)),
            }
        }
        Ok(Go::Into)
    })?;
    // What is left in `old` is gone or different; only its contents are needed now.
    seed.rewind().map_err(seed_failed)?;
    let mut before = contents(&seed, &old, &mut left)?;
    let mut paths: Vec<&Relative> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let (from, to) = (before.remove(path), new.get(path));
        text::change(path, from.as_ref(), to, out)
            .map_err(|e| Failure::new(Kind::Internal, format!("the patch cannot be written: {e}")))?;
    }
    Ok(())
}

/// Digests of all that a patch could change in the seed.
fn known(seed: &File) -> Result<BTreeMap<Relative, Known>, Failure> {
    let mut known = BTreeMap::new();
    read(seed, MAX_SEED, &mut |path, item| {
        if in_git(path) {
            return Ok(());
        }
        let entry = match item {
            Item::Directory { .. } => return Ok(()),
            Item::Link { target } => digest(Mode::Link, target),
            Item::File { mode, content, .. } => {
                let size = content.left();
                let mut hash = Hash(Sha256::new());
                content.copy_to(&mut hash)?;
                Known { mode: Mode::of(mode), size, digest: hash.0.finalize().into() }
            }
        };
        known.insert(path.clone(), entry);
        Ok(())
    })?;
    Ok(known)
}

fn contents(
    seed: &File,
    wanted: &BTreeMap<Relative, Known>,
    left: &mut u64,
) -> Result<BTreeMap<Relative, Side>, Failure> {
    let mut contents = BTreeMap::new();
    read(seed, MAX_SEED, &mut |path, item| {
        if !wanted.contains_key(path) {
            return Ok(());
        }
        let side = match item {
            Item::Directory { .. } => return Ok(()),
            Item::Link { target } => Side { mode: Mode::Link, content: target.to_vec() },
            Item::File { mode, content: bytes, .. } => {
                *left = left.checked_sub(bytes.left()).ok_or_else(|| too_large(path))?;
                let mut content = Vec::new();
                bytes.copy_to(&mut content)?;
                Side { mode: Mode::of(mode), content }
            }
        };
        contents.insert(path.clone(), side);
        Ok(())
    })?;
    Ok(contents)
}

/// What is at `path` in the workspace; `None` for what no patch can have.
fn look(root: &Root, path: &Relative, stat: &FileStat) -> Result<Option<Known>, Failure> {
    if is(stat, libc::S_IFLNK) {
        return target(root, path).map(|target| Some(digest(Mode::Link, &target)));
    }
    if !is(stat, libc::S_IFREG) {
        return Ok(None);
    }
    let failed = |e: io::Error| Failure::at(&path.display(), &e);
    let (mut file, stat) = root.open_file(path).map_err(failed)?;
    let mut hash = Hash(Sha256::new());
    let size = io::copy(&mut file, &mut hash).map_err(failed)?;
    Ok(Some(Known { mode: Mode::of(stat.st_mode), size, digest: hash.0.finalize().into() }))
}

/// Content and mode of one changed path, as they are now.
fn side(root: &Root, path: &Relative, stat: &FileStat, left: &mut u64) -> Result<Side, Failure> {
    if is(stat, libc::S_IFLNK) {
        return Ok(Side { mode: Mode::Link, content: target(root, path)? });
    }
    let failed = |e: io::Error| Failure::at(&path.display(), &e);
    let (file, stat) = root.open_file(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(*left + 1).read_to_end(&mut content).map_err(failed)?;
    *left = left.checked_sub(content.len() as u64).ok_or_else(|| too_large(path))?;
    Ok(Side { mode: Mode::of(stat.st_mode), content })
}

fn target(root: &Root, path: &Relative) -> Result<Vec<u8>, Failure> {
    use std::os::unix::ffi::OsStringExt;
    let failed = |e: io::Error| Failure::at(&path.display(), &e);
    let parent = root.open_parent(path).map_err(failed)?;
    let target = readlinkat(&parent, path.name()).map_err(|errno| failed(errno.into()))?;
    Ok(target.into_vec())
}

fn digest(mode: Mode, content: &[u8]) -> Known {
    Known { mode, size: content.len() as u64, digest: Sha256::digest(content).into() }
}

fn in_git(path: &Relative) -> bool {
    path.names().any(|name| name == b".git")
}

fn too_large(path: &Relative) -> Failure {
    let most = MAX_CONTENTS / (1024 * 1024);
    let what = format!(
        "the changes take more than {most} MiB, the last one being {}; fetch the workspace instead",
        path.display()
    );
    Failure::new(Kind::TooLarge, what)
}

struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "diff/tests.rs"]
mod tests;
