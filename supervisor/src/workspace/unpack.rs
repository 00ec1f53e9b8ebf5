//! An archive onto the disk: all of it, or nothing.
//!
//! The directory is new and empty, and ours alone until this is done. Setuid and the like are gone with the mode's
//! upper bits; whoever owns the directory can always read what is in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::symlinkat;

use super::archive::{Content, Item, read};
use super::failure::{Failure, Kind};
use super::files;
use super::path::Relative;
use super::root::Root;
use super::walk::{Go, walk};

/// Put the archive's entries into `root`, which is empty. What was unpacked before a failure is removed again.
pub(crate) fn unpack(root: &Root, archive: impl Read, most: u64) -> Result<(), Failure> {
    let empty = walk(root, None, &mut |_, _| Ok(Go::Stop))? != Go::Stop;
    if !empty {
        return Err(Failure::new(Kind::Conflict, "the workspace is not empty"));
    }
    // Last, and from the deepest: a mode without `w` would keep out what belongs in there.
    let mut modes: Vec<(Relative, u32)> = Vec::new();
    let done = read(archive, most, &mut |path, item| {
        if let Item::Directory { mode } = item {
            modes.push((path.clone(), mode));
        }
        place(root, path, item)
    })
    .and_then(|()| {
        modes.sort();
        modes.iter().rev().try_for_each(|(path, mode)| set_mode(root, path, *mode))
    });
    if done.is_err() {
        files::clear(root)?;
    }
    done
}

fn place(root: &Root, path: &Relative, item: Item<'_, '_>) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::at(&format!("entry {:?}", path.display()), &e);
    let parent = match path.parent() {
        Some(parent) => root.make_directories(&parent),
        None => root.directory(),
    };
    let parent = parent.map_err(failed)?;
    let name = Path::new(path.name());
    match item {
        Item::Directory { .. } => match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(failed(errno.into())),
        },
        Item::Link { target } => {
            let target = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(target));
            symlinkat(target, &parent, name).map_err(|errno| failed(errno.into()))
        }
        Item::File { mode, mtime, content } => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = openat(&parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
            let mut file = File::from(file.map_err(|errno| failed(errno.into()))?);
            fill(&mut file, content, failed)?;
            // 0600: its owner reads it for the diff and may edit it.
            fchmod(&file, Mode::from_bits_truncate(mode | 0o600)).map_err(|errno| failed(errno.into()))?;
            // make(1) and git's index compare times.
            let time = TimeSpec::new(mtime, 0);
            futimens(&file, &time, &time).map_err(|errno| failed(errno.into()))
        }
    }
}

fn fill(file: &mut File, content: &mut Content<'_>, failed: impl Fn(io::Error) -> Failure) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    while content.left() > 0 {
        let count = content.piece(&mut buffer)?;
        file.write_all(&buffer[..count]).map_err(&failed)?;
    }
    Ok(())
}

fn set_mode(root: &Root, path: &Relative, mode: u32) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::at(&format!("entry {:?}", path.display()), &e);
    let parent = root.open_parent(path).map_err(failed)?;
    let mode = Mode::from_bits_truncate(mode | 0o700);
    // Nobody else is here yet, so the name still means the directory that was made.
    fchmodat(&parent, path.name(), mode, FchmodatFlags::FollowSymlink).map_err(|errno| failed(errno.into()))
}
