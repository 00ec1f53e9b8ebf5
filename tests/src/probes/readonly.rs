//! The workspace of class `readonly`: content and metadata.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::getgid;
use protocol::guarantee::Guarantee::WorkspaceReadOnly;
use protocol::policy::ExecutionClass::Readonly;

use super::{Outcome, Probe, Target, call, judge, probe};
use crate::kernel::address;
use crate::scene::WORKSPACE;

/// Newer than the libc crate's tables: `fchmodat2` is of Linux 6.6, `setxattrat` of 6.13.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;

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
