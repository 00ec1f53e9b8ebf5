//! Whose session the program belongs to, and its terminal.

use std::os::fd::AsFd;

use nix::unistd::{Pid, getpgrp, getpid, setpgid, setsid, tcgetpgrp, tcsetpgrp};
use protocol::control::{Failure, Step};
use protocol::policy::Session;

use crate::failure::because;
use crate::kernel;

/// The child's side.
pub fn enter(session: Session) -> Result<(), Failure> {
    match session {
        Session::Own => setsid().map(drop).map_err(because(Step::Session, "making a session")),
        Session::OwnTerminal => {
            setsid().map_err(because(Step::Session, "making a session"))?;
            // It makes the leader's group the foreground one, too (ioctl_tty(2)).
            kernel::control_by(std::io::stdin().as_fd())
                .map_err(because(Step::Session, "standard input is not a terminal that nobody else has"))
        }
        Session::Terminal => {
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(because(Step::Session, "making a process group"))?;
            // A background group that asks gets SIGTTOU, but not while it is blocked (tcsetpgrp(3)).
            tcsetpgrp(std::io::stdin(), getpid())
                .map_err(because(Step::Session, "standard input is not the session's terminal"))
        }
    }
}

/// The resident side: out of the supervisor's process group, so that neither `^C` nor a signal to that group means
/// the shim; without a terminal, out of its session too.
pub fn leave(session: Session) -> Left {
    let group = getpgrp();
    // Both are refused to the leader of a session, setsid to that of a group: it leads a group of its own already.
    match session {
        Session::Own | Session::OwnTerminal => drop(setsid()),
        Session::Terminal => drop(setpgid(Pid::from_raw(0), Pid::from_raw(0))),
    }
    Left { session, group }
}

/// What the resident shim has left, and the terminal goes back to.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    session: Session,
    /// The supervisor's, which it started its shim in.
    group: Pid,
}

impl Left {
    /// When the program is gone: the terminal goes back to the supervisor's group, or nobody could type any more. The
    /// shim's group is in the background; the signal for that (tcsetpgrp(3)) is blocked here.
    pub fn give_back_terminal(self, program: i32) {
        if self.session == Session::Terminal && tcgetpgrp(std::io::stdin()) == Ok(Pid::from_raw(program)) {
            let _ = tcsetpgrp(std::io::stdin(), self.group);
        }
    }
}
