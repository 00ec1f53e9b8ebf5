//! Typing into somebody else's terminal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use protocol::guarantee::Guarantee::SyscallsFiltered;
use protocol::policy::ExecutionClass::Readonly;

use super::{Outcome, Probe, probe, reaches};
use crate::kernel::{self, address, address_mut};

/// A bit that the kernel drops from the 32-bit request (CVE-2019-10063).
const HIGH: u64 = 1 << 32;

/// ioctl_tty(2); C libraries disagree about the type, so the numbers are here.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
const TIOCSETD: u64 = 0x5423;
const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCGPTN: u64 = 0x8004_5430;

pub(super) const PROBES: &[Probe] = &[
    probe("tiocsti", SyscallsFiltered, |_| type_in(TIOCSTI)),
    probe("tiocsti-high-bits", SyscallsFiltered, |_| type_in(HIGH | TIOCSTI)),
    // a pseudo terminal answers ENOTTY to it, a filter does not
    probe("tioclinux", SyscallsFiltered, |_| type_in(TIOCLINUX)),
    probe("tioclinux-high-bits", SyscallsFiltered, |_| type_in(HIGH | TIOCLINUX)),
    probe("tiocsetd", SyscallsFiltered, |_| type_in(TIOCSETD)),
    probe("tiocsetd-high-bits", SyscallsFiltered, |_| type_in(HIGH | TIOCSETD)),
    probe("readonly-tiocsti", SyscallsFiltered, |_| type_in(TIOCSTI)).class(Readonly),
    probe("readonly-tioclinux", SyscallsFiltered, |_| type_in(TIOCLINUX)).class(Readonly),
    probe("readonly-tiocsetd", SyscallsFiltered, |_| type_in(TIOCSETD)).class(Readonly),
];

/// A new terminal: its master, and where its other end is.
pub fn make() -> io::Result<(File, String)> {
    let master = open("/dev/ptmx")?;
    let (mut number, mut unlocked) = (0u32, 0i32);
    let fd = master.as_raw_fd() as u64;
    kernel::call(libc::SYS_ioctl, &[fd, TIOCSPTLCK, address_mut(&mut unlocked)])?;
    kernel::call(libc::SYS_ioctl, &[fd, TIOCGPTN, address_mut(&mut number)])?;
    Ok((master, format!("/dev/pts/{number}")))
}

/// Open somebody else's terminal at `path`, in every way that shows or says something.
pub fn open_another(path: &str) -> Outcome {
    let ways = [(true, false), (false, true), (true, true)];
    let tries = ways.map(|(read, write)| OpenOptions::new().read(read).write(write).open(path));
    let opened = tries.iter().any(Result::is_ok);
    let said: Vec<String> = tries.into_iter().filter_map(|attempt| Some(attempt.err()?.to_string())).collect();
    if opened { Outcome::Escaped(format!("{path} is open")) } else { Outcome::Denied(said.join("; ")) }
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Make a terminal our own, then push a byte into its input, as into one shared with the supervisor.
fn type_in(request: u64) -> Outcome {
    let _ = nix::unistd::setsid();
    match make().and_then(|(master, path)| Ok((master, open(&path)?))) {
        Ok((master, slave)) => {
            // a byte to type, or the line discipline that every terminal has
            let byte = if request as u32 == TIOCSETD as u32 { [0u8; 4] } else { [b'x', 0, 0, 0] };
            let answer = kernel::call(libc::SYS_ioctl, &[slave.as_raw_fd() as u64, request, address(&byte)]);
            let seen = if request as u32 == TIOCLINUX as u32 { &[Errno::ENOTTY][..] } else { &[][..] };
            // its end would hang up on us before the verdict is printed
            std::mem::forget(master);
            reaches(answer, seen)
        }
        Err(error) => Outcome::Denied(format!("no terminal: {error}")),
    }
}
