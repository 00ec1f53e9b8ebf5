//! Reading, tracing and borrowing from the supervisor, the shim and a process of the Pod.

use std::fs::{self, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::{Pid, getpid};
use protocol::guarantee::Guarantee::SupervisorNotTraced;

use super::{Outcome, Probe, Target, call, effect, judge, probe};
use crate::kernel::{self, address_mut};
use crate::scene::CANARY;

type Whom = fn(&Target) -> Result<Pid, Outcome>;

const SUPERVISOR: Whom = |t| Ok(t.supervisor);
const SHIM: Whom = |t| Ok(t.shim);
const OUTSIDER: Whom = Target::outsider;

/// The same attempt at somebody.
fn at(target: &Target, whom: Whom, attempt: fn(Pid) -> Outcome) -> Outcome {
    whom(target).map_or_else(|untried| untried, attempt)
}

pub(super) const PROBES: &[Probe] = &[
    probe("ptrace-attach-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, attach)),
    probe("ptrace-attach-shim", SupervisorNotTraced, |t| at(t, SHIM, attach)),
    probe("ptrace-attach-outsider", SupervisorNotTraced, |t| at(t, OUTSIDER, attach)),
    probe("ptrace-seize-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, seize)),
    probe("ptrace-seize-shim", SupervisorNotTraced, |t| at(t, SHIM, seize)),
    probe("process-vm-readv-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, vm_read)),
    probe("process-vm-readv-shim", SupervisorNotTraced, |t| at(t, SHIM, vm_read)),
    probe("process-vm-readv-outsider", SupervisorNotTraced, |t| at(t, OUTSIDER, vm_read)),
    probe("process-vm-writev-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, vm_write)),
    probe("proc-mem-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, proc_mem)),
    probe("proc-mem-shim", SupervisorNotTraced, |t| at(t, SHIM, proc_mem)),
    probe("proc-mem-outsider", SupervisorNotTraced, |t| at(t, OUTSIDER, proc_mem)),
    probe("proc-environ-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_read(p, "environ"))),
    probe("proc-environ-shim", SupervisorNotTraced, |t| at(t, SHIM, |p| proc_read(p, "environ"))),
    probe("proc-maps-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_read(p, "maps"))),
    probe("proc-maps-shim", SupervisorNotTraced, |t| at(t, SHIM, |p| proc_read(p, "maps"))),
    probe("proc-auxv-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_read(p, "auxv"))),
    probe("proc-syscall-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_read(p, "syscall"))),
    probe("proc-stack-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_read(p, "stack"))).root(),
    probe("proc-pagemap-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_open(p, "pagemap"))),
    probe("proc-io-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_read(p, "io"))),
    probe("proc-fd-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_links(p, "fd"))),
    probe("proc-fd-shim", SupervisorNotTraced, |t| at(t, SHIM, |p| proc_links(p, "fd"))),
    probe("proc-fd-open-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, proc_fd_canary)),
    probe("proc-map-files-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_links(p, "map_files"))),
    probe("proc-cwd-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_link(p, "cwd"))),
    probe("proc-root-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_link(p, "root"))),
    probe("proc-exe-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, |p| proc_link(p, "exe"))),
    probe("proc-task-mem-supervisor", SupervisorNotTraced, |t| {
        at(t, SUPERVISOR, |p| proc_read(p, &format!("task/{p}/environ")))
    }),
    probe("pidfd-getfd-supervisor", SupervisorNotTraced, |t| at(t, SUPERVISOR, pidfd_getfd)),
    probe("pidfd-getfd-shim", SupervisorNotTraced, |t| at(t, SHIM, pidfd_getfd)),
    probe("kcmp-supervisor", SupervisorNotTraced, |t| {
        at(t, SUPERVISOR, |p| call(libc::SYS_kcmp, &[raw(getpid()), raw(p), 2, 0, 0]))
    }),
    probe("kcmp-shim", SupervisorNotTraced, |t| {
        at(t, SHIM, |p| call(libc::SYS_kcmp, &[raw(getpid()), raw(p), 2, 0, 0]))
    }),
    probe("process-vm-writev-shim", SupervisorNotTraced, |t| at(t, SHIM, vm_write)),
    probe("get-robust-list-supervisor", SupervisorNotTraced, |t| {
        at(t, SUPERVISOR, |p| {
            let (mut head, mut length) = (0u64, 0u64);
            call(libc::SYS_get_robust_list, &[raw(p), address_mut(&mut head), address_mut(&mut length)])
        })
    }),
    probe("process-madvise-shim", SupervisorNotTraced, |t| {
        at(t, SHIM, |p| {
            let pidfd = match kernel::call(libc::SYS_pidfd_open, &[raw(p), 0]) {
                Ok(fd) => fd as u64,
                Err(error) => return Outcome::Denied(format!("pidfd_open: {error}")),
            };
            // no ranges: the kernel checks the right to the process first (process_madvise(2))
            call(libc::SYS_process_madvise, &[pidfd, 0, 0, libc::MADV_COLD as u64, 0])
        })
    })
    .root(),
];

fn raw(pid: Pid) -> u64 {
    pid.as_raw() as u64
}

fn attach(pid: Pid) -> Outcome {
    let outcome = call(libc::SYS_ptrace, &[u64::from(libc::PTRACE_ATTACH), raw(pid), 0, 0]);
    if matches!(outcome, Outcome::Escaped(_)) {
        let _ = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::__WALL));
        let _ = kernel::call(libc::SYS_ptrace, &[u64::from(libc::PTRACE_DETACH), raw(pid), 0, 0]);
    }
    outcome
}

fn seize(pid: Pid) -> Outcome {
    call(libc::SYS_ptrace, &[u64::from(libc::PTRACE_SEIZE), raw(pid), 0, 0])
}

/// An address that is mapped in every process started from the same image: our own code's address is only a guess
/// under address randomisation, so `EFAULT` means that the kernel let us look.
fn looked(result: nix::Result<usize>) -> Outcome {
    super::reaches(result, &[Errno::EFAULT, Errno::EIO])
}

fn vm_read(pid: Pid) -> Outcome {
    let mut buffer = [0u8; 8];
    let base = attach as *const () as usize;
    looked(process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer)], &[RemoteIoVec { base, len: 8 }]))
}

fn vm_write(pid: Pid) -> Outcome {
    // at address 0x1000, which nothing maps: a real write would end the control's stand-in
    looked(process_vm_writev(pid, &[IoSlice::new(b"12345678")], &[RemoteIoVec { base: 0x1000, len: 8 }]))
}

fn proc_mem(pid: Pid) -> Outcome {
    match OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")) {
        Ok(file) => match file.read_at(&mut [0u8; 8], 0x1000) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Outcome::Escaped("opened it".into()),
            other => judge(other),
        },
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

fn proc_open(pid: Pid, name: &str) -> Outcome {
    judge(fs::File::open(format!("/proc/{pid}/{name}")))
}

/// Some of these open and read as empty where the right is missing, so bytes are the escape.
fn proc_read(pid: Pid, name: &str) -> Outcome {
    match fs::read(format!("/proc/{pid}/{name}")) {
        Ok(bytes) => effect(!bytes.is_empty(), "a byte read"),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

fn proc_link(pid: Pid, name: &str) -> Outcome {
    judge(fs::read_link(format!("/proc/{pid}/{name}")))
}

fn proc_links(pid: Pid, name: &str) -> Outcome {
    match fs::read_dir(format!("/proc/{pid}/{name}")) {
        Ok(entries) => effect(entries.flatten().any(|e| fs::read_link(e.path()).is_ok()), "a link read"),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

fn proc_fd_canary(pid: Pid) -> Outcome {
    for fd in 3..64 {
        if fs::read(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|bytes| bytes.starts_with(CANARY.as_bytes())) {
            return Outcome::Escaped(format!("the token through descriptor {fd}"));
        }
    }
    Outcome::Denied("no descriptor led to the token".into())
}

fn pidfd_getfd(pid: Pid) -> Outcome {
    let pidfd = match kernel::call(libc::SYS_pidfd_open, &[raw(pid), 0]) {
        Ok(fd) => fd as u64,
        Err(error) => return Outcome::Denied(format!("pidfd_open: {error}")),
    };
    call(libc::SYS_pidfd_getfd, &[pidfd, 0, 0])
}
