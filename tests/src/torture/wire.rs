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
        unshare(CloneFlags::CLONE_NEWNET)
            .inspect_err(|error| eprintln!("skipped: no network namespace: {error}"))
            .ok()?;
        run("ip", &["link", "set", "lo", "up"]);
        Some(Wire(()))
    }

    /// Of all packets to or from `port`, so many of a hundred.
    pub(super) fn drop_packets(&self, port: u16, percent: u8) -> Dropping<'_> {
        let (port, probability) = (port.to_string(), format!("{:.2}", f64::from(percent) / 100.0));
        for end in ["--dport", "--sport"] {
            let chance = ["-m", "statistic", "--mode", "random", "--probability", &probability];
            run("iptables", &[&["-A", "INPUT", "-p", "tcp", end, &port], &chance[..], &["-j", "DROP"]].concat());
        }
        Dropping { _wire: self }
    }
}

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        run("iptables", &["-F", "INPUT"]);
    }
}

fn run(command: &str, arguments: &[&str]) {
    let output = Command::new(command).args(arguments).output().expect("it is there");
    assert!(output.status.success(), "{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
