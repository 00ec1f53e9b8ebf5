//! One file of one class: its place in the row, and the part of it that is still being written.

use std::io;

use super::BufferError;
use super::disk::Blocks;
use super::header::Header;
use super::record::{BLOCK, Frame, Kind};

/// Most numbers of one segment. After a loss of power nobody knows how many of them had been told, so the next segment
/// begins behind all of them.
pub(super) const SPAN: i64 = 65_536;

/// What is known of a file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    /// Its name.
    pub(super) name: String,
    /// Bytes written.
    pub(super) length: u64,
    /// Room taken in advance.
    pub(super) reserved: u64,
    /// Bytes of its records, as far as this process wrote them.
    pub(super) payload: u64,
}

impl Segment {
    /// What it takes of the budget.
    pub(super) fn charge(&self) -> u64 {
        self.length.max(self.reserved).next_multiple_of(BLOCK)
    }

    /// It has nothing but a header.
    pub(super) fn is_empty(&self) -> bool {
        self.length <= BLOCK
    }

    /// An error with it.
    pub(super) fn failed(&self, action: &'static str, source: io::Error) -> BufferError {
        BufferError::File { file: self.name.clone(), action, source }
    }

    /// The first number that may not stand in it.
    pub(super) fn limit(&self) -> i64 {
        self.header.base.saturating_add(SPAN)
    }
}

/// The file that is being written: the last one of its lane, begun by this process, and never one whose sync failed.
pub(super) struct Active<F> {
    pub(super) file: F,
    /// What the disk may not have yet.
    pub(super) unsynced: Vec<Frame>,
    /// Bytes of those.
    pub(super) waiting: u64,
}

impl<F: Blocks> Active<F> {
    /// Write `frame` behind what is there. After an error the same place is written again.
    pub(super) fn write(&mut self, segment: &mut Segment, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(frame.cost() as usize);
        frame.encode(segment.header.salt, segment.length, &mut bytes);
        self.file.write_at(&bytes, segment.length)?;
        segment.length += bytes.len() as u64;
        if frame.kind == Kind::Record {
            segment.payload += frame.payload.len() as u64;
        }
        self.waiting += bytes.len() as u64;
        self.unsynced.push(frame.clone());
        Ok(())
    }
}
