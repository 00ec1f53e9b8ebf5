//! Parsers of bytes that somebody else writes, each as a function of those bytes: those that `fuzz/` tries with any.
//!
//! What the shim makes of a policy ([`crate::execute::Execution`], [`crate::guarantees`]) is public as it is.

use std::path::PathBuf;

use crate::execute;
use crate::tree::reach::sweep;

/// The interpreter or the loader that the first bytes of a program name.
pub fn interpreter(head: &[u8]) -> Option<PathBuf> {
    execute::named(head)
}

/// The parent of a process, by its `/proc/PID/stat`.
pub fn parent(stat: &[u8]) -> Option<i32> {
    sweep::parse(0, stat).map(|process| process.parent)
}
