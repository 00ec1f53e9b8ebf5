//! Raw kernel entries, for probes that must say exactly what no library would: the one unsafe module of this crate.
//!
//! Pointers are passed as integers made by [`address`] and [`address_mut`] from values that outlive the call; a
//! wrong number or pointer makes the kernel answer `EFAULT` or `EINVAL`, which is what a probe wants to see.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// One system call by number; unused arguments are 0.
pub fn call(number: i64, arguments: &[u64]) -> Result<i64, Errno> {
    let mut six = [0u64; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = six;
    // SAFETY: callers pass integers, or addresses of live values of the size that the kernel documents for this
    // call; the calls that change control flow (fork and the like) have their own functions below.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Errno::result(answer)
}

/// The address of a value that the kernel reads.
pub fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<u8>().addr() as u64
}

/// The address of a value that the kernel writes.
pub fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    let pointer = std::ptr::from_mut(value).cast::<u8>();
    pointer.expose_provenance() as u64
}

/// Make a child with `clone(2)` and these flags; it exits at once with 0. Its pid.
pub fn clone_and_exit(flags: u64) -> Result<i64, Errno> {
    // SAFETY: without CLONE_VM and with no stack this is fork(2); the child makes one call that never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0u64, 0u64, 0u64, 0u64) };
    finish_child(pid)
}

/// The same through `clone3(2)`.
pub fn clone3_and_exit(flags: u64) -> Result<i64, Errno> {
    let arguments: [u64; 11] = [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, 0];
    // SAFETY: as above; the kernel reads 88 bytes of `struct clone_args`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    finish_child(pid)
}

fn finish_child(pid: i64) -> Result<i64, Errno> {
    if pid == 0 {
        // SAFETY: leaves the child without running any destructor of the parent's memory image.
        unsafe { libc::_exit(0) };
    }
    Errno::result(pid)
}

/// `fork(2)`, for single-threaded programs only: `None` in the child.
pub fn fork() -> Result<Option<nix::unistd::Pid>, Errno> {
    // SAFETY: the callers (stage, bench's bomb, probe) have one thread, so the child's heap is consistent.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// A system call through the 32-bit gate, `int 0x80`, with no arguments: the answer in `eax`.
#[cfg(target_arch = "x86_64")]
pub fn i386_entry(number: u32) -> Option<i32> {
    let answer: u64;
    // SAFETY: calls without arguments (getpid) touch no memory; the gate may clobber r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") u64::from(number) => answer,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    Some(answer as u32 as i32)
}

/// There is no such gate on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub fn i386_entry(_number: u32) -> Option<i32> {
    None
}

/// Keep an inherited descriptor open for children although Rust opened it close-on-exec.
pub fn leak(fd: std::os::fd::RawFd) -> Result<(), Errno> {
    // SAFETY: changes a flag of a descriptor of this process.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Leave at once, without running destructors: what a forked child does.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(code) }
}

/// Ignore a signal, here and in every program started from here.
pub fn ignore(signal: nix::sys::signal::Signal) -> Result<(), Errno> {
    use nix::sys::signal::{SigHandler, signal as set};
    // SAFETY: ignoring installs no handler that could run unsafe code.
    unsafe { set(signal, SigHandler::SigIgn) }.map(drop)
}

/// From now on these system calls answer `ENOSYS`, as on an older kernel.
pub fn forget(calls: &[u32]) -> Result<(), Errno> {
    nix::sys::prctl::set_no_new_privs()?;
    filter(&[(NUMBER, calls)], 0x0005_0000 | libc::ENOSYS as u32, 0).map(drop)
}

/// From now on these system calls wait for the answer of whoever has this listener (seccomp_unotify(2)), and where `marked`
/// every one whose sixth argument is [`MARK`]. One filter for both: a process has one listener.
pub fn hear(calls: &[u32], marked: bool) -> Result<OwnedFd, Errno> {
    const NEW_LISTENER: u64 = 1 << 3;
    const WAIT_KILLABLE_RECV: u64 = 1 << 5;
    let heard: [(u32, &[u32]); 2] = [(NUMBER, calls), (SIXTH_ARGUMENT, &[MARK])];
    let heard = if marked { &heard[..] } else { &heard[..1] };
    let listener = filter(heard, 0x7fc0_0000, NEW_LISTENER | WAIT_KILLABLE_RECV)?;
    // SAFETY: the kernel has just made it for us, close-on-exec; setting that again could be a call that waits already.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
}

/// The sixth argument of calls that are only to be heard.
pub const MARK: u32 = 0x5eed_ca11;

/// Places in `struct seccomp_data` (seccomp(2)); of the argument the lower half.
const NUMBER: u32 = 0;
const SIXTH_ARGUMENT: u32 = 16 + 5 * 8;

/// A filter that gives this answer where the word at one of these places has one of these values.
fn filter(wanted: &[(u32, &[u32])], answer: u32, flags: u64) -> Result<i64, Errno> {
    // struct sock_filter: code u16, jump-true u8, jump-false u8, operand u32 (seccomp(2))
    let instruction =
        |code: u16, jt: u8, operand: u32| u64::from(code) | u64::from(jt) << 16 | u64::from(operand) << 32;
    let length: usize = wanted.iter().map(|(_, values)| 1 + values.len()).sum();
    let mut program = Vec::new();
    for (word, values) in wanted {
        program.push(instruction(0x20, 0, *word));
        for value in *values {
            program.push(instruction(0x15, (length - program.len()) as u8, *value));
        }
    }
    program.push(instruction(0x06, 0, 0x7fff_0000));
    program.push(instruction(0x06, 0, answer));
    let described: [u64; 2] = [program.len() as u64, address(program.as_slice())];
    call(libc::SYS_seccomp, &[1, flags, address(&described)])
}

/// A call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    id: u64,
    /// Whose, as this process sees it.
    pub pid: i32,
    /// Its number.
    pub number: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Asked {
    /// Whether it is only to be heard.
    pub fn is_marked(&self) -> bool {
        self.arguments[5] as u32 == MARK
    }
}

/// Wait for the next one.
pub fn asked(listener: &OwnedFd) -> Result<Asked, Errno> {
    const RECEIVE: u64 = 0xc050_2100;
    // struct seccomp_notif: id, pid and flags, number and architecture, instruction pointer, six arguments
    let mut words = [0u64; 10];
    call(libc::SYS_ioctl, &[listener.as_raw_fd() as u64, RECEIVE, address_mut(&mut words)])?;
    let [id, pid, number, _, arguments @ ..] = words;
    Ok(Asked { id, pid: pid as i32, number: number as u32, arguments })
}

/// Answer it with this value, which is an errno where it is negative, or let the kernel do it.
pub fn answer(listener: &OwnedFd, asked: &Asked, value: Option<i64>) -> Result<(), Errno> {
    const SEND: u64 = 0xc018_2101;
    const CONTINUE: u64 = 1 << 32;
    // struct seccomp_notif_resp: id, value, error and flags
    let words = [asked.id, value.unwrap_or(0) as u64, if value.is_some() { 0 } else { CONTINUE }];
    call(libc::SYS_ioctl, &[listener.as_raw_fd() as u64, SEND, address(&words)]).map(drop)
}

/// Own a descriptor that was inherited or made by a raw call; close-on-exec from now on.
pub fn own(number: RawFd) -> OwnedFd {
    // SAFETY: F_SETFD only sets a flag of whatever the number is; callers pass numbers that nobody else owns.
    unsafe {
        libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
        OwnedFd::from_raw_fd(number)
    }
}

/// Numbers of calls that only x86 has; elsewhere a number that no kernel has.
#[allow(missing_docs)]
#[cfg(target_arch = "x86_64")]
pub mod x86 {
    pub const IOPERM: i64 = libc::SYS_ioperm;
    pub const IOPL: i64 = libc::SYS_iopl;
    pub const MODIFY_LDT: i64 = libc::SYS_modify_ldt;
    pub const SYSFS: i64 = libc::SYS_sysfs;
    pub const CHMOD: i64 = libc::SYS_chmod;
    pub const LCHOWN: i64 = libc::SYS_lchown;
    pub const CHOWN: i64 = libc::SYS_chown;
    pub const UTIME: i64 = libc::SYS_utime;
    pub const UTIMES: i64 = libc::SYS_utimes;
    pub const FUTIMESAT: i64 = libc::SYS_futimesat;
}

/// Numbers of calls that only x86 has; elsewhere a number that no kernel has.
#[allow(missing_docs)]
#[cfg(not(target_arch = "x86_64"))]
pub mod x86 {
    pub const IOPERM: i64 = -1;
    pub const IOPL: i64 = -1;
    pub const MODIFY_LDT: i64 = -1;
    pub const SYSFS: i64 = -1;
    pub const CHMOD: i64 = -1;
    pub const LCHOWN: i64 = -1;
    pub const CHOWN: i64 = -1;
    pub const UTIME: i64 = -1;
    pub const UTIMES: i64 = -1;
    pub const FUTIMESAT: i64 = -1;
}
