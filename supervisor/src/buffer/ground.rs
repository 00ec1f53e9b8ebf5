//! What all lanes stand on: the disk, the identity of the log, bounds and counts.

use std::collections::BTreeMap;

use protocol::session::Class;

use super::disk::Disk;
use super::{Limits, Reason};

/// Shared by the lanes.
pub(super) struct Ground<D> {
    pub(super) disk: D,
    pub(super) limits: Limits,
    pub(super) epoch: [u8; 16],
    /// The kernel's.
    pub(super) boot: [u8; 16],
    /// Of the next file, over all classes and lives.
    pub(super) ordinal: u64,
    pub(super) counts: Counts,
}

/// Counted since the buffer was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// fsync and fdatasync that were asked for.
    pub syncs: u64,
    /// Those that failed.
    pub sync_failures: u64,
    /// Files that were put aside.
    pub quarantined: u64,
    /// Numbers that became gaps.
    pub gaps: BTreeMap<Reason, u64>,
}

impl<D: Disk> Ground<D> {
    /// Count numbers that became a gap.
    pub(super) fn count(&mut self, reason: Reason, numbers: i64) {
        *self.counts.gaps.entry(reason).or_default() += numbers.max(0) as u64;
    }

    /// Count a sync.
    pub(super) fn synced(&mut self, result: &std::io::Result<()>) {
        self.counts.syncs += 1;
        self.counts.sync_failures += u64::from(result.is_err());
    }

    /// Room that a new file of that class takes in advance.
    pub(super) fn reservation(&self, class: Class) -> u64 {
        if class == Class::Lifecycle { self.limits.segment(class) } else { 0 }
    }
}
