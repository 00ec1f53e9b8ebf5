//! Calls that are refused for whatever they ask: that the kernel looks at their arguments is the escape, since then
//! nothing stood before it. The arguments are wrong on purpose, so that nothing happens where it looks.

use nix::errno::Errno;
use protocol::guarantee::Guarantee::SyscallsFiltered;

use super::{Outcome, Probe, call, probe, reaches};
use crate::kernel::{self, address, x86};

/// Newer than the libc crate's tables, and the same on every architecture (linux/unistd.h).
const QUOTACTL_FD: i64 = 443;
const MEMFD_SECRET: i64 = 447;
const PROCESS_MRELEASE: i64 = 448;
const LSM_SET_SELF_ATTR: i64 = 460;
const OPEN_TREE_ATTR: i64 = 467;

const NO_DESCRIPTOR: u64 = u32::MAX as u64;
const HERE: u64 = libc::AT_FDCWD as u64;
const NOT_BUILT: &str = "the kernel is built without it";

pub(super) const PROBES: &[Probe] = &[
    probe("clock-settime", SyscallsFiltered, |_| {
        // no time has that many nanoseconds, which the kernel sees before it asks for the privilege
        let time = [0u64, u64::MAX];
        reached(libc::SYS_clock_settime, &[0, address(&time)], &[Errno::EINVAL])
    }),
    probe("fanotify-mark", SyscallsFiltered, |_| {
        reached(libc::SYS_fanotify_mark, &[NO_DESCRIPTOR, 1, 1, HERE, 0], &[Errno::EBADF])
    }),
    probe("fsconfig", SyscallsFiltered, |_| {
        reached(libc::SYS_fsconfig, &[NO_DESCRIPTOR], &[Errno::EINVAL, Errno::EBADF])
    }),
    probe("fsmount", SyscallsFiltered, |_| reached(libc::SYS_fsmount, &[NO_DESCRIPTOR], &[Errno::EBADF])).root(),
    probe("fspick", SyscallsFiltered, |_| {
        reached(libc::SYS_fspick, &[HERE, address(c"/nowhere"), 0], &[Errno::ENOENT])
    })
    .root(),
    probe("open-tree-attr", SyscallsFiltered, |_| {
        reached(OPEN_TREE_ATTR, &[HERE, address(c"/nowhere"), 0, 0, 0], &[Errno::ENOENT])
    }),
    probe("quotactl-fd", SyscallsFiltered, |_| reached(QUOTACTL_FD, &[NO_DESCRIPTOR, 0, 0, 0], &[Errno::EBADF])),
    probe("memfd-secret", SyscallsFiltered, |_| call(MEMFD_SECRET, &[0])),
    probe("process-mrelease", SyscallsFiltered, |_| reached(PROCESS_MRELEASE, &[NO_DESCRIPTOR, 0], &[Errno::EBADF])),
    probe("lsm-set-self-attr", SyscallsFiltered, |_| {
        let context = [0u64; 8];
        let refused = [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::E2BIG];
        reached(LSM_SET_SELF_ATTR, &[100, address(&context), 64, 0], &refused)
    }),
    probe("open-by-handle-guessed", SyscallsFiltered, |_| {
        // a handle that names no file; those who guess try them all
        let handle = [8u32, 1, 1, 1];
        let root = std::fs::File::open("/tmp").map_or(HERE, |file| std::os::fd::IntoRawFd::into_raw_fd(file) as u64);
        reached(libc::SYS_open_by_handle_at, &[root, address(&handle), 0], &[Errno::ESTALE, Errno::EINVAL])
    })
    .root(),
    probe("sysfs", SyscallsFiltered, |_| call(x86::SYSFS, &[3])).only_x86(),
    probe("finit-module", SyscallsFiltered, |_| call(libc::SYS_finit_module, &[NO_DESCRIPTOR])).nobody(NOT_BUILT),
    probe("delete-module", SyscallsFiltered, |_| call(libc::SYS_delete_module, &[0])).nobody(NOT_BUILT),
    probe("kexec-file-load", SyscallsFiltered, |_| call(libc::SYS_kexec_file_load, &[NO_DESCRIPTOR])).nobody(NOT_BUILT),
    probe("fast-open-sendmsg", SyscallsFiltered, |_| {
        let header = [0u64; 7];
        with_socket(|fd| reached(libc::SYS_sendmsg, &[fd, address(&header), FAST_OPEN], &UNCONNECTED))
    }),
    probe("fast-open-sendmmsg", SyscallsFiltered, |_| {
        let headers = [0u64; 8];
        with_socket(|fd| reached(libc::SYS_sendmmsg, &[fd, address(&headers), 1, FAST_OPEN], &UNCONNECTED))
    }),
    probe("socketpair-netlink", SyscallsFiltered, |_| pair(libc::AF_NETLINK, libc::SOCK_RAW)),
    probe("socketpair-inet-high-bits", SyscallsFiltered, |_| pair(libc::AF_INET, libc::SOCK_STREAM)),
];

const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;
/// What a connecting send without an address says.
const UNCONNECTED: [Errno; 3] = [Errno::EINVAL, Errno::EPIPE, Errno::ENOTCONN];

fn reached(number: i64, arguments: &[u64], errors: &[Errno]) -> Outcome {
    reaches(kernel::call(number, arguments), errors)
}

fn with_socket(attempt: impl Fn(u64) -> Outcome) -> Outcome {
    match kernel::call(libc::SYS_socket, &[libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0]) {
        Ok(fd) => attempt(fd as u64),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

/// Both sockets are made before the kernel sees that the family has no pairs.
fn pair(family: i32, kind: i32) -> Outcome {
    let mut both = [0i32; 2];
    let family = 1 << 32 | family as u64;
    let out = kernel::address_mut(&mut both);
    reached(libc::SYS_socketpair, &[family, kind as u64, 0, out], &[Errno::EOPNOTSUPP])
}
