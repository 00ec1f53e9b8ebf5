//! Ids, capabilities and namespaces.

use std::process::{Command, ExitCode};

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chroot, geteuid, setgroups, setresgid, setresuid};
use protocol::guarantee::Guarantee::{NoPrivileges, SyscallsFiltered};

use crate::kernel::x86;

use super::{Outcome, Probe, call, effect, judge, probe, reaches};
use crate::kernel::{self, address};
use crate::scene;
use nix::errno::Errno;

pub(super) const PROBES: &[Probe] = &[
    probe("setuid-root", NoPrivileges, |_| {
        let root = Uid::from_raw(0);
        judge(setresuid(root, root, root))
    })
    .root(),
    probe("setgid-root", NoPrivileges, |_| {
        let root = Gid::from_raw(0);
        judge(setresgid(root, root, root))
    })
    .root(),
    probe("setgroups-root", NoPrivileges, |_| judge(setgroups(&[Gid::from_raw(0)]))).root(),
    probe("setfsuid-root", NoPrivileges, |_| {
        // setfsuid(2) never fails; the second call says what the first one did
        let _ = kernel::call(libc::SYS_setfsuid, &[0]);
        effect(kernel::call(libc::SYS_setfsuid, &[u64::from(u32::MAX)]) == Ok(0), "the file system uid of root")
    })
    .root(),
    probe("capset-effective", NoPrivileges, |_| judge(caps::raise(None, CapSet::Effective, Capability::CAP_SETUID)))
        .root(),
    probe("capset-inheritable", NoPrivileges, |_| {
        judge(caps::raise(None, CapSet::Inheritable, Capability::CAP_NET_RAW))
    })
    .root(),
    probe("ambient-raise", NoPrivileges, |_| {
        let _ = caps::raise(None, CapSet::Inheritable, Capability::CAP_KILL);
        judge(caps::raise(None, CapSet::Ambient, Capability::CAP_KILL))
    })
    .root(),
    probe("bounding-set-not-empty", NoPrivileges, |_| {
        let held = caps::read(None, CapSet::Bounding).map(|set| set.len()).unwrap_or(0);
        effect(held > 0, "a capability in the bounding set")
    }),
    probe("securebits", NoPrivileges, |_| call(libc::SYS_prctl, &[libc::PR_SET_SECUREBITS as u64, 0])).root(),
    probe("setuid-program", NoPrivileges, |_| match Command::new(scene::SETUID_PROBE).arg("setuid-child").status() {
        Ok(status) => effect(status.code() == Some(0), "root by a set-user-id program"),
        Err(error) => Outcome::Denied(error.to_string()),
    }),
    probe("file-capabilities", NoPrivileges, |_| {
        match Command::new(scene::CAPABLE_PROBE).arg("capable-child").status() {
            Ok(status) => effect(status.code() == Some(0), "a capability of a program's file"),
            Err(error) => Outcome::Denied(error.to_string()),
        }
    }),
    probe("chroot", SyscallsFiltered, |_| judge(chroot("/tmp"))).root(),
    probe("pivot-root", SyscallsFiltered, |_| {
        reaches(nix::unistd::pivot_root("/nowhere", "/nowhere"), &[Errno::ENOENT])
    })
    .root(),
    probe("sethostname", SyscallsFiltered, |_| call(libc::SYS_sethostname, &[address("escaped"), 7])).root(),
    probe("setdomainname", SyscallsFiltered, |_| call(libc::SYS_setdomainname, &[address("escaped"), 7])).root(),
    probe("unshare-user", SyscallsFiltered, |_| judge(unshare(CloneFlags::CLONE_NEWUSER))),
    probe("unshare-user-and-mount", SyscallsFiltered, |_| {
        judge(unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS))
    }),
    probe("unshare-mount", SyscallsFiltered, |_| judge(unshare(CloneFlags::CLONE_NEWNS))).root(),
    probe("unshare-net", SyscallsFiltered, |_| judge(unshare(CloneFlags::CLONE_NEWNET))).root(),
    probe("unshare-pid", SyscallsFiltered, |_| judge(unshare(CloneFlags::CLONE_NEWPID))).root(),
    probe("unshare-ipc", SyscallsFiltered, |_| judge(unshare(CloneFlags::CLONE_NEWIPC))).root(),
    probe("unshare-uts", SyscallsFiltered, |_| judge(unshare(CloneFlags::CLONE_NEWUTS))).root(),
    probe("unshare-cgroup", SyscallsFiltered, |_| judge(unshare(CloneFlags::CLONE_NEWCGROUP))).root(),
    probe("unshare-time", SyscallsFiltered, |_| call(libc::SYS_unshare, &[NEWTIME])).root(),
    probe("setns", SyscallsFiltered, |_| match std::fs::File::open("/proc/self/ns/uts") {
        Ok(file) => judge(nix::sched::setns(file, CloneFlags::empty())),
        Err(error) => Outcome::Denied(error.to_string()),
    })
    .root(),
    probe("clone-user-namespace", SyscallsFiltered, |_| {
        judge(kernel::clone_and_exit(libc::CLONE_NEWUSER as u64 | libc::SIGCHLD as u64))
    }),
    probe("clone-mount-namespace", SyscallsFiltered, |_| clone(libc::CLONE_NEWNS)).root(),
    probe("clone-net-namespace", SyscallsFiltered, |_| clone(libc::CLONE_NEWNET)).root(),
    probe("clone-pid-namespace", SyscallsFiltered, |_| clone(libc::CLONE_NEWPID)).root(),
    probe("clone-ipc-namespace", SyscallsFiltered, |_| clone(libc::CLONE_NEWIPC)).root(),
    probe("clone-uts-namespace", SyscallsFiltered, |_| clone(libc::CLONE_NEWUTS)).root(),
    probe("clone-cgroup-namespace", SyscallsFiltered, |_| clone(libc::CLONE_NEWCGROUP)).root(),
    probe("clone-user-namespace-high-bits", SyscallsFiltered, |_| {
        judge(kernel::clone_and_exit(1 << 32 | libc::CLONE_NEWUSER as u64 | libc::SIGCHLD as u64))
    }),
    probe("clone3-user-namespace", SyscallsFiltered, |_| judge(kernel::clone3_and_exit(libc::CLONE_NEWUSER as u64))),
    probe("ioperm", SyscallsFiltered, |_| call(x86::IOPERM, &[0x80, 1, 1])).nobody("CONFIG_X86_IOPL_IOPERM is off"),
    probe("iopl", SyscallsFiltered, |_| call(x86::IOPL, &[3])).nobody("CONFIG_X86_IOPL_IOPERM is off"),
];

/// The libc crate has no name for it (unshare(2)).
const NEWTIME: u64 = 0x80;

fn clone(namespace: i32) -> Outcome {
    judge(kernel::clone_and_exit(namespace as u64 | libc::SIGCHLD as u64))
}

/// What the program with file capabilities does: say by its exit code whether it has them.
pub fn capable_child() -> ExitCode {
    ExitCode::from(if caps::has_cap(None, CapSet::Effective, Capability::CAP_KILL).unwrap_or(false) { 0 } else { 1 })
}

/// What the set-user-id program does: say by its exit code whether it is root.
pub fn setuid_child() -> ExitCode {
    ExitCode::from(if geteuid().is_root() { 0 } else { 1 })
}
