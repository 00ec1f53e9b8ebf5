//! Our own exit codes, in the range of `sysexits.h`.

/// The command line cannot be understood (EX_USAGE).
pub const USAGE: u8 = 64;
/// The port is taken (EX_UNAVAILABLE).
pub const UNAVAILABLE: u8 = 69;
/// A bug of ours (EX_SOFTWARE).
pub const INTERNAL: u8 = 70;
/// Trying again may help: the database is away, busy or full (EX_TEMPFAIL).
pub const TEMPORARY: u8 = 75;
/// A setting, a token file or the schema is wrong (EX_CONFIG).
pub const CONFIGURATION: u8 = 78;

/// The gateway cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One of the codes above.
    pub code: u8,
    /// What is wrong and what to do.
    pub reason: String,
}

impl Fault {
    /// A fault from an error and all its causes.
    pub fn new(code: u8, error: &dyn std::error::Error) -> Fault {
        Fault { code, reason: story(error) }
    }
}

/// An error and all its causes, in one line.
pub fn story(error: &dyn std::error::Error) -> String {
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
