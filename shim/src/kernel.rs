//! Kernel calls that have no safe wrapper, or whose wrapper loses something. The only `unsafe` of the shim.
//!
//! Everything here returns `errno` and decides nothing.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use protocol::control::Exit;

/// Which side of a fork this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's pid.
    Parent(i32),
}

/// `fork(2)`.
pub fn fork() -> Result<Fork, Errno> {
    // SAFETY: the shim never starts a thread, so the child has every lock free and the heap whole.
    match Errno::result(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// A fork whose child is not ours but our parent's (`CLONE_PARENT`, clone(2)), who also gets its SIGCHLD.
pub fn fork_sibling() -> Result<Fork, Errno> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as for fork. Without a stack of its own the child goes on with a copy of ours, and of the remaining
    // arguments, which flags give a meaning to, none has one. Not by the libc, which has no call for it: what it does
    // beside the call concerns locks of other threads, of which there are none, and its note of the thread's id, which
    // nothing here asks for before the child's own fork writes it anew.
    match Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as i32)),
    }
}

/// Whether `number` is an open descriptor; `EBADF` if not.
pub fn is_open(number: RawFd) -> Result<(), Errno> {
    // SAFETY: F_GETFD only reads a flag of whatever the number is.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) }).map(drop)
}

/// Own an inherited descriptor, close-on-exec from now on.
pub fn own(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_SETFD only sets a flag of whatever the number is, and fails where it is not open.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open (above), and the caller takes over a number that was inherited, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `close_range(2)`; with `CLOSE_RANGE_CLOEXEC` it only marks.
pub fn close_range(first: RawFd, last: RawFd, flags: u32) -> Result<(), Errno> {
    // SAFETY: takes three numbers. The descriptors closed are not owned by any value: main calls this before it owns
    // more than the control socket, which it leaves out.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first as u32, last as u32, flags) }).map(drop)
}

/// Close a number that nothing owns.
pub fn close(number: RawFd) {
    // SAFETY: as for close_range.
    unsafe { libc::close(number) };
}

/// Make `terminal` the controlling one of the session that this process leads.
pub fn control_by(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    const NOT_FROM_ANOTHER_SESSION: libc::c_int = 0;
    // SAFETY: takes a number, not a pointer (ioctl_tty(2)).
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, NOT_FROM_ANOTHER_SESSION) }).map(drop)
}

/// Landlock's ABI, 0 where the kernel has none or does not use it.
pub fn landlock_abi() -> u32 {
    const VERSION: libc::c_long = 1;
    // SAFETY: with this flag the call takes no pointer and makes nothing (landlock_create_ruleset(2)).
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    u32::try_from(abi).unwrap_or(0)
}

/// Whether seccomp filters can return an errno and end a process, that is, whether there is seccomp at all.
pub fn has_seccomp() -> bool {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: reads one u32 from the pointer, which lives until the call returns.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// The sets of capabilities that `capget(2)` knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: 64 capabilities in two words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// This process's capabilities.
pub fn capabilities() -> Result<Capabilities, Errno> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [0u32; 6];
    // SAFETY: version 3 writes two times three words; both pointers live until the call returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    let set = |index: usize| u64::from(words[index]) | u64::from(words[index + 3]) << 32;
    Ok(Capabilities { effective: set(0), permitted: set(1), inheritable: set(2) })
}

/// Replace this process's capabilities.
pub fn set_capabilities(sets: Capabilities) -> Result<(), Errno> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let both = [sets.effective, sets.permitted, sets.inheritable];
    let words: Vec<u32> =
        both.iter().map(|&set| set as u32).chain(both.iter().map(|&set| (set >> 32) as u32)).collect();
    // SAFETY: version 3 reads two times three words; both pointers live until the call returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) }).map(drop)
}

/// Whether `capability` is in the bounding set; `EINVAL` beyond the last one that the kernel knows.
pub fn in_bounding_set(capability: u32) -> Result<bool, Errno> {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).map(|answer| answer == 1)
}

/// Drop `capability` from the bounding set.
pub fn drop_from_bounding_set(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Empty the ambient set.
pub fn clear_ambient_set() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

fn prctl(option: libc::c_int, first: u64, second: u64) -> Result<libc::c_int, Errno> {
    // SAFETY: only options that take numbers are used here.
    Errno::result(unsafe { libc::prctl(option, first, second, 0u64, 0u64) })
}

/// Give every signal its default action. KILL and STOP, which refuse, have it. Not by the libc: that hides 32 to 34,
/// which a parent can have ignored all the same.
pub fn default_signal_actions() {
    // The kernel's struct sigaction (handler, flags, restorer, mask): zeros are SIG_DFL without flags.
    let default = [0u64; 4];
    let (none, mask_size) = (std::ptr::null_mut::<u64>(), size_of::<u64>());
    for signal in 1..=64 {
        // SAFETY: reads the 32 bytes of the struct from a pointer that lives on; SIG_DFL runs no code of ours.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, mask_size) };
    }
}

/// `kill(2)` with any signal number, real-time ones included.
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes two numbers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// A descriptor that means one process, whoever gets its pid later.
pub fn pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers and returns a new descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Signal the process that `pidfd` means.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let fd = pidfd.as_raw_fd();
    // SAFETY: a null siginfo is allowed (pidfd_send_signal(2)); the rest are numbers.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0) };
    Errno::result(done).map(drop)
}

/// A child that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its pid.
    pub pid: i32,
    /// How it ended.
    pub exit: Exit,
}

/// Reap one child, if one has ended: `ECHILD` when there is none left at all.
///
/// Only ends are asked for: a program that made the shim its tracer (PTRACE_TRACEME) stops without our noticing.
/// `__WALL` finds children whose exit signal is not SIGCHLD too.
pub fn reap() -> Result<Option<Reaped>, Errno> {
    // SAFETY: siginfo_t is plain data, for which zeros are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: the pointer lives until the call returns.
    Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) })?;
    // SAFETY: waitid filled the fields for a child, or left the zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let exit = if info.si_code == libc::CLD_EXITED { Exit::Code(status & 0xff) } else { Exit::Signal(status) };
    Ok((pid != 0).then_some(Reaped { pid, exit }))
}

/// Nice value of this process.
pub fn set_nice(nice: i32) -> Result<(), Errno> {
    // SAFETY: takes three numbers.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// End without running destructors or flushing anything: after a fork both would be done twice.
pub fn exit(code: i32) -> ! {
    // SAFETY: does not return, so nothing can see what was left undone.
    unsafe { libc::_exit(code) }
}

/// The last error as `errno`.
pub fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
