//! How a signal gets to every process of the tree, and to nobody else.

use nix::errno::Errno;
use nix::unistd::getppid;
use protocol::control::{Failure, Step};

use crate::failure::failed;
use crate::guarantees::Facts;
use crate::{filesystem, kernel};

pub(crate) mod sweep;

/// The way that this kernel has.
pub struct Reach(Way);

enum Way {
    /// The shim's Landlock domain closes its signals in, so `kill(-1)` means the tree: in one walk of the process
    /// table that no fork can slip through (kill(2); the kernel holds the table's lock). It leaves out the caller.
    Scope,
    /// Below Landlock ABI 6 the same call would reach every process of the same uid: all descendants, one by one.
    Sweep,
}

impl Reach {
    /// Enter the tree's own domain, where there is one. Before the fork: there is no moment at which the program runs
    /// outside it.
    pub fn establish(facts: &Facts) -> Result<Reach, Failure> {
        if !facts.signals_are_scoped() {
            return Ok(Reach(Way::Sweep));
        }
        filesystem::enclose_tree(facts.landlock_abi)?;
        // Tried, not assumed: were the scope open, the first `kill(-1)` would end the whole Pod. The parent, whoever it
        // is by now, is outside; where it is in another PID namespace (0), this one's init is.
        let outsider = match getppid().as_raw() {
            0 => 1,
            parent => parent,
        };
        match kernel::kill(outsider, 0) {
            Err(Errno::EPERM) => Ok(Reach(Way::Scope)),
            _ => Err(failed(Step::Landlock, 0, "Landlock's signal scope was entered but does not hold")),
        }
    }

    /// Nobody left is no error: whether that is so, reaping tells.
    pub(super) fn signal_everyone(&self, signal: i32) {
        match self.0 {
            Way::Scope => drop(kernel::kill(-1, signal)),
            Way::Sweep if signal == libc::SIGKILL => sweep::kill(),
            Way::Sweep => sweep::signal(signal),
        }
    }
}
