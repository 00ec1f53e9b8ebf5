//! The workspace of class `readonly`: content and metadata.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use nix::errno::Errno;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::getgid;
use protocol::guarantee::Guarantee::{SyscallsFiltered, WorkspaceReadOnly};
use protocol::policy::ExecutionClass::Readonly;

use super::{Outcome, Probe, Target, call, judge, probe, reaches};
use crate::kernel::{self, address, x86};
use crate::scene::WORKSPACE;

/// Newer than the libc crate's tables: `fchmodat2` is of Linux 6.6, `setxattrat` of 6.13.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;
const HERE: u64 = libc::AT_FDCWD as u64;
/// ioctl_fs(2); the kernel reads 32 bits of them.
const SETFLAGS: u64 = 0x4008_6602;
const FSSETXATTR: u64 = 0x401c_5820;
const SETVERSION: u64 = 0x4008_7602;

pub(super) const PROBES: &[Probe] = &[
    workspace("readonly-create", |_| judge(File::create(path("new")))),
    workspace("readonly-make-directory", |_| judge(fs::create_dir(path("directory")))),
    workspace("readonly-symlink", |_| judge(symlink("/etc", path("link")))),
    workspace("readonly-append", |_| judge(OpenOptions::new().append(true).open(path("file")))),
    workspace("readonly-truncate", |_| judge(nix::unistd::truncate(path("file").as_str(), 0))),
    workspace("readonly-delete", |_| judge(fs::remove_file(path("file")))),
    workspace("readonly-rename", |_| judge(fs::rename(path("file"), path("other")))),
    workspace("readonly-chmod", |_| judge(fs::set_permissions(path("file"), Permissions::from_mode(0o777)))),
    workspace("readonly-chmod-directory", |_| judge(fs::set_permissions(WORKSPACE, Permissions::from_mode(0o777)))),
    workspace("readonly-fchmodat2", |_| {
        let path = c(&path("file"));
        call(FCHMODAT2, &[libc::AT_FDCWD as u64, address(&*path), 0o600, 0])
    }),
    workspace("readonly-chown", |_| judge(chown(path("file"), None, Some(getgid().as_raw())))),
    workspace("readonly-utimens", |_| {
        let now = TimeSpec::new(1, 0);
        judge(utimensat(nix::fcntl::AT_FDCWD, path("file").as_str(), &now, &now, UtimensatFlags::FollowSymlink))
    }),
    workspace("readonly-setxattr", |_| {
        let (path, name) = (c(&path("file")), c("user.planted"));
        call(libc::SYS_setxattr, &[address(&*path), address(&*name), address("x"), 1, 0])
    }),
    workspace("readonly-fsetxattr", |_| match File::open(path("file")) {
        Ok(file) => {
            let name = c("user.planted");
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file) as u64;
            call(libc::SYS_fsetxattr, &[fd, address(&*name), address("x"), 1, 0])
        }
        Err(error) => Outcome::Denied(error.to_string()),
    }),
    workspace("readonly-setxattrat", |_| {
        let (path, name) = (c(&path("file")), c("user.planted"));
        let value = [address("x"), 1u64];
        call(SETXATTRAT, &[libc::AT_FDCWD as u64, address(&*path), 0, address(&*name), address(&value), 16])
    }),
    workspace("readonly-old-chmod", |_| at_path(|path| call(x86::CHMOD, &[path, 0o600]))).only_x86(),
    workspace("readonly-fchmod", |_| on_file(|fd| call(libc::SYS_fchmod, &[fd, 0o600]))),
    workspace("readonly-fchmodat", |_| at_path(|path| call(libc::SYS_fchmodat, &[HERE, path, 0o600]))),
    workspace("readonly-old-chown", |_| at_path(|path| call(x86::CHOWN, &[path, NOBODY, own_group()]))).only_x86(),
    workspace("readonly-lchown", |_| at_path(|path| call(x86::LCHOWN, &[path, NOBODY, own_group()]))).only_x86(),
    workspace("readonly-fchown", |_| on_file(|fd| call(libc::SYS_fchown, &[fd, NOBODY, own_group()]))),
    workspace("readonly-fchownat", |_| at_path(|path| call(libc::SYS_fchownat, &[HERE, path, NOBODY, own_group(), 0]))),
    workspace("readonly-utime", |_| at_path(|path| call(x86::UTIME, &[path, 0]))).only_x86(),
    workspace("readonly-utimes", |_| at_path(|path| call(x86::UTIMES, &[path, 0]))).only_x86(),
    workspace("readonly-futimesat", |_| at_path(|path| call(x86::FUTIMESAT, &[HERE, path, 0]))).only_x86(),
    workspace("readonly-lsetxattr", |_| {
        at_path(|path| call(libc::SYS_lsetxattr, &[path, address(c"user.planted"), address("x"), 1, 0]))
    }),
    workspace("readonly-removexattr", |_| {
        at_path(|path| removes(libc::SYS_removexattr, &[path, address(c"user.none")]))
    }),
    workspace("readonly-lremovexattr", |_| {
        at_path(|path| removes(libc::SYS_lremovexattr, &[path, address(c"user.none")]))
    }),
    workspace("readonly-fremovexattr", |_| on_file(|fd| removes(libc::SYS_fremovexattr, &[fd, address(c"user.none")]))),
    workspace("readonly-removexattrat", |_| {
        at_path(|path| removes(REMOVEXATTRAT, &[HERE, path, 0, address(c"user.none")]))
    }),
    workspace("readonly-file-setattr", |_| {
        let attributes = [0u64; 4];
        at_path(|path| reaches(kernel::call(FILE_SETATTR, &[HERE, path, address(&attributes), 24, 0]), &LOOKED))
    }),
    workspace("readonly-inode-flags", |_| inode(SETFLAGS)),
    workspace("readonly-inode-flags-high-bits", |_| inode(1 << 32 | SETFLAGS)),
    workspace("readonly-inode-attributes", |_| inode(FSSETXATTR)),
    workspace("readonly-inode-version", |_| inode(SETVERSION)),
    probe("readonly-process-vm-readv", SyscallsFiltered, |_| {
        // nothing to read: only the right to do it is judged
        call(libc::SYS_process_vm_readv, &[u64::from(std::process::id()), 0, 0, 0, 0, 0])
    })
    .class(Readonly),
];

const fn workspace(name: &'static str, run: fn(&Target) -> Outcome) -> Probe {
    probe(name, WorkspaceReadOnly, run).class(Readonly)
}

/// A path in the workspace; the stage made `file`.
fn path(name: &str) -> String {
    format!("{WORKSPACE}/{name}")
}

fn c(text: &str) -> Box<CStr> {
    CString::new(text).unwrap_or_default().into_boxed_c_str()
}

/// As an id: stays as it is (chown(2)).
const NOBODY: u64 = u32::MAX as u64;
/// The kernel has looked at a file that cannot have what was asked for.
const LOOKED: [Errno; 3] = [Errno::ENOTTY, Errno::EOPNOTSUPP, Errno::EINVAL];

fn own_group() -> u64 {
    getgid().as_raw().into()
}

fn at_path(attempt: impl Fn(u64) -> Outcome) -> Outcome {
    let path = c(&path("file"));
    attempt(address(&*path))
}

/// Open for reading, which is enough for these.
fn on_file(attempt: impl Fn(u64) -> Outcome) -> Outcome {
    match File::open(path("file")) {
        Ok(file) => attempt(file.as_raw_fd() as u64),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

/// An attribute that is not there: the kernel has looked for it.
fn removes(number: i64, arguments: &[u64]) -> Outcome {
    reaches(kernel::call(number, arguments), &[Errno::ENODATA])
}

fn inode(request: u64) -> Outcome {
    let attributes = [0u64; 4];
    on_file(|fd| reaches(kernel::call(libc::SYS_ioctl, &[fd, request, address(&attributes)]), &LOOKED))
}
