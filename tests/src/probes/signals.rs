//! Signals at the supervisor, the shim and a process of the Pod.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, write};
use protocol::guarantee::Guarantee::SupervisorNotSignalled;
use std::os::fd::AsRawFd;

use super::outsider::dies;
use super::{Outcome, Probe, Target, call, effect, judge, probe};
use crate::kernel::{self, address};

/// fcntl(2) on every architecture here; the libc crate has no name for it.
const F_SETSIG: u64 = 10;

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
        call(libc::SYS_tgkill, &[raw(t.supervisor), raw(t.supervisor), libc::SIGTERM as u64])
    }),
    probe("tkill-supervisor", SupervisorNotSignalled, |t| {
        call(libc::SYS_tkill, &[raw(t.supervisor), libc::SIGTERM as u64])
    }),
    probe("tgkill-shim", SupervisorNotSignalled, |t| call(libc::SYS_tgkill, &[raw(t.shim), raw(t.shim), 9])),
    probe("rt-sigqueueinfo-supervisor", SupervisorNotSignalled, |t| {
        let info = queued_info();
        call(libc::SYS_rt_sigqueueinfo, &[raw(t.supervisor), libc::SIGTERM as u64, address(&info)])
    }),
    probe("rt-tgsigqueueinfo-supervisor", SupervisorNotSignalled, |t| {
        let (pid, info) = (raw(t.supervisor), queued_info());
        call(libc::SYS_rt_tgsigqueueinfo, &[pid, pid, libc::SIGTERM as u64, address(&info)])
    }),
    probe("pidfd-send-signal-supervisor", SupervisorNotSignalled, |t| pidfd_signal(t.supervisor)),
    probe("pidfd-send-signal-shim", SupervisorNotSignalled, |t| pidfd_signal(t.shim)),
    probe("proc-directory-send-signal-supervisor", SupervisorNotSignalled, |t| {
        // an open /proc/PID is a pidfd too (pidfd_send_signal(2))
        match std::fs::File::open(format!("/proc/{}", t.supervisor)) {
            Ok(directory) => {
                call(libc::SYS_pidfd_send_signal, &[directory.as_raw_fd() as u64, libc::SIGTERM as u64, 0, 0])
            }
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
    probe("kill-supervisor-high-bits", SupervisorNotSignalled, |t| {
        call(libc::SYS_kill, &[(1 << 32) | raw(t.supervisor), libc::SIGTERM as u64])
    }),
];

fn raw(pid: Pid) -> u64 {
    pid.as_raw() as u64
}

/// `siginfo_t` with `si_code` SI_QUEUE, which rt_sigqueueinfo(2) demands.
fn queued_info() -> [i32; 32] {
    let mut info = [0i32; 32];
    info[0] = libc::SIGTERM;
    info[2] = libc::SI_QUEUE;
    info
}

fn pidfd_signal(pid: Pid) -> Outcome {
    match kernel::call(libc::SYS_pidfd_open, &[raw(pid), 0]) {
        Ok(pidfd) => call(libc::SYS_pidfd_send_signal, &[pidfd as u64, 0, 0, 0]),
        Err(error) => Outcome::Denied(format!("pidfd_open: {error}")),
    }
}

/// Let the kernel send the signal: a pipe that becomes readable signals its owner (F_SETOWN in fcntl(2)).
fn sigio(owner: Pid, pid: Pid) -> Outcome {
    let attempt = || -> nix::Result<()> {
        let (reader, writer) = nix::unistd::pipe()?;
        let fd = reader.as_raw_fd() as u64;
        kernel::call(libc::SYS_fcntl, &[fd, libc::F_SETOWN as u64, raw(owner)])?;
        kernel::call(libc::SYS_fcntl, &[fd, F_SETSIG, libc::SIGKILL as u64])?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_ASYNC))?;
        write(&writer, b"x")?;
        Ok(())
    };
    match attempt() {
        Ok(()) => effect(dies(pid), "a kill by F_SETOWN"),
        Err(error) => Outcome::Denied(error.to_string()),
    }
}
