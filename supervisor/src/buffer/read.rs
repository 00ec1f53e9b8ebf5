//! Reading: what the files tell, in order and without a hole.
//!
//! Nothing is remembered of what is missing. A number between two that are there, and that no file explains, was
//! damaged.

use super::disk::{Blocks, Disk};
use super::ground::Ground;
use super::lane::Lane;
use super::record::{BLOCK, Frame, Kind, Lost};
use super::scan::{Scan, is_gone};
use super::{BufferError, Piece, Reason};

/// Where the last reading ended, so that the next one goes on from there.
pub(super) struct Place<F> {
    pub(super) ordinal: u64,
    offset: u64,
    seq: i64,
    /// Absent where the file is the one being written.
    file: Option<F>,
}

/// What was read so far.
struct Reading {
    /// The next number.
    at: i64,
    bytes: usize,
    max: usize,
    pieces: Vec<Piece>,
    full: bool,
}

impl<F: Blocks> Lane<F> {
    /// From number `from` on: at least one piece where there is one, then up to `max` bytes of records.
    pub(super) fn peek<D: Disk<File = F>>(
        &mut self,
        ground: &mut Ground<D>,
        from: i64,
        max: usize,
    ) -> Result<Vec<Piece>, BufferError> {
        let told = self.told();
        let at = from.max(self.acked + 1);
        let mut reading = Reading { at, bytes: 0, max, pieces: Vec::new(), full: false };
        if let Some(first) = self.segments.front() {
            reading.gap(first.header.from.min(told), self.evicted, Reason::Evicted);
        }
        let failed = self.read_files(ground, &mut reading, told).err();
        // What could not be read now is no hole before these.
        let doubtful = if failed.is_none() { &self.doubtful[..] } else { &[] };
        for frame in doubtful {
            reading.take(frame, told);
        }
        self.count_damage(ground, &reading.pieces);
        match failed {
            Some(error) if reading.pieces.is_empty() => Err(error),
            _ => Ok(reading.pieces),
        }
    }

    fn read_files<D: Disk<File = F>>(
        &mut self,
        ground: &Ground<D>,
        reading: &mut Reading,
        told: i64,
    ) -> Result<(), BufferError> {
        let files_end = self.doubtful.first().map_or(told, |frame| frame.seq);
        let first = self.segments.partition_point(|segment| segment.header.from <= reading.at);
        for index in first.saturating_sub(1)..self.segments.len() {
            let end = self.segments.get(index + 1).map_or(files_end, |next| next.header.from.min(files_end));
            if reading.full || reading.at >= files_end {
                break;
            }
            if reading.at < end {
                self.read_file(ground, reading, index, end)?;
            }
        }
        Ok(())
    }

    /// The numbers of one file that come before `end`.
    fn read_file<D: Disk<File = F>>(
        &mut self,
        ground: &Ground<D>,
        reading: &mut Reading,
        index: usize,
        end: i64,
    ) -> Result<(), BufferError> {
        let segment = &self.segments[index];
        let (header, length) = (&segment.header, segment.length);
        reading.gap(header.base.min(end), header.bytes, header.reason.unwrap_or(Reason::Damaged));
        let active = self.active.as_ref().filter(|_| index + 1 == self.segments.len()).map(|active| &active.file);
        let place = self.place.take().filter(|place| place.ordinal == header.ordinal);
        let offset = place.as_ref().filter(|place| place.seq <= reading.at).map_or(BLOCK, |place| place.offset);
        let file = match (active, place.and_then(|place| place.file)) {
            (Some(_), _) => None,
            (None, Some(file)) => Some(file),
            (None, None) => match ground.disk.open(&segment.name) {
                Ok(file) => Some(file),
                Err(error) if is_gone(&error) => {
                    reading.gap(end, 0, Reason::Damaged);
                    return Ok(());
                }
                Err(source) => return Err(segment.failed("opened", source)),
            },
        };
        let mut place = Place { ordinal: header.ordinal, offset, seq: reading.at, file };
        let mut scan = Scan::new(header.salt, offset, length);
        while reading.at < end && !reading.full {
            let next = match (active, &place.file) {
                (Some(file), _) => scan.next(file),
                (None, Some(file)) => scan.next(file),
                (None, None) => Ok(None),
            };
            match next.map_err(|source| segment.failed("read", source))? {
                Some(frame) if frame.kind == Kind::End || !reading.take(&frame, end) => {}
                Some(_) => (place.offset, place.seq) = (scan.boundary(), reading.at),
                None => reading.gap(end, 0, Reason::Damaged),
            }
        }
        self.place = Some(place);
        Ok(())
    }

    fn count_damage<D: Disk<File = F>>(&mut self, ground: &mut Ground<D>, pieces: &[Piece]) {
        for piece in pieces {
            if let Piece::Gap { from, to, reason: Reason::Damaged, .. } = piece
                && *to > self.damaged
            {
                ground.count(Reason::Damaged, to - (from - 1).max(self.damaged));
                self.damaged = *to;
            }
        }
    }
}

impl Reading {
    /// Add what `frame` tells of numbers before `end`; whether it was used up.
    fn take(&mut self, frame: &Frame, end: i64) -> bool {
        if self.full || self.at >= end || frame.last() < self.at {
            return !self.full && self.at < end;
        }
        self.gap(frame.seq.min(end), 0, Reason::Damaged);
        if frame.seq >= end {
            return true;
        }
        match frame.as_gap() {
            Some(Lost { to, bytes, reason, .. }) => self.gap(to.saturating_add(1).min(end), bytes, reason),
            None => return self.record(frame),
        }
        true
    }

    fn record(&mut self, frame: &Frame) -> bool {
        let length = frame.payload.len();
        if !self.pieces.is_empty() && self.bytes + length > self.max {
            self.full = true;
            return false;
        }
        self.pieces.push(Piece::Record { seq: frame.seq, bytes: frame.payload.clone() });
        self.bytes += length;
        self.at = frame.seq + 1;
        self.full = self.bytes >= self.max;
        true
    }

    /// Numbers before `until` will not come.
    fn gap(&mut self, until: i64, lost: u64, why: Reason) {
        if self.full || until <= self.at {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Gap { to, bytes, reason, .. }) if *reason == why => {
                *to = until - 1;
                *bytes = bytes.saturating_add(lost);
            }
            _ => self.pieces.push(Piece::Gap { from: self.at, to: until - 1, bytes: lost, reason: why }),
        }
        self.at = until;
    }
}
