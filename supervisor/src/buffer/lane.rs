//! One class: its numbers, and the row of files that tell of them.
//!
//! - Each number below [`Lane::told`] stands in a file whose header and name the disk has: the loss of power does not
//!   take the file, and the next life begins behind everything that the file could hold. So no number is ever told
//!   twice with two meanings.
//! - Numbers from there on are in `pending`, or were not given out.
//! - A file tells of the numbers from its header's `from` to the one before the next file's. The last file is never
//!   removed: its name is what the next life counts from.

use std::collections::VecDeque;

use protocol::session::{Class, Extent};

use super::Reason;
use super::disk::{Blocks, Disk};
use super::ground::Ground;
use super::read::Place;
use super::record::{Frame, Lost};
use super::segment::{Active, Segment};

/// One class.
pub(super) struct Lane<F> {
    pub(super) class: Class,
    /// The next number to be given out.
    pub(super) next: i64,
    /// Numbers up to `next - 1` that no file tells of yet.
    pub(super) pending: Option<Lost>,
    /// The newest that the gateway has for good.
    pub(super) acked: i64,
    /// By ordinal.
    pub(super) segments: VecDeque<Segment>,
    /// The last of them, while it is written to.
    pub(super) active: Option<Active<F>>,
    /// The last file says which number comes next, and nothing was written after it.
    pub(super) ended: bool,
    /// The disk has not confirmed the names that this life found; a begun file whose maker was killed may be among them.
    pub(super) unnamed: bool,
    /// Written to a file whose sync failed, and not yet written to another one.
    pub(super) doubtful: Vec<Frame>,
    /// Bytes of records that were sacrificed and not yet acknowledged as gone.
    pub(super) evicted: u64,
    /// Where the last reading ended.
    pub(super) place: Option<Place<F>>,
    /// The newest number that was counted as damaged.
    pub(super) damaged: i64,
}

impl<F: Blocks> Lane<F> {
    /// The first number that may not be told.
    pub(super) fn told(&self) -> i64 {
        if self.unnamed { self.acked + 1 } else { self.behind() }
    }

    /// The first number that no file tells of.
    pub(super) fn behind(&self) -> i64 {
        self.pending.map_or(self.next, |lost| lost.from)
    }

    /// What may be told of it.
    pub(super) fn extent(&self) -> Extent {
        Extent { first_unacked: (self.acked + 1).min(self.told()), last: self.told() - 1 }
    }

    /// Give out `count` numbers that no record will have.
    pub(super) fn lose(&mut self, count: i64, bytes: u64, reason: Reason) {
        let to = self.next + count - 1;
        match &mut self.pending {
            // One gap at a time: where the first one could not be told, the second has the same cause.
            Some(lost) => {
                lost.to = to;
                lost.bytes += bytes;
            }
            None => self.pending = Some(Lost { from: self.next, to, bytes, reason }),
        }
        self.next += count;
    }

    /// The gateway has everything up to `seq`. Files that tell of nothing else are removed.
    pub(super) fn acknowledge<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>, seq: i64) {
        self.acked = self.acked.max(seq);
        if self.acked >= self.next {
            // It knows numbers that we do not: this log was cut short. They are never given out again.
            self.pending = None;
            self.next = self.acked + 1;
        }
        self.doubtful.retain(|frame| frame.last() > seq);
        // A newer file whose name power may still take cannot stand for an older one.
        while !self.unnamed && self.segments.get(1).is_some_and(|next| next.header.from <= self.acked + 1) {
            self.drop_first(ground);
        }
        if self.segments.front().is_none_or(|first| first.header.from <= self.acked + 1) {
            self.evicted = 0;
        }
    }

    /// Remove the oldest file; there is a newer one.
    pub(super) fn drop_first<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>) {
        let Some(gone) = self.segments.pop_front() else { return };
        if self.place.as_ref().is_some_and(|place| place.ordinal == gone.header.ordinal) {
            self.place = None;
        }
        // What cannot be removed now is found by the next start, which removes it.
        let _ = ground.disk.remove(&gone.name);
    }
}
