//! Who stands in for supervisor and shim in a control: the same shape, and nothing that confines.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::getpid;

use crate::{kernel, processes, scene};

/// Be the supervisor: hold a token, a port and a second thread, then start the shim's stand-in and wait for all.
pub fn supervisor(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut token = File::open(scene::TOKEN)?;
    let mut secret = String::new();
    token.read_to_string(&mut secret)?;
    // the mistakes that a supervisor can make: two descriptors that children inherit
    let state = File::open(scene::STATE)?;
    kernel::leak(state.as_raw_fd())?;
    kernel::leak(token.as_raw_fd())?;

    let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    if super::find(name).is_none_or(|p| !p.free_port) {
        bind(socket.as_raw_fd(), &SockaddrIn6::from(std::net::SocketAddrV6::new([0; 16].into(), scene::PORT, 0, 0)))?;
        listen(&socket, Backlog::new(8)?)?;
    }
    std::thread::spawn(|| {
        loop {
            std::thread::park();
        }
    });
    let outsider = super::outsider::find();
    let shim = Command::new("/proc/self/exe").arg0("shim").args(["stand-in-shim", name]).spawn()?.id();
    loop {
        match wait() {
            // a killed shim leaves us its probe, unless it reaped that in its last instant
            Ok(WaitStatus::Signaled(pid, ..)) if pid.as_raw() as u32 == shim => {
                if processes::children(getpid()).iter().all(|&child| Some(child) == outsider) {
                    break;
                }
            }
            Ok(status) if status.pid() == outsider => {}
            Ok(_) | Err(Errno::ECHILD) => break,
            Err(error) => return Err(error.into()),
        }
    }
    std::hint::black_box(&secret);
    Ok(())
}

/// Be the shim: start the probe and wait for it.
pub fn shim(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    Command::new("/proc/self/exe").arg0("probe").arg(name).spawn()?;
    while wait() != Err(Errno::ECHILD) {}
    Ok(())
}
