//! Signals at the supervisor, the shim and a process of the Pod.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, write};
use protocol::guarantee::Guarantee::SupervisorNotSignalled;
use protocol::policy::ExecutionClass;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::outsider::dies;
use super::{Outcome, Probe, Target, call, effect, judge, probe};
use crate::kernel::{self, address};

/// A signal like any other for whoever may send it, and nobody ends by it: a probe lives to say that it was sent.
const HARMLESS: u64 = libc::SIGURG as u64;
/// fcntl(2) on every architecture here; the libc crate has no name for these.
const F_SETSIG: u64 = 10;
const F_SETOWN_EX: u64 = 15;
/// ioctl(2) of sockets; the same.
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;

type Whom = fn(&Target) -> Result<Pid, Outcome>;

const SUPERVISOR: Whom = |t| Ok(t.supervisor);
const SHIM: Whom = |t| Ok(t.shim);
const OUTSIDER: Whom = Target::outsider;

fn send(target: &Target, whom: Whom, signal: Option<Signal>) -> Outcome {
    whom(target).map_or_else(
        |untried| untried,
        |pid| {
            let sent = kill(pid, signal);
            if sent.is_ok() && signal == Some(Signal::SIGSTOP) {
                // nobody else would wake the control's stand-in
                let _ = kill(pid, Signal::SIGCONT);
            }
            judge(sent)
        },
    )
}

pub(super) const PROBES: &[Probe] = &[
    probe("kill-0-supervisor", SupervisorNotSignalled, |t| send(t, SUPERVISOR, None)),
    probe("kill-term-supervisor", SupervisorNotSignalled, |t| send(t, SUPERVISOR, Some(Signal::SIGTERM))),
    probe("kill-stop-supervisor", SupervisorNotSignalled, |t| send(t, SUPERVISOR, Some(Signal::SIGSTOP))),
    probe("kill-kill-supervisor", SupervisorNotSignalled, |t| send(t, SUPERVISOR, Some(Signal::SIGKILL))),
    probe("kill-cont-supervisor", SupervisorNotSignalled, |t| send(t, SUPERVISOR, Some(Signal::SIGCONT))),
    probe("kill-0-shim", SupervisorNotSignalled, |t| send(t, SHIM, None)),
    probe("kill-term-shim", SupervisorNotSignalled, |t| send(t, SHIM, Some(Signal::SIGTERM))),
    probe("kill-stop-shim", SupervisorNotSignalled, |t| send(t, SHIM, Some(Signal::SIGSTOP))),
    probe("kill-kill-shim", SupervisorNotSignalled, |t| send(t, SHIM, Some(Signal::SIGKILL))),
    probe("kill-term-outsider", SupervisorNotSignalled, |t| send(t, OUTSIDER, Some(Signal::SIGTERM))),
    probe("kill-kill-outsider", SupervisorNotSignalled, |t| send(t, OUTSIDER, Some(Signal::SIGKILL))),
    probe("kill-everybody", SupervisorNotSignalled, |t| {
        // its answer is 0 even where every single target was refused, so the effect counts
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        effect(dies(t.shim) || t.outsider.is_some_and(dies), "the end of a process outside the tree")
    }),
    probe("kill-group-of-shim", SupervisorNotSignalled, |t| match getpgid(Some(t.shim)) {
        Ok(group) if group != nix::unistd::getpgrp() => judge(killpg(group, None)),
        // in the agent's own group the group's signals would reach it
        Ok(_) => judge(kill(t.shim, None)),
        Err(error) => Outcome::Denied(error.to_string()),
    }),
    probe("tgkill-supervisor", SupervisorNotSignalled, |t| {
        call(libc::SYS_tgkill, &[raw(t.supervisor), raw(t.supervisor), HARMLESS])
    }),
    probe("tkill-supervisor", SupervisorNotSignalled, |t| call(libc::SYS_tkill, &[raw(t.supervisor), HARMLESS])),
    probe("tkill-shim", SupervisorNotSignalled, |t| call(libc::SYS_tkill, &[raw(t.shim), 9])),
    probe("tkill-outsider", SupervisorNotSignalled, |t| at_outsider(t, |pid| call(libc::SYS_tkill, &[raw(pid), 9]))),
    probe("tgkill-shim", SupervisorNotSignalled, |t| call(libc::SYS_tgkill, &[raw(t.shim), raw(t.shim), 9])),
    probe("tgkill-outsider", SupervisorNotSignalled, |t| {
        at_outsider(t, |pid| call(libc::SYS_tgkill, &[raw(pid), raw(pid), 9]))
    }),
    probe("rt-sigqueueinfo-supervisor", SupervisorNotSignalled, |t| queued(t.supervisor)),
    probe("rt-sigqueueinfo-shim", SupervisorNotSignalled, |t| queued(t.shim)),
    probe("rt-sigqueueinfo-outsider", SupervisorNotSignalled, |t| at_outsider(t, queued)),
    probe("rt-tgsigqueueinfo-supervisor", SupervisorNotSignalled, |t| queued_to_thread(t.supervisor)),
    probe("rt-tgsigqueueinfo-shim", SupervisorNotSignalled, |t| queued_to_thread(t.shim)),
    probe("rt-tgsigqueueinfo-outsider", SupervisorNotSignalled, |t| at_outsider(t, queued_to_thread)),
    probe("pidfd-send-signal-supervisor", SupervisorNotSignalled, |t| pidfd_signal(t.supervisor)),
    probe("pidfd-send-signal-shim", SupervisorNotSignalled, |t| pidfd_signal(t.shim)),
    probe("pidfd-send-signal-outsider", SupervisorNotSignalled, |t| at_outsider(t, pidfd_signal)),
    probe("proc-directory-send-signal-supervisor", SupervisorNotSignalled, |t| {
        // an open /proc/PID is a pidfd too (pidfd_send_signal(2))
        match std::fs::File::open(format!("/proc/{}", t.supervisor)) {
            Ok(directory) => call(libc::SYS_pidfd_send_signal, &[directory.as_raw_fd() as u64, HARMLESS, 0, 0]),
            Err(error) => Outcome::Denied(error.to_string()),
        }
    }),
    probe("sigio-kill-shim", SupervisorNotSignalled, |t| sigio(t.shim, t.shim)),
    probe("sigio-kill-group-of-shim", SupervisorNotSignalled, |t| match getpgid(Some(t.shim)) {
        Ok(group) if group != nix::unistd::getpgrp() => sigio(Pid::from_raw(-group.as_raw()), t.shim),
        Ok(_) => sigio(t.shim, t.shim),
        Err(error) => Outcome::Denied(error.to_string()),
    }),
    probe("sigio-kill-outsider", SupervisorNotSignalled, |t| t.outsider().map_or_else(|u| u, |p| sigio(p, p))),
    probe("sigio-outsider", SupervisorNotSignalled, |t| at_outsider(t, |pid| owned(pid, by_fcntl))),
    probe("sigio-outsider-by-owner-ex", SupervisorNotSignalled, |t| at_outsider(t, |pid| owned(pid, by_owner_ex))),
    probe("sigio-outsider-by-fiosetown", SupervisorNotSignalled, |t| at_outsider(t, |pid| owned(pid, by_fiosetown))),
    probe("sigio-outsider-by-siocspgrp", SupervisorNotSignalled, |t| at_outsider(t, |pid| owned(pid, by_siocspgrp))),
    probe("readonly-sigio-outsider-by-fiosetown", SupervisorNotSignalled, |t| {
        at_outsider(t, |pid| owned(pid, by_fiosetown))
    })
    .class(ExecutionClass::Readonly),
    probe("readonly-sigio-outsider-by-siocspgrp", SupervisorNotSignalled, |t| {
        at_outsider(t, |pid| owned(pid, by_siocspgrp))
    })
    .class(ExecutionClass::Readonly),
    probe("kill-supervisor-high-bits", SupervisorNotSignalled, |t| {
        call(libc::SYS_kill, &[(1 << 32) | raw(t.supervisor), HARMLESS])
    }),
];

fn raw(pid: Pid) -> u64 {
    pid.as_raw() as u64
}

/// `siginfo_t` with `si_code` SI_QUEUE, which rt_sigqueueinfo(2) demands.
fn queued_info() -> [i32; 32] {
    let mut info = [0i32; 32];
    info[0] = libc::SIGURG;
    info[2] = libc::SI_QUEUE;
    info
}

fn queued(pid: Pid) -> Outcome {
    let info = queued_info();
    call(libc::SYS_rt_sigqueueinfo, &[raw(pid), HARMLESS, address(&info)])
}

fn queued_to_thread(pid: Pid) -> Outcome {
    let info = queued_info();
    call(libc::SYS_rt_tgsigqueueinfo, &[raw(pid), raw(pid), HARMLESS, address(&info)])
}

fn at_outsider(target: &Target, what: impl FnOnce(Pid) -> Outcome) -> Outcome {
    target.outsider().map_or_else(|untried| untried, what)
}

fn pidfd_signal(pid: Pid) -> Outcome {
    match kernel::call(libc::SYS_pidfd_open, &[raw(pid), 0]) {
        Ok(pidfd) => call(libc::SYS_pidfd_send_signal, &[pidfd as u64, 0, 0, 0]),
        Err(error) => Outcome::Denied(format!("pidfd_open: {error}")),
    }
}

/// Let the kernel send KILL to an owner, by which `pid` ends.
fn sigio(owner: Pid, pid: Pid) -> Outcome {
    owned(pid, |fd, _| {
        by_fcntl(fd, owner)?;
        kernel::call(libc::SYS_fcntl, &[fd, F_SETSIG, libc::SIGKILL as u64])
    })
}

/// A socket that becomes readable signals its owner (F_SETOWN in fcntl(2)): by SIGIO, which ends who does not expect it, if nothing else is set.
fn owned(pid: Pid, own: impl FnOnce(u64, Pid) -> nix::Result<i64>) -> Outcome {
    let attempt = || -> nix::Result<()> {
        let (ours, other) = UnixStream::pair().map_err(|_| Errno::last())?;
        own(ours.as_raw_fd() as u64, pid)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_ASYNC))?;
        write(&other, b"x")?;
        Ok(())
    };
    match attempt() {
        Ok(()) => effect(dies(pid), "an end by the owner's signal"),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}

fn by_fcntl(fd: u64, pid: Pid) -> nix::Result<i64> {
    kernel::call(libc::SYS_fcntl, &[fd, libc::F_SETOWN as u64, raw(pid)])
}

/// struct f_owner_ex: a kind (F_OWNER_PID), and who.
fn by_owner_ex(fd: u64, pid: Pid) -> nix::Result<i64> {
    let owner = [1, pid.as_raw()];
    kernel::call(libc::SYS_fcntl, &[fd, F_SETOWN_EX, address(&owner)])
}

fn by_fiosetown(fd: u64, pid: Pid) -> nix::Result<i64> {
    by_ioctl(fd, FIOSETOWN, pid)
}

fn by_siocspgrp(fd: u64, pid: Pid) -> nix::Result<i64> {
    by_ioctl(fd, SIOCSPGRP, pid)
}

fn by_ioctl(fd: u64, request: u64, pid: Pid) -> nix::Result<i64> {
    let owner = pid.as_raw();
    kernel::call(libc::SYS_ioctl, &[fd, request, address(&owner)])
}
