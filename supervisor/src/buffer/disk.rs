//! What the buffer needs of a disk, and the real one: a held directory.
//!
//! No path is walked after the start and no link is followed: the agent may have the supervisor's uid. For the same
//! reason a mode that was taken away from a file is given back when the file is opened.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

/// A flat directory.
pub trait Disk {
    /// An open file of it.
    type File: Blocks;
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file, for reading and writing.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// A file that is there, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// No more.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names outlive the loss of power.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait Blocks {
    /// Fills `buffer` as far as the file goes; how far that was.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// All of `bytes`, or an error; then any part of them may be there.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The bytes outlive the loss of power. After an error nothing is known of them.
    fn sync(&mut self) -> io::Result<()>;
    /// How long it is.
    fn length(&self) -> io::Result<u64>;
    /// Take so much room now, so that writing within it finds room; the length stays.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Give back the room behind its length.
    fn trim(&mut self) -> io::Result<()>;
}

/// A directory held by its descriptor.
#[derive(Debug)]
pub struct Directory(OwnedFd);

const FOLDER: Mode = Mode::S_IRWXU;
const PRIVATE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
const FLAGS: OFlag = OFlag::O_RDWR.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

impl Directory {
    /// The folder `name` in `parent`, made where it is missing.
    pub fn open(parent: &OwnedFd, name: &str) -> io::Result<Directory> {
        let made = match mkdirat(parent, name, FOLDER) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let folder = openat(parent, name, flags, Mode::empty()).or_else(|errno| match errno {
            Errno::EACCES => {
                fchmodat(parent, name, FOLDER, FchmodatFlags::NoFollowSymlink)?;
                openat(parent, name, flags, Mode::empty())
            }
            other => Err(other),
        })?;
        if made {
            // Its name must outlive the loss of power as its files do.
            fsync(parent)?;
        }
        Ok(Directory(folder))
    }

    fn open_file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let file = openat(&self.0, name, flags, PRIVATE).or_else(|errno| match errno {
            Errno::EACCES => {
                fchmodat(&self.0, name, PRIVATE, FchmodatFlags::NoFollowSymlink)?;
                openat(&self.0, name, flags, PRIVATE)
            }
            other => Err(other),
        })?;
        let file = File::from(file);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Disk for Directory {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut folder = Dir::from_fd(self.0.try_clone()?)?;
        let mut names = Vec::new();
        for entry in folder.iter() {
            // Names of ours are ASCII; others are none of our business.
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        self.open_file(name, FLAGS | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        self.open_file(name, FLAGS)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.0, from, &self.0, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.0)?)
    }
}

impl Blocks for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        // fdatasync(2) writes the length too where it changed, and leaves out only the times.
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        match fallocate(&*self, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes as i64) {
            // A file system that cannot promise room still has it, or has not, when the write comes.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn trim(&mut self) -> io::Result<()> {
        // Setting the length that it has frees what was allocated behind it.
        self.set_len(self.metadata()?.len())
    }
}
