//! `waitid(2)` itself. nix names no real-time signal, and an exit that it cannot name would be lost or, when only
//! looked at, be seen for ever.
#![allow(unsafe_code)]

use protocol::control::Exit;

/// A child that ended, still a zombie. `None` when no child has ended or there is none.
pub(super) fn look() -> Option<i32> {
    wait(libc::P_ALL, 0, libc::WNOWAIT).map(|(pid, _)| pid)
}

/// Take the zombie `pid` out of the process table.
pub(super) fn take(pid: i32) -> Option<Exit> {
    wait(libc::P_PID, pid as libc::id_t, 0).map(|(_, exit)| exit)
}

/// Whether there is any child, living or dead.
pub(super) fn has_children() -> bool {
    is_there(libc::P_ALL, 0)
}

/// Whether `pid` is a child, living or dead.
pub(super) fn is_child(pid: i32) -> bool {
    is_there(libc::P_PID, pid as libc::id_t)
}

fn is_there(kind: libc::idtype_t, id: libc::id_t) -> bool {
    // SAFETY: with a null siginfo_t pointer waitid writes nothing (waitid(2), Linux).
    let result = unsafe { libc::waitid(kind, id, std::ptr::null_mut(), libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    result == 0 || nix::errno::Errno::last() != nix::errno::Errno::ECHILD
}

fn wait(kind: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> Option<(i32, Exit)> {
    // SAFETY: all zeroes is a valid siginfo_t, and waitid writes to it only within the call. si_pid and si_status
    // are the members that waitid(2) fills; with WNOHANG and no child in a waitable state it leaves si_pid 0.
    let (result, pid, status, code) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(kind, id, &mut info, libc::WEXITED | libc::WNOHANG | flags);
        (result, info.si_pid(), info.si_status(), info.si_code)
    };
    if result != 0 || pid == 0 {
        return None;
    }
    let exit = if code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) };
    Some((pid, exit))
}
