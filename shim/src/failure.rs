//! A step that failed, in the words that cross the border: which step, `errno`, and what to do.

use nix::errno::Errno;
use protocol::control::{Failure, Step};

/// A failure whose message is complete.
pub fn failed(step: Step, errno: i32, message: impl Into<String>) -> Failure {
    Failure { step, errno, message: message.into() }
}

/// For `map_err`: `what` was tried, the kernel says why not.
pub fn because(step: Step, what: impl Into<String>) -> impl FnOnce(Errno) -> Failure {
    move |errno| failed(step, errno as i32, format!("{}: {}", what.into(), errno.desc()))
}
