//! No capability in any set.
//!
//! The bounding set goes first, because it takes CAP_SETPCAP and a change of ids takes that away. Whether it worked
//! is read back from the kernel later ([`crate::readback`]), never assumed from a call.

use nix::errno::Errno;
use protocol::control::{Failure, Step};

use crate::failure::because;
use crate::kernel::{self, Capabilities};

/// `CAP_KILL`: signals to processes of other uids.
pub const KILL: u32 = 5;
/// `CAP_SETGID`.
pub const SETGID: u32 = 6;
/// `CAP_SETUID`.
pub const SETUID: u32 = 7;
/// `CAP_SETPCAP`: drops from the bounding set.
pub const SETPCAP: u32 = 8;

/// Whether `capability` is in `set`.
pub const fn holds(set: u64, capability: u32) -> bool {
    set & 1 << capability != 0
}

/// Empty the bounding set where CAP_SETPCAP allows it.
pub fn drop_bounding() -> Result<(), Failure> {
    let own = kernel::capabilities().map_err(because(Step::BoundingSet, "reading capabilities"))?;
    if holds(own.effective, SETPCAP) {
        // The kernel says EINVAL behind its last capability, also those that are newer than this code.
        for capability in 0..64 {
            match kernel::drop_from_bounding_set(capability) {
                Ok(()) => {}
                Err(Errno::EINVAL) => break,
                Err(errno) => return Err(because(Step::BoundingSet, "emptying the bounding set")(errno)),
            }
        }
    }
    Ok(())
}

/// Empty the ambient set.
pub fn clear_ambient() -> Result<(), Failure> {
    match kernel::clear_ambient_set() {
        // Older than Linux 4.3: there is no ambient set.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(because(Step::BoundingSet, "emptying the ambient set")(errno)),
    }
}

/// Whether the bounding set is empty.
pub fn bounding_is_empty() -> bool {
    !(0..64).map_while(|capability| kernel::in_bounding_set(capability).ok()).any(|held| held)
}

/// Give up every capability.
pub fn drop_all() -> Result<(), Failure> {
    kernel::set_capabilities(Capabilities::default()).map_err(because(Step::Capabilities, "dropping capabilities"))
}

/// The resident shim keeps only the right to end its tree, and that only where the tree has another uid.
pub fn keep_kill() -> Result<(), Errno> {
    let kill = kernel::capabilities()?.permitted & 1 << KILL;
    kernel::set_capabilities(Capabilities { effective: kill, permitted: kill, inheritable: 0 })
}
