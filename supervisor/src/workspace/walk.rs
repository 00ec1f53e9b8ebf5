//! Everything beneath a root in the order of names, links as links.
//!
//! Each directory is resolved from the root again: one that somebody moves away meanwhile is not followed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstatat};

use super::failure::{Failure, Kind};
use super::path::Relative;
use super::root::Root;

/// What to do about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// On, and into it where it is a directory.
    Into,
    /// On, and over what is in it.
    Over,
    /// No further.
    Stop,
}

/// Visit what is in `directory`, depth first. Answers `Stop` where a visit did.
pub(super) fn walk(
    root: &Root,
    directory: Option<&Relative>,
    visit: &mut dyn FnMut(&Relative, &FileStat) -> Result<Go, Failure>,
) -> Result<Go, Failure> {
    let shown = directory.map_or_else(|| ".".to_string(), Relative::display);
    let opened = root.open_directory(directory).map_err(|e| Failure::at(&shown, &e))?;
    for name in names(&opened).map_err(|e| Failure::at(&shown, &e.into()))? {
        let path = Relative::beneath(directory, &name)
            .map_err(|e| Failure::new(Kind::Invalid, format!("a path in {shown} {e}")))?;
        let stat = match fstatat(&opened, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Removed since the listing.
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(Failure::at(&path.display(), &errno.into())),
        };
        match visit(&path, &stat)? {
            Go::Into if is(&stat, libc::S_IFDIR) => match walk(root, Some(&path), visit) {
                Err(gone) if gone.kind == Kind::NotFound => {}
                Ok(Go::Stop) => return Ok(Go::Stop),
                other => drop(other?),
            },
            Go::Stop => return Ok(Go::Stop),
            _ => {}
        }
    }
    Ok(Go::Into)
}

/// Sorted, without `.` and `..`.
fn names(directory: &std::os::fd::OwnedFd) -> nix::Result<Vec<OsString>> {
    let mut listing = Dir::from_fd(directory.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Whether it is of this type.
pub(super) fn is(stat: &FileStat, kind: libc::mode_t) -> bool {
    stat.st_mode & libc::S_IFMT == kind
}
