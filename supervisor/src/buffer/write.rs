//! Writing: frames into the last file, and when a new file is begun.
//!
//! A new file has its header and its name on the disk before any of its numbers is given out. A file whose sync failed
//! is never written or synced again: what it may have lost is written to the next one, from memory, under the same
//! numbers; the older copies are behind that file's `from` and count no more.

use super::BufferError;
use super::disk::{Blocks, Disk};
use super::ground::Ground;
use super::header::Header;
use super::lane::Lane;
use super::record::{BLOCK, Frame};
use super::segment::{Active, Segment};
use peer::random;

impl<F: Blocks> Lane<F> {
    /// Write one frame, after whatever is pending.
    pub(super) fn put<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>, frame: &Frame) -> Result<(), BufferError> {
        self.settle(ground)?;
        while !self.fits(ground, frame) {
            self.begin(ground)?;
        }
        self.write(frame)
    }

    /// Make what is to be told safe to tell: the names that were found, and the gap that no file tells of yet.
    pub(super) fn settle<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>) -> Result<(), BufferError> {
        if self.unnamed {
            let result = ground.disk.sync();
            ground.synced(&result);
            result.map_err(|source| BufferError::List { source })?;
            self.unnamed = false;
        }
        while let Some(lost) = self.pending {
            let frame = Frame::gap(&lost);
            if self.fits(ground, &frame) {
                self.write(&frame)?;
                self.pending = None;
            } else {
                self.begin(ground)?;
            }
        }
        Ok(())
    }

    /// Make everything durable that is written, unless the gateway has it already.
    pub(super) fn sync<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>) -> Result<(), BufferError> {
        self.sync_active(ground);
        if self.doubtful.is_empty() { Ok(()) } else { self.begin(ground) }
    }

    /// The last words of this life: everything is on the disk, and so is the number that comes next.
    pub(super) fn end<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>) -> Result<(), BufferError> {
        self.settle(ground)?;
        if self.ended {
            return Ok(());
        }
        if self.active.is_none() {
            self.begin(ground)?;
        }
        self.write(&Frame::end(self.next))?;
        // An end does not need to be acknowledged, so this syncs in any case.
        self.sync(ground)?;
        self.release();
        self.active = None;
        self.ended = true;
        Ok(())
    }

    /// Whether anything written may be lost with power, that nobody else has.
    pub(super) fn is_dirty(&self) -> bool {
        let unsynced = self.active.iter().flat_map(|active| active.unsynced.last());
        self.doubtful.last().into_iter().chain(unsynced).any(|frame| frame.last() > self.acked)
    }

    /// How much more of the budget a frame of that cost takes.
    pub(super) fn growth<D: Disk<File = F>>(&self, ground: &Ground<D>, cost: u64) -> u64 {
        match (&self.active, self.segments.back()) {
            (Some(_), Some(last)) if last.length + cost <= ground.limits.segment(self.class) => {
                last.length.saturating_add(cost).next_multiple_of(BLOCK).saturating_sub(last.charge())
            }
            _ => ground.reservation(self.class).max((BLOCK + cost).next_multiple_of(BLOCK)),
        }
    }

    fn fits<D: Disk<File = F>>(&self, ground: &Ground<D>, frame: &Frame) -> bool {
        self.active.is_some()
            && self.segments.back().is_some_and(|last| {
                let room = last.is_empty() || last.length + frame.cost() <= ground.limits.segment(self.class);
                room && frame.last() < last.limit()
            })
    }

    fn write(&mut self, frame: &Frame) -> Result<(), BufferError> {
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            return Err(BufferError::Closed);
        };
        active.write(segment, frame).map_err(|source| segment.failed("written", source))
    }

    pub(super) fn sync_active<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>) {
        let Some(active) = &mut self.active else { return };
        if active.unsynced.last().is_some_and(|frame| frame.last() > self.acked) {
            let result = active.file.sync();
            ground.synced(&result);
            if result.is_err() {
                self.doubtful.append(&mut active.unsynced);
                self.doubtful.retain(|frame| frame.last() > self.acked);
                self.active = None;
                return;
            }
        }
        active.unsynced.clear();
        active.waiting = 0;
    }

    /// Begin the next file: its header tells of the pending gap, or it has the doubtful frames anew.
    pub(super) fn begin<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>) -> Result<(), BufferError> {
        self.sync_active(ground);
        // The name is burned with the attempt: whatever of it reaches the disk, the next one comes after it.
        let ordinal = ground.ordinal;
        ground.ordinal += 1;
        let gap = self.pending.filter(|_| self.doubtful.is_empty());
        let base = self.doubtful.first().map_or(self.next, |frame| frame.seq);
        let header = Header {
            class: self.class,
            reason: gap.map(|lost| lost.reason),
            epoch: ground.epoch,
            boot: ground.boot,
            salt: random::bits(),
            ordinal,
            from: gap.map_or(base, |lost| lost.from),
            base,
            bytes: gap.map_or(0, |lost| lost.bytes),
        };
        let name = header.name();
        let reserved = ground.reservation(self.class);
        let mut segment = Segment { header, name, length: 0, reserved, payload: 0 };
        match self.make(ground, &mut segment) {
            Ok(file) => {
                self.release();
                self.ended = false;
                self.unnamed = false;
                self.segments.push_back(segment);
                self.active = Some(Active { file, unsynced: Vec::new(), waiting: 0 });
                self.doubtful.clear();
                self.pending = if gap.is_some() { None } else { self.pending };
                Ok(())
            }
            Err(error) => {
                let _ = ground.disk.remove(&segment.name);
                if segment.length > 0 {
                    // It may be there all the same, where it cannot be removed or power takes that back, and says that the file before it is at
                    // its end. So nothing comes into that one any more.
                    self.release();
                    self.active = None;
                }
                Err(error)
            }
        }
    }

    /// The last file will not grow any more: give back the room that it took in advance.
    fn release(&mut self) {
        if let (Some(active), Some(last)) = (&mut self.active, self.segments.back_mut())
            && last.reserved > 0
            && active.file.trim().is_ok()
        {
            last.reserved = 0;
        }
    }

    /// Make the file, with all that it begins with on the disk.
    fn make<D: Disk<File = F>>(&self, ground: &mut Ground<D>, segment: &mut Segment) -> Result<F, BufferError> {
        let mut bytes = segment.header.encode();
        for frame in &self.doubtful {
            frame.encode(segment.header.salt, 0, &mut bytes);
        }
        let mut file = ground.disk.create(&segment.name).map_err(|source| segment.failed("created", source))?;
        // fallocate(2) refuses to take nothing.
        let reserved = if segment.reserved > 0 { file.reserve(segment.reserved) } else { Ok(()) };
        reserved.map_err(|source| segment.failed("written", source))?;
        segment.length = bytes.len() as u64;
        file.write_at(&bytes, 0).map_err(|source| segment.failed("written", source))?;
        let result = file.sync();
        ground.synced(&result);
        result.map_err(|source| segment.failed("synced", source))?;
        let result = ground.disk.sync();
        ground.synced(&result);
        result.map_err(|source| segment.failed("named for good", source))?;
        Ok(file)
    }
}
