//! One file, whole or not at all, beneath an open directory; never through a link, never over what is there.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::BootstrapError;

/// An unfinished file. Its writer holds a lock on it, so that one whose writer is gone can be told.
const PREFIX: &str = ".chaperone-new-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    New,
    WasThere,
}

#[derive(Debug)]
pub(crate) enum PlaceError {
    Read(io::Error),
    Write(io::Error),
}

impl PlaceError {
    /// With the paths that only the caller knows.
    pub(crate) fn at(self, path: &Path, from: &Path) -> BootstrapError {
        match self {
            PlaceError::Read(source) => BootstrapError::Source { path: from.to_owned(), source },
            PlaceError::Write(source) => BootstrapError::Write { path: path.to_owned(), source },
        }
    }
}

/// Whether anything at all has that name.
pub(crate) fn exists(dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the file, unless anything has its name by then.
pub(crate) fn place(dir: &OwnedFd, name: &OsStr, content: &mut impl Read, mode: u32) -> Result<Placed, PlaceError> {
    let unfinished = Unfinished::write(dir, content, mode)?;
    match link_or_rename(dir, &unfinished.name, name) {
        Ok(()) => Ok(Placed::New),
        Err(Errno::EEXIST) => Ok(Placed::WasThere),
        Err(errno) => Err(PlaceError::Write(errno.into())),
    }
}

/// Makes the file in place of whatever file or link has its name.
pub(crate) fn replace(dir: &OwnedFd, name: &OsStr, content: &mut impl Read, mode: u32) -> Result<(), PlaceError> {
    let unfinished = Unfinished::write(dir, content, mode)?;
    renameat(dir, unfinished.name.as_os_str(), dir, name).map_err(|errno| PlaceError::Write(errno.into()))
}

/// Neither of the two ever replaces. Some file systems have no hard links (vfat, many over the network): those answer
/// EPERM or EOPNOTSUPP, link(2).
fn link_or_rename(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> nix::Result<()> {
    match linkat(dir, from, dir, to, AtFlags::empty()) {
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => rename_only(dir, from, to),
        other => other,
    }
}

/// `renameat2(2)` with RENAME_NOREPLACE, made without the C library: musl has no function for it.
fn rename_only(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> nix::Result<()> {
    rustix::fs::renameat_with(dir, from, dir, to, rustix::fs::RenameFlags::NOREPLACE)
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// A file under a name of its own; the name goes with this value, the file stays if it has another by then.
struct Unfinished<'a> {
    dir: &'a OwnedFd,
    name: OsString,
    /// Closing it lets go of the lock.
    _file: File,
}

impl Unfinished<'_> {
    fn write<'a>(dir: &'a OwnedFd, content: &mut impl Read, mode: u32) -> Result<Unfinished<'a>, PlaceError> {
        let (name, mut file) = create(dir).map_err(PlaceError::Write)?;
        let unfinished = Unfinished { dir, name, _file: file.try_clone().map_err(PlaceError::Write)? };
        copy(content, &mut file)?;
        // Whatever the umask; never setuid, setgid or sticky.
        fchmod(&file, Mode::from_bits_truncate(mode & 0o777)).map_err(|errno| PlaceError::Write(errno.into()))?;
        // A full disk or a broken one may only say so here.
        file.sync_all().map_err(PlaceError::Write)?;
        Ok(unfinished)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = unlinkat(self.dir, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
}

fn create(dir: &OwnedFd) -> io::Result<(OsString, File)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    loop {
        // Two containers that share a volume may both have pid 1, so a taken name means: try the next.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(format!("{PREFIX}{}-{count}", std::process::id()));
        match openat(dir, name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => {
                let file = File::from(file);
                if hold(&file)? {
                    return Ok((name, file));
                }
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Locks a new file, `false` where another run took it for a leftover before the lock was ours: that run holds the lock
/// until the name is gone, so one of the two signs is there.
fn hold(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(false),
        // A file system without locks: two runs at once may then fail, but never leave half a file.
        Err(TryLockError::Error(_)) => Ok(true),
        Ok(()) => Ok(file.metadata()?.nlink() > 0),
    }
}

/// By hand, because only so a failing source and a full target are told apart.
fn copy(content: &mut impl Read, file: &mut File) -> Result<(), PlaceError> {
    use std::io::Write;
    let mut piece = vec![0; 64 * 1024];
    loop {
        match content.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => file.write_all(&piece[..count]).map_err(PlaceError::Write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(PlaceError::Read(error)),
        }
    }
}

/// Removes what runs that were cut off left here. Trouble with it is no reason not to copy.
pub(crate) fn remove_leftovers(dir: &OwnedFd) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut listing) = Dir::openat(dir, ".", flags, Mode::empty()) else { return };
    let ours = |name: &OsStr| name.as_bytes().starts_with(PREFIX.as_bytes());
    let names: Vec<OsString> = listing
        .iter()
        .filter_map(|entry| Some(OsStr::from_bytes(entry.ok()?.file_name().to_bytes()).to_owned()))
        .filter(|name| ours(name))
        .collect();
    for name in names {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(dir, name.as_os_str(), flags, Mode::empty()).map(File::from).ok();
        let in_use = file.as_ref().is_some_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
        if !in_use {
            let _ = unlinkat(dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        // Only now may its lock go.
        drop(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_run_took_for_a_leftover_is_given_up() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("x");
        let file = File::create(&path).expect("made");
        assert!(hold(&file).expect("holds"));
        let other = File::open(&path).expect("there");
        assert!(!hold(&other).expect("asks"), "the other run has its lock");
        drop(file);
        std::fs::remove_file(&path).expect("ours");
        assert!(!hold(&other).expect("holds"), "its name is gone");
    }

    /// Where hard links cannot be had.
    #[test]
    fn renaming_does_not_replace_either() {
        let scratch = tempfile::tempdir().expect("scratch");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(scratch.path(), flags, Mode::empty()).expect("opens");
        std::fs::write(scratch.path().join("new"), "new").expect("made");
        std::fs::write(scratch.path().join("old"), "old").expect("made");
        assert_eq!(rename_only(&dir, "new".as_ref(), "old".as_ref()), Err(Errno::EEXIST));
        rename_only(&dir, "new".as_ref(), "other".as_ref()).expect("free");
        assert_eq!(std::fs::read(scratch.path().join("old")).expect("there"), b"old");
    }
}
