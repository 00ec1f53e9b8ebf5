//! What the faults of a run may cost, and what that excuses.

use std::collections::BTreeMap;

use protocol::session::Class;

use crate::tally::{FOR_GOOD, Tally};

/// What the faults of a run may cost. Each number of a gap that they explain stands for one record that nobody can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// No record.
    #[default]
    Nothing,
    /// What a full disk does not take, and what gives way where the gateway is away for longer than the buffer has room.
    Room,
    /// What a disk or a kernel refuses to take or to give back, and what gives way to that.
    Refused,
    /// What was not synced when power went.
    Unsynced {
        /// Who tells of lifecycle and results waits for the disk, so nothing of them goes.
        always: bool,
    },
}

impl Cost {
    pub(super) fn explains(self, class: Class, reason: &str) -> bool {
        match self {
            Cost::Nothing => false,
            Cost::Room => ["disk", "evicted", "budget"].contains(&reason),
            Cost::Refused => ["disk", "damaged", "evicted"].contains(&reason),
            Cost::Unsynced { always } => reason == "damaged" && !(always && FOR_GOOD.contains(&class)),
        }
    }
}

/// Numbers by class that may be missing, because faults explain the gaps that they are in.
pub(super) struct Excused(BTreeMap<Class, i64>);

impl Excused {
    /// After faults that may cost this.
    pub(super) fn of(cost: Cost, tally: &Tally) -> Excused {
        let mut left: BTreeMap<Class, i64> = BTreeMap::new();
        for ((class, reason), gaps) in &tally.reasons {
            if cost.explains(*class, reason) {
                *left.entry(*class).or_default() += gaps.numbers;
            }
        }
        Excused(left)
    }

    /// One of them.
    pub(super) fn takes(&mut self, class: Class) -> bool {
        let left = self.0.entry(class).or_default();
        *left -= 1;
        *left >= 0
    }
}
