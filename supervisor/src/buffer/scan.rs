//! The frames of one file, in order, with everything that is damaged left out.
//!
//! A block is read alone: what is wrong with one costs the frames that touch it and no other. Whoever reads sees a
//! hole in the numbers, and says so.

use std::io;

use super::disk::Blocks;
use super::record::{BLOCK, Fragment, Frame, Parsed, parse};

/// A walk over the blocks of a file.
pub(super) struct Scan {
    salt: u64,
    /// Up to here.
    length: u64,
    /// The next fragment.
    at: u64,
    /// Of the block in which that stands.
    block: Vec<u8>,
    /// Where `block` begins in the file.
    loaded: Option<u64>,
    partial: Option<Frame>,
    /// Where the last whole frame ended.
    boundary: u64,
    /// Blocks that were not as they had been written.
    damaged: u64,
}

impl Scan {
    /// From `at`, the end of a frame or the first block after the header, to `length`.
    pub(super) fn new(salt: u64, at: u64, length: u64) -> Scan {
        Scan { salt, length, at, block: Vec::new(), loaded: None, partial: None, boundary: at, damaged: 0 }
    }

    /// The next whole frame.
    pub(super) fn next(&mut self, file: &impl Blocks) -> io::Result<Option<Frame>> {
        while self.at < self.length {
            let start = self.at - self.at % BLOCK;
            if self.loaded != Some(start) && !self.load(file, start)? {
                self.skip_block(start);
                continue;
            }
            match parse(&self.block, (self.at - start) as usize, start, self.salt) {
                Parsed::Fragment(fragment) => {
                    self.at = start + fragment.end as u64;
                    if let Some(frame) = join(&mut self.partial, &fragment) {
                        self.boundary = self.at;
                        return Ok(Some(frame));
                    }
                }
                Parsed::End => self.at = start + BLOCK,
                Parsed::Bad => self.skip_block(start),
            }
        }
        Ok(None)
    }

    /// Where the last whole frame ended.
    pub(super) fn boundary(&self) -> u64 {
        self.boundary
    }

    /// Blocks that could not be read to their end.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Whether the disk has that block at all.
    fn load(&mut self, file: &impl Blocks, start: u64) -> io::Result<bool> {
        self.block.resize((self.length - start).min(BLOCK) as usize, 0);
        self.loaded = None;
        match file.read_at(&mut self.block, start) {
            Ok(read) => {
                self.block.truncate(read);
                self.loaded = Some(start);
                Ok(true)
            }
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn skip_block(&mut self, start: u64) {
        self.damaged += 1;
        self.partial = None;
        self.at = start + BLOCK;
    }
}

/// Add a fragment; the frame where it is the last of one.
fn join(partial: &mut Option<Frame>, fragment: &Fragment<'_>) -> Option<Frame> {
    if fragment.first {
        *partial = Some(Frame { kind: fragment.kind, seq: fragment.seq, payload: fragment.payload.to_vec() });
    } else {
        let frame = partial.as_mut().filter(|frame| frame.seq == fragment.seq && frame.kind == fragment.kind);
        match frame {
            Some(frame) => frame.payload.extend(fragment.payload),
            // The rest of a frame whose beginning is lost.
            None => *partial = None,
        }
    }
    if fragment.last { partial.take() } else { None }
}

/// The disk will not give these bytes again. Anything else (no memory, no descriptor) may be better at the next try, and
/// must not be told as a loss.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENODATA | libc::EBADMSG | libc::EUCLEAN | libc::ENOENT))
}
