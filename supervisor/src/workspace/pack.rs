//! A directory as tar: files, directories and links, in the order of their names.
//!
//! What is none of these (sockets, FIFOs, devices) is left out. A file that grows meanwhile is cut where it was when it
//! was opened; one that shrinks ends the archive as a failure, since its size had been promised already.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::fcntl::readlinkat;
use nix::sys::stat::FileStat;
use tar::{Builder, EntryType, Header};

use super::failure::{Failure, Kind};
use super::path::Relative;
use super::root::Root;
use super::walk::{Go, walk};

/// Write all of `root`.
pub(crate) fn pack(root: &Root, gzip: bool, out: &mut impl Write) -> Result<(), Failure> {
    let broken = |e: io::Error| Failure::new(Kind::Internal, format!("the archive cannot be written: {e}"));
    if gzip {
        let mut out = GzEncoder::new(out, Compression::fast());
        entries(root, &mut out)?;
        out.finish().map(drop).map_err(broken)
    } else {
        entries(root, out)
    }
}

fn entries(root: &Root, out: &mut impl Write) -> Result<(), Failure> {
    let mut tar = Builder::new(out);
    walk(root, None, &mut |path, stat| {
        match entry(root, &mut tar, path, stat) {
            // Removed or replaced since the listing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Go::Over),
            Err(e) => Err(Failure::at(&path.display(), &e)),
            Ok(()) => Ok(Go::Into),
        }
    })?;
    tar.finish().map_err(|e| Failure::new(Kind::Internal, format!("the archive cannot be written: {e}")))
}

fn entry(root: &Root, tar: &mut Builder<&mut impl Write>, path: &Relative, stat: &FileStat) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o777);
    header.set_mtime(stat.st_mtime.max(0) as u64);
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => {
            let (mut file, stat) = root.open_file(path)?;
            header.set_entry_type(EntryType::Regular);
            let size = stat.st_size.max(0) as u64;
            header.set_size(size);
            tar.append_data(&mut header, path.as_path(), Promised { file: &mut file, left: size })
        }
        libc::S_IFDIR => {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, path.as_path(), io::empty())
        }
        libc::S_IFLNK => {
            let parent = root.open_parent(path)?;
            let target = readlinkat(&parent, path.name().as_bytes())?;
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path.as_path(), &target)
        }
        _ => Ok(()),
    }
}

/// As many bytes as the header said, or an error.
struct Promised<'a> {
    file: &'a mut std::fs::File,
    left: u64,
}

impl io::Read for Promised<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::other("the file shrank while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
