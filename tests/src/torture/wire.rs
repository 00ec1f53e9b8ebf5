//! The network of a run: a namespace of its own, in which the kernel drops packets where it is told to. Both ends see what they would see of a bad line:
//! segments that come late or twice, and no word of any that does not come.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::needs;

/// A namespace that is this thread's from now on, and of whatever it starts.
pub(super) struct Wire(());

/// Packets are dropped until this value goes.
pub(super) struct Dropping<'w> {
    _wire: &'w Wire,
}

impl Wire {
    /// `None` where this machine has no way to it, which is printed.
    pub(super) fn enter() -> Option<Wire> {
        if !needs::commands(&["ip", "iptables"]) {
            return None;
        }
        // In another thread first: who is in a namespace without a network stays there. And some kernels have no chance.
        let trial = || enter().and_then(|()| lose(1, 1)).and_then(|()| lose_nothing());
        let tried = std::thread::spawn(trial).join().unwrap_or_else(|_| Err("it panicked".into()));
        tried.and_then(|()| enter()).inspect_err(|error| eprintln!("skipped: no packets are lost: {error}")).ok()?;
        Some(Wire(()))
    }

    /// Of all packets to or from `port`, so many of a hundred.
    pub(super) fn drop_packets(&self, port: u16, percent: u8) -> Dropping<'_> {
        lose(port, percent).expect("it was tried");
        Dropping { _wire: self }
    }
}

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        if let Err(error) = lose_nothing() {
            eprintln!("packets are lost for good: {error}");
        }
    }
}

fn enter() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
    run("ip", &["link", "set", "lo", "up"])
}

fn lose(port: u16, percent: u8) -> Result<(), String> {
    let (port, probability) = (port.to_string(), format!("{:.2}", f64::from(percent) / 100.0));
    ["--dport", "--sport"].into_iter().try_for_each(|end| {
        let chance = ["-m", "statistic", "--mode", "random", "--probability", &probability];
        run("iptables", &[&["-w", "-A", "INPUT", "-p", "tcp", end, &port], &chance[..], &["-j", "DROP"]].concat())
    })
}

fn lose_nothing() -> Result<(), String> {
    run("iptables", &["-w", "-F", "INPUT"])
}

fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(command).args(arguments).output().map_err(|error| error.to_string())?;
    let told = || format!("{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(told)
}
