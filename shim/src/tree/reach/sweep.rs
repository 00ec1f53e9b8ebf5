//! All descendants, found in `/proc`: the way where no kernel mechanism closes a tree in.
//!
//! The shim is the tree's subreaper, so every process of the tree has a chain of parents that ends here. A process
//! can fork while the list is read, so a kill first stops what it finds, until two passes find nothing that is not
//! stopped: what is stopped cannot fork. A pid can also change hands between reading and signalling, so the signal
//! goes to a pidfd, checked against the start time that was read.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::getpid;

use crate::kernel;

/// A process as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    pub(crate) parent: i32,
    state: u8,
    /// Clock ticks since boot: with the pid, this means one process for ever.
    started: u64,
}

/// More passes than any bounded fork bomb needs; the caller comes back if it was not enough.
const PASSES: usize = 64;

/// `signal` to every descendant that is there now.
pub(super) fn signal(signal: i32) {
    for process in descendants() {
        send(process, signal);
    }
}

/// End every descendant.
pub(super) fn kill() {
    let mut clean = 0;
    for _ in 0..PASSES {
        let running: Vec<Process> = descendants().into_iter().filter(|process| !is_still(process.state)).collect();
        clean = if running.is_empty() { clean + 1 } else { 0 };
        if clean == 2 {
            break;
        }
        running.into_iter().for_each(|process| send(process, libc::SIGSTOP));
    }
    signal(libc::SIGKILL);
}

/// Stopped (T, t) or gone (Z, X): proc_pid_stat(5).
fn is_still(state: u8) -> bool {
    matches!(state, b'T' | b't' | b'Z' | b'X')
}

fn descendants() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let all: Vec<Process> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| read(pid))
        .collect();
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for &process in &all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut parents = vec![getpid().as_raw()];
    while let Some(parent) = parents.pop() {
        // Taken out, so that a parent that changed while the table was read cannot make a ring.
        for process in children.remove(&parent).unwrap_or_default() {
            parents.push(process.pid);
            found.push(process);
        }
    }
    found
}

fn read(pid: i32) -> Option<Process> {
    parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name (in brackets) may contain anything, brackets and spaces too: what counts begins behind the last one.
pub(crate) fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22; state is field 3.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process { pid, parent, state, started })
}

fn send(process: Process, signal: i32) {
    match kernel::pidfd(process.pid) {
        Ok(pidfd) => {
            if read(process.pid).is_some_and(|now| now.started == process.started) {
                let _ = kernel::pidfd_kill(pidfd.as_fd(), signal);
            }
        }
        Err(Errno::ENOSYS) => drop(kernel::kill(process.pid, signal)),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_parent() {
        let stat = b"77 (a) R 1 (b)) S 42 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2";
        assert_eq!(parse(77, stat), Some(Process { pid: 77, parent: 42, state: b'S', started: 123_456 }));
    }
}
