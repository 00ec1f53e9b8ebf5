//! Typing into somebody else's terminal.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use protocol::guarantee::Guarantee::SyscallsFiltered;

use super::{Outcome, Probe, probe, reaches};
use crate::kernel::{self, address, address_mut};

/// A bit that the kernel drops from the 32-bit request (CVE-2019-10063).
const HIGH: u64 = 1 << 32;

/// ioctl_tty(2); C libraries disagree about the type, so the numbers are here.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCGPTN: u64 = 0x8004_5430;

pub(super) const PROBES: &[Probe] = &[
    probe("tiocsti", SyscallsFiltered, |_| type_in(TIOCSTI)),
    probe("tiocsti-high-bits", SyscallsFiltered, |_| type_in(HIGH | TIOCSTI)),
    // a pseudo terminal answers ENOTTY to it, a filter does not
    probe("tioclinux", SyscallsFiltered, |_| type_in(TIOCLINUX)),
    probe("tioclinux-high-bits", SyscallsFiltered, |_| type_in(HIGH | TIOCLINUX)),
];

/// Make a terminal our own, then push a byte into its input, as into one shared with the supervisor.
fn type_in(request: u64) -> Outcome {
    let _ = nix::unistd::setsid();
    let attempt = || -> std::io::Result<(std::fs::File, std::fs::File)> {
        let master = OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
        let (mut number, mut unlocked) = (0u32, 0i32);
        let fd = master.as_raw_fd() as u64;
        kernel::call(libc::SYS_ioctl, &[fd, TIOCSPTLCK, address_mut(&mut unlocked)])?;
        kernel::call(libc::SYS_ioctl, &[fd, TIOCGPTN, address_mut(&mut number)])?;
        let slave = OpenOptions::new().read(true).write(true).open(format!("/dev/pts/{number}"))?;
        Ok((master, slave))
    };
    match attempt() {
        Ok((master, slave)) => {
            let byte = [b'x', 0];
            let answer = kernel::call(libc::SYS_ioctl, &[slave.as_raw_fd() as u64, request, address(&byte)]);
            let seen = if request as u32 == TIOCLINUX as u32 { &[Errno::ENOTTY][..] } else { &[][..] };
            // its end would hang up on us before the verdict is printed
            std::mem::forget(master);
            reaches(answer, seen)
        }
        Err(error) => Outcome::Denied(format!("no terminal: {error}")),
    }
}
