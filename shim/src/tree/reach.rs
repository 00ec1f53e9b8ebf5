//! How a signal gets to every process of the tree, and to nobody else.

use crate::guarantees::Facts;
use crate::kernel;

mod sweep;

/// The way that this kernel has.
pub(super) enum Reach {
    /// The shim's Landlock domain closes its signals in, so `kill(-1)` means the tree: in one walk of the process
    /// table that no fork can slip through (kill(2); the kernel holds the table's lock). It leaves out the caller.
    Scope,
    /// Below Landlock ABI 6 the same call would reach every process of the same uid: all descendants, one by one.
    Sweep,
}

impl Reach {
    pub(super) fn new(facts: &Facts) -> Reach {
        if facts.signals_are_scoped() { Reach::Scope } else { Reach::Sweep }
    }

    /// Nobody left is no error: whether that is so, reaping tells.
    pub(super) fn signal_everyone(&self, signal: i32) {
        match self {
            Reach::Scope => drop(kernel::kill(-1, signal)),
            Reach::Sweep if signal == libc::SIGKILL => sweep::kill(),
            Reach::Sweep => sweep::signal(signal),
        }
    }
}
