//! Our programs' own exit codes, in the range of `sysexits.h`, so that a `podFailurePolicy` can tell a fault of ours from
//! one of the agent's. The termination message says which it was where an agent uses the same number.

use std::error::Error;

/// The command line cannot be understood (EX_USAGE).
pub const USAGE: u8 = 64;
/// The port is taken (EX_UNAVAILABLE).
pub const UNAVAILABLE: u8 = 69;
/// A bug of ours (EX_SOFTWARE).
pub const INTERNAL: u8 = 70;
/// The confinement that was asked for cannot be had on this node (EX_OSERR).
pub const CONFINEMENT: u8 = 71;
/// Trying again may help: no space, no process, in use, a database that is away (EX_TEMPFAIL).
pub const TEMPORARY: u8 = 75;
/// A setting, what it points at or a schema is wrong (EX_CONFIG).
pub const CONFIGURATION: u8 = 78;

/// A program cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One of the codes above.
    pub code: u8,
    /// What is wrong and what to do.
    pub reason: String,
}

impl Fault {
    /// A fault that a setting mends, or, where it is `temporary`, another try.
    pub fn setting(error: &(dyn Error + 'static), temporary: bool) -> Fault {
        Fault::new(if temporary { TEMPORARY } else { CONFIGURATION }, error)
    }

    /// A fault from an error and all its causes, with this code or [`TEMPORARY`].
    pub fn new(code: u8, error: &(dyn Error + 'static)) -> Fault {
        Fault { code: unless_temporary(code, error), reason: reason(error) }
    }
}

/// This code; [`TEMPORARY`] where one of the error's causes is that something [is scarce](is_scarce).
pub fn unless_temporary(code: u8, error: &(dyn Error + 'static)) -> u8 {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let number = |cause: &(dyn Error + 'static)| cause.downcast_ref::<std::io::Error>()?.raw_os_error();
    if causes.any(|cause| number(cause).is_some_and(is_scarce)) { TEMPORARY } else { code }
}

/// This code; [`TEMPORARY`] where this `errno` says that something [is scarce](is_scarce).
pub fn unless_scarce(code: u8, errno: i32) -> u8 {
    if is_scarce(errno) { TEMPORARY } else { code }
}

/// Whether this `errno(3)` of Linux says that this process, or the machine, has no more of something for now: neither a setting is wrong then,
/// nor a program of ours.
pub fn is_scarce(errno: i32) -> bool {
    /// EAGAIN, ENOMEM, ENFILE, EMFILE, ENOSPC, ENOBUFS, EDQUOT.
    const SCARCE: [i32; 7] = [11, 12, 23, 24, 28, 105, 122];
    SCARCE.contains(&errno)
}

/// An error and all its causes in one line.
pub fn reason(error: &dyn Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !reason.ends_with(&text) {
            reason.push_str(": ");
            reason.push_str(&text);
        }
        cause = inner.source();
    }
    reason
}
