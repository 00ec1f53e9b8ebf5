//! One directory, and everything beneath it: whoever can write there cannot lead us out of it.
//!
//! Each path is resolved by the kernel in one call that refuses every symlink and every step outside (`openat2(2)`,
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`). Where that call is missing or filtered, name by
//! name with `O_NOFOLLOW`, which refuses the same.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::path::Relative;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// The open directory.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    walk: AtomicBool,
}

impl Root {
    /// Open `path`. It is the operator's or ours: nobody else can change what it means.
    pub fn open(path: &Path) -> io::Result<Root> {
        let directory = openat(AT_FDCWD, path, DIRECTORY, Mode::empty())?;
        Ok(Root { directory, walk: AtomicBool::new(false) })
    }

    /// The root's own descriptor, independent of any other.
    pub fn directory(&self) -> io::Result<OwnedFd> {
        Ok(openat(&self.directory, ".", DIRECTORY, Mode::empty())?)
    }

    /// Open the directory at `path`; `None` for the root.
    pub fn open_directory(&self, path: Option<&Relative>) -> io::Result<OwnedFd> {
        match path {
            None => self.directory(),
            Some(path) => self.resolve(path, DIRECTORY),
        }
    }

    /// Open the plain file at `path` for reading. Neither a FIFO nor a device is waited for or touched.
    pub fn open_file(&self, path: &Relative) -> io::Result<(File, FileStat)> {
        let opened = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        let stat = fstat(&opened)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Ok((File::from(opened), stat)),
            libc::S_IFDIR => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::other("this is neither a file nor a directory")),
        }
    }

    /// The directory that holds `path`.
    pub fn open_parent(&self, path: &Relative) -> io::Result<OwnedFd> {
        self.open_directory(path.parent().as_ref())
    }

    /// What is at `path`, a link as the link itself.
    pub fn stat(&self, path: &Relative) -> io::Result<FileStat> {
        let parent = self.open_parent(path)?;
        Ok(fstatat(&parent, path.name(), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Make the directory at `path` with all that leads there. What is there stays.
    pub fn make_directories(&self, path: &Relative) -> io::Result<OwnedFd> {
        let mut directory = self.directory()?;
        for name in path.names() {
            let name = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
            match mkdirat(&directory, name, Mode::from_bits_truncate(0o777)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            directory = step(&directory, name, DIRECTORY)?;
        }
        Ok(directory)
    }

    /// Remove the file, the link or the empty directory at `path`.
    pub fn remove(&self, path: &Relative) -> io::Result<()> {
        let parent = self.open_parent(path)?;
        match unlinkat(&parent, path.name(), UnlinkatFlags::NoRemoveDir) {
            // unlink(2): EISDIR from Linux, EPERM from POSIX.
            Err(Errno::EISDIR | Errno::EPERM) => Ok(unlinkat(&parent, path.name(), UnlinkatFlags::RemoveDir)?),
            other => Ok(other?),
        }
    }

    fn resolve(&self, path: &Relative, flags: OFlag) -> io::Result<OwnedFd> {
        if self.walk.load(Ordering::Relaxed) {
            return self.walk(path, flags);
        }
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        loop {
            match openat2(&self.directory, path.as_path(), how) {
                // A rename went on beside; openat2(2) says to try again.
                Err(Errno::EAGAIN) => {}
                // Before Linux 5.6, and filters that do not know it.
                Err(Errno::ENOSYS) => {
                    self.walk.store(true, Ordering::Relaxed);
                    return self.walk(path, flags);
                }
                other => return Ok(other?),
            }
        }
    }

    /// The same without the call.
    fn walk(&self, path: &Relative, flags: OFlag) -> io::Result<OwnedFd> {
        let mut directory = self.directory()?;
        for name in path.parent().iter().flat_map(Relative::names) {
            let name = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
            directory = step(&directory, name, DIRECTORY)?;
        }
        step(&directory, Path::new(path.name()), flags)
    }
}

/// One name, never through a link. open(2): `O_NOFOLLOW` says ELOOP, but with `O_DIRECTORY` it says ENOTDIR, as for a
/// file.
fn step(directory: impl AsFd, name: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let opened = openat(&directory, name, flags | OFlag::O_NOFOLLOW, Mode::empty());
    let is_link = |stat: FileStat| stat.st_mode & libc::S_IFMT == libc::S_IFLNK;
    match opened {
        Err(Errno::ENOTDIR) if fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(is_link) => {
            Err(Errno::ELOOP.into())
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    fn roots(path: &Path) -> [Root; 2] {
        let walking = Root::open(path).expect("opens");
        walking.walk.store(true, Ordering::Relaxed);
        [Root::open(path).expect("opens"), walking]
    }

    fn path(text: &str) -> Relative {
        Relative::new(text.as_bytes()).expect("plain")
    }

    fn read(root: &Root, name: &str) -> io::Result<String> {
        let (mut file, _) = root.open_file(&path(name))?;
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text)?;
        Ok(text)
    }

    #[test]
    fn a_link_at_any_place_of_a_path_is_refused() {
        let scratch = tempfile::tempdir().expect("scratch");
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("root/a/b/c")).expect("made");
        std::fs::create_dir_all(at("outside/b/c")).expect("made");
        std::fs::write(at("root/a/b/c/file"), "inside").expect("made");
        std::fs::write(at("outside/b/c/file"), "outside").expect("made");
        symlink(at("outside"), at("root/x")).expect("made");
        symlink("../../outside/b", at("root/a/x")).expect("made");
        symlink("../../../outside/b/c", at("root/a/b/x")).expect("made");
        symlink("file", at("root/a/b/c/x")).expect("made");
        symlink("/proc/self/root", at("root/p")).expect("made");
        for root in roots(&at("root")) {
            assert_eq!(read(&root, "a/b/c/file").expect("read"), "inside");
            for name in ["x/b/c/file", "a/x/c/file", "a/b/x/file", "a/b/c/x", "p/etc/passwd"] {
                assert!(read(&root, name).is_err(), "{name}");
            }
            assert!(root.make_directories(&path("x/new")).is_err());
            assert!(root.remove(&path("x/b/c/file")).is_err());
            assert!(root.open_directory(Some(&path("x"))).is_err());
            root.remove(&path("a/b/c/x"))
                .map_err(|e| e.kind())
                .or_else(|kind| match kind {
                    io::ErrorKind::NotFound => Ok(()),
                    other => Err(other),
                })
                .expect("the link itself can go");
        }
        assert!(!at("outside/new").exists());
        assert!(at("outside/b/c/file").exists());
        assert!(at("root/a/b/c/file").exists());
    }

    #[test]
    fn a_fifo_is_neither_waited_for_nor_read() {
        let scratch = tempfile::tempdir().expect("scratch");
        nix::unistd::mkfifo(&scratch.path().join("fifo"), Mode::S_IRWXU).expect("made");
        for root in roots(scratch.path()) {
            assert!(root.open_file(&path("fifo")).is_err());
        }
    }

    /// One thread swaps a directory for a link to the outside and back; the other opens beneath it.
    #[test]
    fn a_directory_that_is_swapped_for_a_link_meanwhile_never_leads_out() {
        let scratch = tempfile::tempdir().expect("scratch");
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("root/d/e")).expect("made");
        std::fs::create_dir_all(at("outside/e")).expect("made");
        std::fs::write(at("root/d/e/file"), "inside").expect("made");
        std::fs::write(at("outside/e/file"), "outside").expect("made");
        symlink(at("outside"), at("root/link")).expect("made");
        let stop = Arc::new(AtomicBool::new(false));
        let swapper = std::thread::spawn({
            let (stop, d, aside, link) = (stop.clone(), at("root/d"), at("root/aside"), at("root/link"));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let steps = [(&d, &aside), (&link, &d), (&d, &link), (&aside, &d)];
                    steps.iter().for_each(|(from, to)| std::fs::rename(from, to).expect("ours"));
                }
            }
        });
        let until = Instant::now() + Duration::from_millis(500);
        let mut seen = [0u64; 2];
        while Instant::now() < until {
            for (root, seen) in roots(&at("root")).iter().zip(&mut seen) {
                if let Ok(text) = read(root, "d/e/file") {
                    assert_eq!(text, "inside");
                    *seen += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().expect("swapper");
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }
}
