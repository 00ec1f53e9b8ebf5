//! `/proc/PID/stat` as far as it tells whose child a process is (`proc_pid_stat(5)`).

use std::path::Path;

/// The two fields behind the program's name.
pub(crate) struct Stat {
    /// One letter; `Z` and `X` are dead.
    pub(crate) state: char,
    /// Pid of the parent.
    pub(crate) parent: i32,
}

/// `None` for a process that is gone. `proc` is `/proc`.
pub(crate) fn read(proc: &Path, pid: i32) -> Option<Stat> {
    parse(&std::fs::read(proc.join(pid.to_string()).join("stat")).ok()?)
}

/// The same of what was read.
pub(crate) fn parse(stat: &[u8]) -> Option<Stat> {
    // The second field is the program's name in parentheses; it may hold parentheses and blanks of its own.
    let after = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    let after = String::from_utf8_lossy(after);
    let mut fields = after.split_ascii_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}
