//! Room: the bounds, and what is sacrificed for what.
//!
//! A record may push out records of its own class and of classes that are worth less: logs, then metrics, then results,
//! then lifecycle. The oldest file of the least class goes first. Lifecycle has its reserve, which no other class may
//! fill, and may go beyond it at the others' cost.

use protocol::session::Class;

use super::disk::{Blocks, Disk};
use super::ground::Ground;
use super::lane::Lane;
use super::record::BLOCK;
use super::{Buffer, BufferError, Reason};

/// Evicting the only file of a class begins a new one first.
const SLACK: u64 = Class::ALL.len() as u64 * BLOCK;

impl<D: Disk> Buffer<D> {
    /// Sacrifice until a frame of that cost fits.
    pub(super) fn make_room(&mut self, class: Class, cost: u64) -> Result<(), BufferError> {
        // One more block: a pending gap is written before the frame.
        while !self.has_room(class, self.lanes[class as usize].growth(&self.ground, cost) + BLOCK) {
            if !self.sacrifice(class) {
                return Err(BufferError::Full { class });
            }
        }
        Ok(())
    }

    fn has_room(&self, class: Class, more: u64) -> bool {
        let limits = &self.ground.limits;
        let charge = |lane: &Lane<D::File>| lane.segments.iter().map(|segment| segment.charge()).sum::<u64>();
        let (lifecycle, others) = self
            .lanes
            .split_first()
            .map_or((0, 0), |(lifecycle, others)| (charge(lifecycle), others.iter().map(charge).sum::<u64>()));
        let others = others + self.aside.iter().map(|aside| aside.bytes).sum::<u64>();
        let lifecycle = if class == Class::Lifecycle { lifecycle } else { lifecycle.max(limits.reserve) };
        lifecycle + others + more + SLACK <= limits.size
    }

    /// Give up the least that is worth no more than `class`; false where nothing is left.
    pub(super) fn sacrifice(&mut self, class: Class) -> bool {
        if self.drop_aside() {
            return true;
        }
        let victims = Class::ALL.into_iter().rev().take_while(|victim| *victim >= class);
        for victim in victims {
            if self.lanes[victim as usize].evict(&mut self.ground) {
                return true;
            }
        }
        false
    }

    /// Remove the oldest of the files that were put aside, if newer files have taken over its numbers.
    pub(super) fn drop_aside(&mut self) -> bool {
        let replaced = |class: Class, ordinal| {
            let lane = &self.lanes[class as usize];
            !lane.unnamed && lane.segments.back().is_some_and(|last| last.header.ordinal > ordinal)
        };
        let Some(index) = self.aside.iter().position(|aside| replaced(aside.class, aside.ordinal)) else {
            return false;
        };
        let _ = self.ground.disk.remove(&self.aside.remove(index).name);
        true
    }
}

impl<F: Blocks> Lane<F> {
    /// Give up the oldest file; false where that frees nothing.
    fn evict<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>) -> bool {
        let only = self.segments.len() == 1;
        if self.unnamed && !only {
            return false;
        }
        // Its numbers must stay behind those of a file that stays.
        if self.segments.front().is_none_or(|first| only && first.is_empty()) || only && self.begin(ground).is_err() {
            return false;
        }
        let (Some(first), Some(next)) = (self.segments.front(), self.segments.get(1)) else { return false };
        let end = next.header.from;
        let numbers = end - first.header.from.max(self.acked + 1);
        if numbers > 0 {
            let whole = first.header.from > self.acked;
            self.evicted += if whole { first.payload } else { 0 };
            ground.count(Reason::Evicted, numbers);
        }
        self.drop_first(ground);
        true
    }
}
