//! Whose session the program belongs to, and its terminal.

use nix::unistd::{Pid, getpgrp, getpid, setpgid, setsid, tcgetpgrp, tcsetpgrp};
use protocol::control::{Failure, Step};
use protocol::policy::Session;

use crate::failure::because;

/// The child's side.
pub fn enter(session: Session) -> Result<(), Failure> {
    match session {
        Session::Own => setsid().map(drop).map_err(because(Step::Session, "making a session")),
        Session::Terminal => {
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(because(Step::Session, "making a process group"))?;
            // A background group that asks gets SIGTTOU, but not while it is blocked (tcsetpgrp(3)).
            tcsetpgrp(std::io::stdin(), getpid())
                .map_err(because(Step::Session, "standard input is not the session's terminal"))
        }
    }
}

/// The resident side: away from the supervisor's terminal and process group, so that neither `^C` nor a signal to
/// that group means the shim.
pub fn leave(session: Session) {
    if session == Session::Own {
        // Refused to the leader of a group, which then is in no group of the supervisor's already.
        let _ = setsid();
    }
}

/// When the program is gone: the terminal goes back to the supervisor's group, or nobody could type any more.
pub fn give_back_terminal(session: Session, program: i32) {
    if session == Session::Terminal && tcgetpgrp(std::io::stdin()) == Ok(Pid::from_raw(program)) {
        let _ = tcsetpgrp(std::io::stdin(), getpgrp());
    }
}
