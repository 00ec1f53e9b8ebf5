//! Agents that make processes: orphans, trees that escape, and a fork bomb with a limit.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, execv, getpid, setsid};

use crate::kernel::fork;

/// Make this many orphans: double forks, sessions of their own, and failed execs, in turn. Each lives for an instant.
pub fn orphans(count: usize) -> nix::Result<()> {
    for number in 0..count {
        let child = loop {
            match fork() {
                // more orphans than the system allows: wait until some are reaped
                Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(5)),
                other => break other?,
            }
        };
        match child {
            Some(child) => {
                waitpid(child, None)?;
            }
            None => leave_one(number),
        }
    }
    Ok(())
}

/// In the child: leave a grandchild behind, without ever returning.
fn leave_one(number: usize) -> ! {
    if number % 3 == 1 {
        let _ = setsid();
    }
    if let Ok(None) = fork() {
        if number % 3 == 2 {
            let _ = execv(c"/nowhere", &[c"nowhere"]);
        }
        quit((number % 256) as i32);
    }
    quit(0)
}

/// Make a tree of this many processes that ignore TERM and half of which lead sessions of their own; then stay.
pub fn tree(count: usize) -> nix::Result<()> {
    ignore_term()?;
    // three levels, so that there are orphans when the middle is killed
    for number in 0..count {
        if fork()?.is_some() {
            continue;
        }
        if number % 2 == 0 {
            let _ = setsid();
        }
        if number % 4 == 0 {
            // its child lives on as an orphan
            match fork() {
                Ok(None) => {}
                _ => quit(0),
            }
        }
        stay();
    }
    println!("{count} processes");
    stay()
}

/// Fork as fast as the limits allow, for ever; every process ignores TERM and forks too.
pub fn bomb() -> nix::Result<()> {
    ignore_term()?;
    println!("{} forks", getpid());
    loop {
        match fork() {
            Ok(None) => {
                let _ = setsid();
            }
            Ok(Some(_)) => {
                let _ = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A tree of this many processes, and beside it a fork bomb that takes what the limit leaves.
pub fn crowd(count: usize) -> nix::Result<()> {
    ignore_term()?;
    if fork()?.is_none() {
        // late enough that the tree is whole first
        std::thread::sleep(Duration::from_millis(500));
        return bomb();
    }
    tree(count)
}

/// Wait for ever.
pub fn stay() -> ! {
    loop {
        nix::unistd::pause();
    }
}

fn quit(code: i32) -> ! {
    crate::kernel::exit_now(code)
}

fn ignore_term() -> nix::Result<()> {
    crate::kernel::ignore(Signal::SIGTERM)
}
