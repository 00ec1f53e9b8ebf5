//! A terminal of a dev-task's own: the supervisor keeps the master, the task gets the other end.
//!
//! Promise: nobody opens it by its name. Every child may open what is in /dev/pts, for terminals that it makes itself,
//! and in a `restricted` Pod all have one uid, so neither Landlock nor a mode keeps a task from another's. Exclusive
//! mode does (`TIOCEXCL`, ioctl_tty(2)): the task has its end by inheritance, and who comes later gets EBUSY.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use protocol::task::Terminal;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{SpecialCodeIndex, Winsize, ioctl_tiocexcl, tcgetattr, tcsetwinsize};

/// The end that types and reads what is shown. When it is dropped the terminal hangs up.
#[derive(Debug)]
pub struct Master(OwnedFd);

impl Master {
    /// A terminal of this size, and the task's end of it.
    pub fn open(size: Terminal) -> io::Result<(Master, OwnedFd)> {
        // Never anybody's controlling terminal by accident: PID 1 leads a session.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        ioctl_tiocexcl(&slave)?;
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        let master = Master(master);
        master.resize(size)?;
        Ok((master, slave))
    }

    /// Another size; the foreground group hears SIGWINCH where it is one.
    pub fn resize(&self, size: Terminal) -> io::Result<()> {
        let Terminal { rows, cols } = size;
        Ok(tcsetwinsize(&self.0, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })?)
    }

    /// What a keyboard sends for the end of the input: control-D, unless the program has chosen another key.
    pub fn end_of_input(&self) -> u8 {
        const CONTROL_D: u8 = 4;
        tcgetattr(&self.0).map_or(CONTROL_D, |modes| modes.special_codes[SpecialCodeIndex::VEOF])
    }

    /// The same end once more, without blocking.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}
