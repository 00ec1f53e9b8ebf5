//! A directory on a volume, opened without following anything that the volume's owner may have planted.
//!
//! The way to a volume is the operator's: it lies in the container's own file system, which is new at each start. Links
//! there are followed, as in `/var/run`. From the first mount point on it is the volume's owner's: each name is opened
//! by itself and a link is refused. Where nothing is mounted on the way, that holds from the root.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use crate::mounts::{self, Mount};

/// What to do about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Refuse,
}

/// Opens `path` for reading its entries and for making some beneath it.
pub(crate) fn open(path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    // Without a table no mount is known, and so no link is followed at all.
    open_among(&mounts::read(Path::new("/proc")).unwrap_or_default(), path, missing)
}

fn open_among(mounts: &[Mount], path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    let path = std::path::absolute(path)?;
    let (start, names) = split(mounts, &path);
    let readable = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // O_PATH asks for search alone: neither modes nor Landlock need to let us list what lies on the way.
    let passing = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = openat(AT_FDCWD, &start, if names.is_empty() { readable } else { passing }, Mode::empty())?;
    for (index, name) in names.iter().enumerate() {
        let Component::Normal(name) = name else { return Err(Errno::EINVAL.into()) };
        let flags = if index + 1 == names.len() { readable } else { passing };
        // O_NOFOLLOW with O_DIRECTORY answers ENOTDIR for a link: open(2).
        let step = || openat(&at, *name, flags | OFlag::O_NOFOLLOW, Mode::empty());
        let next = match step() {
            Err(Errno::ENOENT) if missing == Missing::Make => make(&at, name).and_then(|()| step()),
            other => other,
        };
        at = next?;
    }
    Ok(at)
}

/// With the umask; another run may have been quicker.
fn make(at: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match mkdirat(at, name, Mode::from_bits_truncate(0o777)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Where to start, by its real path, and the names from there on. The first mount point counts, not the last: a link
/// planted on one volume may lead to another one, which is a mount point too.
fn split<'a>(mounts: &[Mount], path: &'a Path) -> (PathBuf, Vec<Component<'a>>) {
    let mut prefixes: Vec<&Path> = path.ancestors().collect();
    prefixes.reverse();
    let is_volume =
        |real: &Path| real != Path::new("/") && mounts::lookup(mounts, real).is_some_and(|mount| mount.point == real);
    let volume = prefixes.into_iter().find_map(|prefix| {
        let real = prefix.canonicalize().ok().filter(|real| is_volume(real))?;
        Some((real, prefix))
    });
    let (start, prefix) = volume.unwrap_or_else(|| (PathBuf::from("/"), Path::new("/")));
    (start, path.strip_prefix(prefix).unwrap_or(path).components().collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A table with the root and one volume.
    fn table(volume: &Path) -> Vec<Mount> {
        let line = |id: u32, parent: u32, point: &str| format!("{id} {parent} 0:{id} / {point} rw - ext4 /dev/x rw\n");
        mounts::parse((line(1, 1, "/") + &line(2, 1, volume.to_str().expect("ascii"))).as_bytes())
    }

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("scratch");
        let real = dir.path().canonicalize().expect("there");
        std::fs::create_dir_all(real.join("volume/in")).expect("made");
        (dir, real)
    }

    #[test]
    fn a_link_on_the_way_to_the_volume_is_followed() {
        let (_dir, root) = scratch();
        symlink("volume", root.join("run")).expect("link");
        open_among(&table(&root.join("volume")), &root.join("run/a/b"), Missing::Make).expect("the operator's link");
        assert!(root.join("volume/a/b").is_dir());
        open_among(&table(&root.join("volume")), &root.join("run"), Missing::Refuse).expect("the volume itself");
    }

    #[test]
    fn a_link_on_the_volume_is_refused_wherever_it_leads() {
        let (_dir, root) = scratch();
        let outside = root.join("outside");
        std::fs::create_dir(&outside).expect("made");
        symlink("in", root.join("volume/inside")).expect("link");
        symlink(&outside, root.join("volume/outside")).expect("link");
        for (name, missing) in [("inside", Missing::Refuse), ("outside", Missing::Make), ("outside/x", Missing::Make)] {
            let path = root.join("volume").join(name);
            open_among(&table(&root.join("volume")), &path, missing).expect_err("a planted link");
            open_among(&[], &path, missing).expect_err("nothing is mounted, as far as we know");
        }
        assert_eq!(outside.read_dir().expect("lists").count(), 0);
    }

    #[test]
    fn a_link_from_one_volume_to_another_is_refused() {
        let (_dir, root) = scratch();
        std::fs::create_dir(root.join("other")).expect("made");
        symlink(root.join("other"), root.join("volume/link")).expect("link");
        let mut mounts = table(&root.join("volume"));
        let second = Mount { id: 3, point: root.join("other"), ..mounts[1].clone() };
        mounts.push(second);
        open_among(&mounts, &root.join("volume/link/x"), Missing::Make).expect_err("a planted link");
        assert!(!root.join("other/x").exists());
        open_among(&mounts, &root.join("other/x"), Missing::Make).expect("the volume by its own name");
    }

    #[test]
    fn a_missing_directory_is_made_only_where_that_is_wanted_and_dots_never_lead_back() {
        let (_dir, root) = scratch();
        let mounts = table(&root.join("volume"));
        open_among(&mounts, &root.join("volume/new"), Missing::Refuse).expect_err("not there");
        open_among(&mounts, &root.join("volume/in/../../x"), Missing::Make).expect_err("leads back");
        assert!(!root.join("volume/new").exists() && !root.join("x").exists());
    }
}
