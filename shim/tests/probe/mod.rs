//! The calls that a hostile program would make, each with its answer printed.

#![allow(unsafe_code, reason = "the point is to call the kernel in ways that no wrapper allows")]

use std::ffi::CString;

use nix::errno::Errno;

/// One raw call.
fn call(number: libc::c_long, arguments: [u64; 6]) -> Result<i64, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: every pointer in the probes below points to memory that outlives the call, or is null; none of the calls
    // changes this process's memory beyond what it is given.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

fn say(name: &str, answer: Result<i64, Errno>) {
    match answer {
        Ok(_) => println!("\nprobe:{name}=ok"),
        Err(errno) => println!("\nprobe:{name}={errno:?}"),
    }
}

fn probe(name: &str, number: libc::c_long, arguments: [u64; 6]) {
    say(name, call(number, arguments));
}

/// Every probe, aimed at `target`.
pub(crate) fn all(target: i32) {
    if std::env::var_os("PROBE_I386").is_some() {
        i386();
    }
    if std::env::var_os("PROBE_TRACEME").is_some() {
        probe("traceme", libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0, 0, 0, 0]);
        let _ = call(libc::SYS_tkill, [call(libc::SYS_gettid, [0; 6]).unwrap_or(0) as u64, 10, 0, 0, 0, 0]);
    }
    let pid = target as u64;
    reach(pid);
    privileges();
    sockets();
    metadata();
    truncation();
}

/// Other processes. Nothing here hurts the target where it succeeds: signal 0, its own values, a seize and no stop.
fn reach(target: u64) {
    probe("signal_0", libc::SYS_kill, [target, 0, 0, 0, 0, 0]);
    probe("signal_self", libc::SYS_kill, [std::process::id().into(), 0, 0, 0, 0, 0]);
    let pidfd = call(libc::SYS_pidfd_open, [target, 0, 0, 0, 0, 0])
        .or_else(|_| {
            let path = CString::new(format!("/proc/{target}")).expect("no zero inside");
            call(libc::SYS_openat, [libc::AT_FDCWD as u64, path.as_ptr() as u64, libc::O_DIRECTORY as u64, 0, 0, 0])
        })
        .unwrap_or(-1);
    probe("pidfd_signal_0", libc::SYS_pidfd_send_signal, [pidfd as u64, 0, 0, 0, 0, 0]);

    let byte = [0u8; 1];
    let vector = [byte.as_ptr() as u64, 1];
    let remote = [0x1000u64, 1];
    // EFAULT where it is allowed: nothing is mapped there.
    let arguments = [target, vector.as_ptr() as u64, 1, remote.as_ptr() as u64, 1, 0];
    probe("read_memory", libc::SYS_process_vm_readv, arguments);
    probe("ptrace_seize", libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), target, 0, 0, 0, 0]);
    let _ = call(libc::SYS_ptrace, [libc::PTRACE_DETACH.into(), target, 0, 0, 0, 0]);

    let mut limit = [0u64; 2];
    let nofile = libc::RLIMIT_NOFILE as u64;
    let _ = call(libc::SYS_prlimit64, [target, nofile, 0, limit.as_mut_ptr() as u64, 0, 0]);
    let _ = call(libc::SYS_prlimit64, [0, nofile, 0, limit.as_mut_ptr() as u64, 0, 0]);
    probe("prlimit_other", libc::SYS_prlimit64, [target, nofile, limit.as_ptr() as u64, 0, 0, 0]);
    probe("prlimit_self", libc::SYS_prlimit64, [0, nofile, limit.as_ptr() as u64, 0, 0, 0]);
    probe("setpriority_other", libc::SYS_setpriority, [0, target, 0, 0, 0, 0]);
    probe("setpriority_self", libc::SYS_setpriority, [0, 0, 1, 0, 0, 0]);
    // A user that has no process: ESRCH where it is allowed.
    probe("setpriority_user", libc::SYS_setpriority, [2, 54_321, 0, 0, 0, 0]);
    probe("ioprio_other", libc::SYS_ioprio_set, [1, target, 0, 0, 0, 0]);
    let all = [u64::MAX; 16];
    probe("affinity_other", libc::SYS_sched_setaffinity, [target, 128, all.as_ptr() as u64, 0, 0, 0]);
    probe("affinity_self", libc::SYS_sched_setaffinity, [0, 128, all.as_ptr() as u64, 0, 0, 0]);
    ownership(target);
    if let Some(thread) = std::env::var("PROBE_THREAD").ok().and_then(|thread| thread.parse().ok()) {
        by_thread(thread);
    }
}

/// The id of a thread that is not its process's first: `kill` and its like take it for the process.
fn by_thread(thread: u64) {
    let mut info = [0i32; 32];
    info[2] = libc::SI_QUEUE;
    probe("thread_signal_0", libc::SYS_kill, [thread, 0, 0, 0, 0, 0]);
    probe("thread_queue_0", libc::SYS_rt_sigqueueinfo, [thread, 0, info.as_ptr() as u64, 0, 0, 0]);
    probe("thread_tkill_0", libc::SYS_tkill, [thread, 0, 0, 0, 0, 0]);
    // Refused by the kernel too, but as no such process.
    probe("thread_pidfd", libc::SYS_pidfd_open, [thread, 0, 0, 0, 0, 0]);
}

/// Asking for SIGIO on behalf of another process.
fn ownership(target: u64) {
    let mut pair = [0i32; 2];
    let _ = call(libc::SYS_pipe2, [pair.as_mut_ptr() as u64, 0, 0, 0, 0, 0]);
    let owner = [1i32, target as i32];
    probe("setown", libc::SYS_fcntl, [pair[0] as u64, libc::F_SETOWN as u64, target, 0, 0, 0]);
    probe("setown_ex", libc::SYS_fcntl, [pair[0] as u64, 15, owner.as_ptr() as u64, 0, 0, 0]);
    probe("setsig", libc::SYS_fcntl, [pair[0] as u64, 10, 0, 0, 0, 0]);
    let _ = call(libc::SYS_fcntl, [pair[0] as u64, libc::F_SETOWN as u64, 0, 0, 0, 0]);
}

fn privileges() {
    // With a flag beside it that makes it fail where it is allowed, so that nothing changes: EINVAL.
    let bad = 1u64 << 40;
    probe("unshare_user", libc::SYS_unshare, [libc::CLONE_NEWUSER as u64 | bad, 0, 0, 0, 0, 0]);
    // CLONE_FS with a new user namespace is EINVAL (clone(2)).
    let flags = libc::CLONE_NEWUSER | libc::CLONE_FS;
    probe("clone_user", libc::SYS_clone, [flags as u64, 0, 0, 0, 0, 0]);
    probe("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0, 0]);
    probe("io_uring", libc::SYS_io_uring_setup, [0, 0, 0, 0, 0, 0]);
    probe("tiocsti_with_high_bits", libc::SYS_ioctl, [0, libc::TIOCSTI | 1 << 32, 0, 0, 0, 0]);
}

fn sockets() {
    const MPTCP: u64 = 262;
    let socket = |name, family: i32, kind: i32, protocol| {
        probe(name, libc::SYS_socket, [family as u64, kind as u64, protocol, 0, 0, 0]);
    };
    socket("inet", libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
    socket("inet6", libc::AF_INET6, libc::SOCK_DGRAM, 0);
    socket("unix", libc::AF_UNIX, libc::SOCK_STREAM, 0);
    socket("netlink_route", libc::AF_NETLINK, libc::SOCK_RAW, 0);
    socket("packet", libc::AF_PACKET, libc::SOCK_DGRAM, 0);
    socket("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0);
    socket("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0);
    socket("raw", libc::AF_INET, libc::SOCK_RAW, 1);
    socket("mptcp", libc::AF_INET, libc::SOCK_STREAM, MPTCP);
}

fn own_file(name: &str) -> CString {
    let path = std::env::temp_dir().join(format!("shim-probe-{}-{name}", std::process::id()));
    std::fs::write(&path, "x").expect("/tmp is writable");
    CString::new(path.into_os_string().into_encoded_bytes()).expect("no zero inside")
}

fn remove(path: &CString) {
    let _ = std::fs::remove_file(path.to_str().expect("a temporary path is UTF-8"));
}

fn metadata() {
    let path = own_file("metadata");
    let here = libc::AT_FDCWD as u64;
    probe("chmod", libc::SYS_fchmodat, [here, path.as_ptr() as u64, 0o600, 0, 0, 0]);
    probe("utimens", libc::SYS_utimensat, [here, path.as_ptr() as u64, 0, 0, 0, 0]);
    let (name, value) = (c"user.probe".as_ptr() as u64, c"1".as_ptr() as u64);
    probe("setxattr", libc::SYS_setxattr, [path.as_ptr() as u64, name, value, 1, 0, 0]);
    remove(&path);
    // Where no rule lets write, wherever these sources lie; a file without a name leaves nothing behind.
    let outside = c"/var/tmp".as_ptr() as u64;
    let unnamed = (libc::O_TMPFILE | libc::O_WRONLY) as u64;
    probe("write_outside", libc::SYS_openat, [here, outside, unnamed, 0o600, 0, 0]);
}

fn truncation() {
    let path = own_file("truncate");
    let here = libc::AT_FDCWD as u64;
    probe("truncate", libc::SYS_truncate, [path.as_ptr() as u64, 0, 0, 0, 0, 0]);
    let flags = (libc::O_RDONLY | libc::O_TRUNC) as u64;
    probe("open_truncate", libc::SYS_openat, [here, path.as_ptr() as u64, flags, 0, 0, 0]);
    let how = [0u64; 3];
    probe("openat2", libc::SYS_openat2, [here, path.as_ptr() as u64, how.as_ptr() as u64, 24, 0, 0]);
    remove(&path);
}

/// `getpid` by the 32-bit entry.
fn i386() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the call takes no argument; the entry clobbers r8 to r11 and the result register only.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20u64 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
}
