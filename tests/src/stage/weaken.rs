//! A kernel that is deaf to one thing that the shim asks of it: so a confinement with one rule less is made of the very
//! program that is shipped.
//!
//! The stage's first process hands the shim's own calls to the process outside (seccomp_unotify(2)), which lets them
//! through, says yes without doing anything, or changes in the shim's memory what they ask for. The shim knows nothing
//! of it, so there is no switch in it that an attacker could use.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use crate::kernel;

mod answer;
mod cut;
pub mod filter;

use answer::Process;

pub use cut::{CAUGHT, Cut, Gate, Scope, Step};

/// In `/proc`: the last pid that was given out, in the pid namespace of who asks.
const LAST_PID: &str = "sys/kernel/ns_last_pid";

/// The outer half's end of a line to the inner one, over which the listener comes.
pub(super) struct Ear {
    ours: UnixStream,
    theirs: UnixStream,
    /// The machine's own `/proc`: at that path the inner half mounts another one.
    proc: OwnedFd,
}

impl Ear {
    pub(super) fn new() -> std::io::Result<Ear> {
        let (ours, theirs) = UnixStream::pair()?;
        kernel::leak(theirs.as_raw_fd())?;
        let proc = open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Ear { ours, theirs, proc })
    }

    /// The inner half's end, which it inherits.
    pub(super) fn number(&self) -> RawFd {
        self.theirs.as_raw_fd()
    }

    /// Take the listener of the inner half, `pid`, and serve it until that ends. Not in a thread of its own: who has asked
    /// for a pid namespace makes no more threads (unshare(2)).
    pub(super) fn listen(mut self, pid: u32, cuts: &[Cut]) -> std::io::Result<()> {
        drop(self.theirs);
        let mut number = [0u8; 4];
        self.ours.read_exact(&mut number)?;
        let process = kernel::own(kernel::call(libc::SYS_pidfd_open, &[pid.into(), 0])? as RawFd);
        let number = u32::from_ne_bytes(number).into();
        let listener = kernel::call(libc::SYS_pidfd_getfd, &[process.as_raw_fd() as u64, number, 0])?;
        let listener = kernel::own(listener as RawFd);
        self.ours.write_all(b".")?;
        serve(&listener, &process, &self.proc, cuts);
        Ok(())
    }
}

/// The inner half: from here on the calls that `cuts` speak of wait for the outer one, who takes the listener by its
/// number: sending it would be a call that may have to wait, too.
pub(super) fn hand_over(ear: RawFd, cuts: &[Cut]) -> std::io::Result<()> {
    // As a file: a stream of the standard library is written by `sendto`.
    let mut ear = File::from(kernel::own(ear));
    if cuts.contains(&Cut::Wrap) {
        // So that there is a below.
        std::fs::write(format!("/proc/{LAST_PID}"), "1000")?;
    }
    let mut calls: Vec<u32> = cuts.iter().flat_map(Cut::calls).collect();
    calls.sort_unstable();
    calls.dedup();
    let listener = kernel::hear(&calls, cuts.contains(&Cut::Catch))?;
    ear.write_all(&listener.as_raw_fd().to_ne_bytes())?;
    ear.read_exact(&mut [0u8])
}

fn serve(listener: &OwnedFd, process: &OwnedFd, proc: &OwnedFd, cuts: &[Cut]) {
    let readable = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
    loop {
        let mut both = [listener, process].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        // A process's descriptor is readable when it has ended (pidfd_open(2)).
        if poll(&mut both, PollTimeout::NONE).is_err() || readable(&both[1]) {
            return;
        }
        let Ok(asked) = kernel::asked(listener) else { continue };
        let answer = Process { proc, pid: asked.pid }.answer(cuts, &asked);
        // Who asked may be gone already.
        let _ = kernel::answer(listener, &asked, answer.unwrap_or(None));
    }
}
