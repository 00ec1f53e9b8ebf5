//! The state directory: one owner, one descriptor, whole files.
//!
//! - One supervisor holds it at a time (`flock(2)`, which the kernel lets go of with the process).
//! - Everything goes through the directory's descriptor; no path is walked again after the start, and no symlink is
//!   ever followed.
//! - A file is either the old one or the new one: written beside, then renamed.
//! - The agent may have the supervisor's uid, and Landlock does not see `chmod(2)`: modes that somebody else changed
//!   are put back at each use and counted.

mod overlap;
mod run;

pub use overlap::conflict;
pub use run::{RunRecord, RunState, boot_id};

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, geteuid, unlinkat};
use serde::de::DeserializeOwned;

use crate::exit;

const PRIVATE: Mode = Mode::S_IRWXU;
/// Others pass through to what they know the name of; every file and every other directory in there is private itself.
const PASSABLE: Mode = PRIVATE.union(Mode::S_IXGRP).union(Mode::S_IXOTH);
const FILE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
const LOCK: &str = "lock";

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StateError {
    #[error("state directory {path} cannot be made")]
    Create { path: PathBuf, source: io::Error },
    #[error("state directory {path} cannot be opened")]
    Open { path: PathBuf, source: io::Error },
    #[error("state directory {path} is a symbolic link or not a directory; name the directory itself")]
    NotADirectory { path: PathBuf },
    #[error("state directory {path} is in use by pid {owner}; give each supervisor its own")]
    InUse { path: PathBuf, owner: String },
    #[error("state directory {path} cannot be locked")]
    Lock { path: PathBuf, source: io::Error },
    #[error("state directory {path} cannot be written by uid {uid}; mount a writable volume there")]
    Unwritable { path: PathBuf, uid: u32, source: io::Error },
    #[error("state directory {path} is full; free some space or give it a larger volume")]
    Full { path: PathBuf, source: io::Error },
    #[error("state file {file} cannot be {action}")]
    File { file: String, action: &'static str, source: io::Error },
    #[error("state file {file} is a link or not a plain file")]
    NotAFile { file: String },
    #[error("state file {file} is longer than {limit} bytes")]
    TooLong { file: String, limit: u64 },
    #[error("state file {file} does not hold what was written to it")]
    Corrupt { file: String, source: serde_json::Error },
}

impl StateError {
    /// Space, another supervisor and broken disks may be gone at the next try; the rest is for the operator to mend.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, StateError::Full { .. } | StateError::InUse { .. } | StateError::Lock { .. })
    }

    /// There is no memory or descriptor for it now.
    fn is_scarce(&self) -> bool {
        matches!(self, StateError::File { source, .. } if exit::is_scarce(source.raw_os_error().unwrap_or(0)))
    }
}

/// What a write outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of every process (the page cache has it).
    Crash,
    /// The end of the node (the disk has it).
    PowerLoss,
}

/// The open, locked state directory.
#[derive(Debug)]
pub struct StateDir {
    dir: OwnedFd,
    path: PathBuf,
    mode: Mode,
    ours: bool,
    tampered: AtomicU64,
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, takes its lock, and proves that a file can be written there.
    pub fn open(path: &Path) -> Result<StateDir, StateError> {
        StateDir::open_with(path, PRIVATE)
    }

    /// The same for a directory in which another uid has a place of its own.
    pub fn open_passable(path: &Path) -> Result<StateDir, StateError> {
        StateDir::open_with(path, PASSABLE)
    }

    fn open_with(path: &Path, mode: Mode) -> Result<StateDir, StateError> {
        make(path)?;
        let dir = open_directory(path)?;
        let ours = fstat(&dir).is_ok_and(|stat| stat.st_uid == geteuid().as_raw());
        if ours {
            // A volume's root comes as 0777; from here on it is private.
            fchmod(&dir, mode).map_err(|errno| refused(path, errno.into()))?;
        }
        let lock = lock(&dir, path)?;
        let state = StateDir { dir, path: path.to_owned(), mode, ours, tampered: AtomicU64::new(0), _lock: lock };
        state.prove_writable()?;
        Ok(state)
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor, for parts that keep directories of their own beneath.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.dir
    }

    /// How often a mode had been changed by somebody else, and was put back.
    pub fn tampered(&self) -> u64 {
        self.tampered.load(Ordering::Relaxed)
    }

    /// Replaces the file as a whole. `name` has no `/`.
    pub fn write(&self, name: &str, bytes: &[u8], durability: Durability) -> Result<(), StateError> {
        self.mend_directory();
        let failed = |action| move |source: io::Error| self.file_error(name, action, source);
        let temporary = format!(".{name}.new");
        // One supervisor holds the lock, so an older one is from a crash.
        let _ = unlinkat(&self.dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        let result = self.write_whole(&temporary, bytes, durability).map_err(failed("written")).and_then(|()| {
            renameat(&self.dir, temporary.as_str(), &self.dir, name).map_err(|e| failed("renamed")(e.into()))
        });
        if result.is_err() {
            let _ = unlinkat(&self.dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
            return result;
        }
        if durability == Durability::PowerLoss {
            fsync(&self.dir).map_err(|e| failed("synced")(e.into()))?;
        }
        Ok(())
    }

    /// The whole file, `None` where there is none.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StateError> {
        self.mend_directory();
        let Some(stat) = self.stat(name)? else { return Ok(None) };
        self.mend_file(name, &stat);
        // O_NONBLOCK: a FIFO put in the file's place since then must not stop the supervisor.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(self.file_error(name, "opened", errno.into())),
        };
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| self.file_error(name, "read", source))?;
        if bytes.len() as u64 > limit {
            return Err(StateError::TooLong { file: name.to_owned(), limit });
        }
        Ok(Some(bytes))
    }

    /// The same for a file of JSON.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str, limit: u64) -> Result<Option<T>, StateError> {
        let corrupt = |source| StateError::Corrupt { file: name.to_owned(), source };
        self.read(name, limit)?.map(|bytes| serde_json::from_slice(&bytes).map_err(corrupt)).transpose()
    }

    /// What an earlier start left in a file of JSON. Damaged, it can never be read: that is logged, and it is as if there were none. An error
    /// says that there may be something, which a later start can see.
    pub fn recall<T: DeserializeOwned>(&self, name: &str, limit: u64) -> Result<Option<T>, StateError> {
        self.read_json(name, limit).or_else(|error| {
            if error.is_scarce() {
                return Err(error);
            }
            tracing::warn!(error = exit::reason(&error), "what an earlier start left is of no use, and is replaced");
            Ok(None)
        })
    }

    /// Puts back what others changed of the modes of the directory and of these files, between two uses of them.
    pub fn mend(&self, files: &[&str]) {
        self.mend_directory();
        for name in files {
            if let Ok(Some(stat)) = self.stat(name) {
                self.mend_file(name, &stat);
            }
        }
    }

    /// Removes the file; one that is not there is removed already.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        self.mend_directory();
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.file_error(name, "removed", errno.into())),
        }
    }

    fn write_whole(&self, name: &str, bytes: &[u8], durability: Durability) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.dir, name, flags, FILE)?);
        file.write_all(bytes)?;
        if durability == Durability::PowerLoss {
            file.sync_all()?;
        }
        Ok(())
    }

    fn prove_writable(&self) -> Result<(), StateError> {
        // A whole page: an empty file needs no block, so it would fit on a full disk. Not synced: local file systems
        // find room when they are written to, and a sync takes milliseconds from the start of every agent.
        self.write("probe", &[b'.'; 4096], Durability::Crash).and_then(|()| self.remove("probe")).map_err(|error| {
            match error {
                StateError::File { source, .. } => refused(&self.path, source),
                other => other,
            }
        })
    }

    fn stat(&self, name: &str) -> Result<Option<FileStat>, StateError> {
        match fstatat(&self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if kind(&stat) == SFlag::S_IFREG => Ok(Some(stat)),
            Ok(_) => Err(StateError::NotAFile { file: name.to_owned() }),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.file_error(name, "looked up", errno.into())),
        }
    }

    fn mend_directory(&self) {
        let changed = self.ours && fstat(&self.dir).is_ok_and(|stat| permissions(&stat) != self.mode);
        if changed && fchmod(&self.dir, self.mode).is_ok() {
            self.tampered.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn mend_file(&self, name: &str, stat: &FileStat) {
        let changed = stat.st_uid == geteuid().as_raw() && permissions(stat) != FILE;
        if changed && fchmodat(&self.dir, name, FILE, FchmodatFlags::NoFollowSymlink).is_ok() {
            self.tampered.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn file_error(&self, name: &str, action: &'static str, source: io::Error) -> StateError {
        if is_full(&source) {
            return StateError::Full { path: self.path.clone(), source };
        }
        StateError::File { file: name.to_owned(), action, source }
    }
}

/// A directory that is ours alone, with its parents, where it is missing; for parts that keep one in the state directory.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(PRIVATE.bits()).create(path)
}

fn make(path: &Path) -> Result<(), StateError> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    make_private(path).map_err(|source| match is_full(&source) {
        true => StateError::Full { path: path.to_owned(), source },
        false => StateError::Create { path: path.to_owned(), source },
    })
}

fn open_directory(path: &Path) -> Result<OwnedFd, StateError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = || nix::fcntl::open(path, flags, Mode::empty());
    let opened = match open() {
        // Left by an agent that took our own permissions away; as owner we may give them back (chmod(2)).
        Err(Errno::EACCES) if is_our_directory(path) => {
            fchmodat(nix::fcntl::AT_FDCWD, path, PRIVATE, FchmodatFlags::NoFollowSymlink).and_then(|()| open())
        }
        other => other,
    };
    opened.map_err(|errno| match errno {
        Errno::ELOOP | Errno::ENOTDIR => StateError::NotADirectory { path: path.to_owned() },
        other => StateError::Open { path: path.to_owned(), source: other.into() },
    })
}

fn is_our_directory(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata().is_ok_and(|data| data.is_dir() && data.uid() == geteuid().as_raw())
}

/// The lock file holds its owner's pid and host name, so that the loser can say who won.
fn lock(dir: &OwnedFd, path: &Path) -> Result<File, StateError> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    if fstatat(dir, LOCK, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| kind(&stat) == SFlag::S_IFREG) {
        let _ = fchmodat(dir, LOCK, FILE, FchmodatFlags::NoFollowSymlink);
    }
    let mut file = File::from(openat(dir, LOCK, flags, FILE).map_err(|errno| refused(path, errno.into()))?);
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = (&file).take(256).read_to_string(&mut owner);
            return Err(StateError::InUse { path: path.to_owned(), owner: owner.trim_end().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(StateError::Lock { path: path.to_owned(), source }),
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let owner = format!("{} on {}\n", std::process::id(), host.trim_end());
    file.set_len(0).and_then(|()| file.write_all(owner.as_bytes())).map_err(|source| refused(path, source))?;
    Ok(file)
}

fn refused(path: &Path, source: io::Error) -> StateError {
    let path = path.to_owned();
    match is_full(&source) {
        true => StateError::Full { path, source },
        false => StateError::Unwritable { path, uid: geteuid().as_raw(), source },
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn permissions(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests;
