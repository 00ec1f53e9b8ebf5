//! The place that a rule's path means: the one that was written down, or none.
//!
//! Whoever owns a directory on the way to a path can put a symlink there between two runs, and a rule that followed it
//! would open what it leads to. So no component may be one: such a rule is skipped, as one whose path is missing is.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};

/// The kernel's own files. Writing there changes limits, scores and the machine, so no rule for devices or writing opens them.
const KERNEL: [FsType; 4] = [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC];

/// O_PATH: neither a fifo nor a device is really opened, and no permission on the file itself is needed. Not by std,
/// which strips the flag with musl (where O_ACCMODE contains it).
const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// What a path means, and what it is.
pub(super) struct Place {
    pub(super) handle: OwnedFd,
    kind: libc::mode_t,
    identity: Identity,
}

/// Device and number of a file.
type Identity = (libc::dev_t, libc::ino_t);

/// What is at `path`, an absolute one; `None` where nothing is, or a symlink is on the way.
pub(super) fn open(path: &Path) -> Result<Option<Place>, Errno> {
    let how = OpenHow::new().flags(HANDLE).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let opened = match openat2(AT_FDCWD, path, how) {
        // The kernel has it wherever it has Landlock, but a container's filter may be older than the call.
        Err(Errno::ENOSYS | Errno::EPERM) => walk(path),
        other => other,
    };
    match opened {
        Ok(handle) => {
            let stat = fstat(&handle)?;
            Ok(Some(Place { handle, kind: kind(&stat), identity: (stat.st_dev, stat.st_ino) }))
        }
        // Not there, or beneath a directory that these ids cannot enter: nothing to allow, and nothing that the program
        // could open if it were allowed. ELOOP is the symlink.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The same, one component after the other.
fn walk(path: &Path) -> Result<OwnedFd, Errno> {
    let mut at = openat(AT_FDCWD, "/", HANDLE, Mode::empty())?;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::ParentDir => "..".as_ref(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        };
        at = openat(&at, name, HANDLE | OFlag::O_NOFOLLOW, Mode::empty())?;
        // With both flags a symlink is opened itself (open(2)).
        if kind(&fstat(&at)?) == libc::S_IFLNK {
            return Err(Errno::ELOOP);
        }
    }
    Ok(at)
}

/// What is the kernel's own.
pub(super) struct Kernels {
    devices: Option<Identity>,
}

impl Kernels {
    /// As it is now.
    pub(super) fn look() -> Kernels {
        Kernels { devices: stat("/dev").ok().map(|devices| (devices.st_dev, devices.st_ino)) }
    }

    /// Whether `place` is on procfs, sysfs or cgroupfs, or `/dev` itself, where devices are made.
    pub(super) fn own(&self, place: &Place) -> Result<bool, Errno> {
        // Its type does not tell for the last: devtmpfs says that it is a tmpfs, and a container's is one.
        Ok(self.devices == Some(place.identity) || KERNEL.contains(&fstatfs(&place.handle)?.filesystem_type()))
    }
}

impl Place {
    /// With everything beneath it.
    pub(super) fn is_directory(&self) -> bool {
        self.kind == libc::S_IFDIR
    }
}

fn kind(stat: &FileStat) -> libc::mode_t {
    stat.st_mode & libc::S_IFMT
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, write};
    use std::os::unix::fs::symlink;

    use super::*;

    fn same(one: &Place, other: &OwnedFd) -> bool {
        let other = fstat(other).expect("an open place");
        one.identity == (other.st_dev, other.st_ino)
    }

    #[test]
    fn both_ways_open_the_same_and_neither_follows_a_symlink() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("a real path");
        create_dir(root.join("real")).expect("a directory");
        write(root.join("real/file"), "").expect("a file");
        symlink("real", root.join("link")).expect("a symlink");
        symlink("file", root.join("real/last")).expect("a symlink");
        for path in ["real", "real/file", "real/../real/./file"].map(|path| root.join(path)) {
            let opened = open(&path).expect("no error").expect("it is there");
            assert!(same(&opened, &walk(&path).expect("it is there")), "{}", path.display());
        }
        for path in ["link", "link/file", "real/last", "none", "real/file/beneath"].map(|path| root.join(path)) {
            assert!(open(&path).expect("no error").is_none(), "{}", path.display());
            let errno = walk(&path).expect_err("nothing to open");
            assert!(matches!(errno, Errno::ELOOP | Errno::ENOTDIR | Errno::ENOENT), "{}: {errno}", path.display());
        }
    }

    #[test]
    fn the_kernels_own_places_are_known() {
        let own = Kernels::look();
        let kernels = |path: &str| open(Path::new(path)).expect("no error").map(|place| own.own(&place));
        for path in ["/proc", "/proc/sys", "/sys", "/sys/fs/cgroup/cgroup.procs", "/dev"] {
            assert!(matches!(kernels(path), None | Some(Ok(true))), "{path}");
        }
        assert_eq!(
            (kernels("/proc"), kernels("/tmp"), kernels("/")),
            (Some(Ok(true)), Some(Ok(false)), Some(Ok(false)))
        );
    }
}
