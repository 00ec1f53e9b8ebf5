//! The bytes of what a segment holds.
//!
//! A segment is a row of blocks of [`BLOCK`] bytes. A frame (a record, a gap or the end) is cut into fragments, none of
//! which crosses a block, so that a damaged length costs the rest of its block and never the rest of the file. The
//! checksum of a fragment covers the segment's salt and the fragment's own offset: bytes of another file, or of another
//! place in this one, never pass for it.
//!
//! | offset | bytes | fragment |
//! |---|---|---|
//! | 0 | 4 | CRC32C of salt, offset of the fragment in the file, and everything below |
//! | 4 | 2 | length of the payload |
//! | 6 | 1 | kind: 1 record, 2 gap, 3 end |
//! | 7 | 1 | bit 0: first of its frame, bit 1: last of its frame |
//! | 8 | 8 | sequence: of the record, first of the gap, or the next to be given out |
//! | 16 | | payload |

use super::Reason;

/// Damage is contained in so many bytes.
pub(super) const BLOCK: u64 = 4096;
/// What precedes the payload of a fragment.
const HEAD: usize = 16;
/// With less than this left, a block is filled with zeros: a fragment has at least a byte of payload, or is an end.
const LEAST: usize = HEAD + 1;
const FIRST: u8 = 1;
const LAST: u8 = 2;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Record = 1,
    Gap = 2,
    End = 3,
}

impl Kind {
    fn from_code(code: u8) -> Option<Kind> {
        [Kind::Record, Kind::Gap, Kind::End].into_iter().find(|kind| *kind as u8 == code)
    }
}

/// A frame on its way to a file; kept in memory until the disk has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) seq: i64,
    pub(super) payload: Vec<u8>,
}

/// Numbers that will never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) bytes: u64,
    pub(super) reason: Reason,
}

impl Frame {
    pub(super) fn record(seq: i64, payload: Vec<u8>) -> Frame {
        Frame { kind: Kind::Record, seq, payload }
    }

    pub(super) fn gap(lost: &Lost) -> Frame {
        let mut payload = lost.to.to_le_bytes().to_vec();
        payload.extend(lost.bytes.to_le_bytes());
        payload.push(lost.reason.code());
        Frame { kind: Kind::Gap, seq: lost.from, payload }
    }

    pub(super) fn end(next: i64) -> Frame {
        Frame { kind: Kind::End, seq: next, payload: Vec::new() }
    }

    /// The gap that this frame is.
    pub(super) fn as_gap(&self) -> Option<Lost> {
        let (to, rest) = self.payload.split_first_chunk::<8>()?;
        let (bytes, rest) = rest.split_first_chunk::<8>()?;
        let lost = Lost {
            from: self.seq,
            to: i64::from_le_bytes(*to),
            bytes: u64::from_le_bytes(*bytes),
            reason: Reason::from_code(*rest.first()?)?,
        };
        (self.kind == Kind::Gap && lost.from <= lost.to).then_some(lost)
    }

    /// The last number that it tells of.
    pub(super) fn last(&self) -> i64 {
        self.as_gap().map_or(self.seq, |lost| lost.to)
    }

    /// The most bytes that it takes in a file, wherever it begins.
    pub(super) fn cost(&self) -> u64 {
        let room = BLOCK - HEAD as u64;
        let fragments = self.payload.len() as u64 / room + 2;
        self.payload.len() as u64 + fragments * HEAD as u64 + LEAST as u64
    }

    /// Append it to `out`, whose first byte stands at `start` in the file.
    pub(super) fn encode(&self, salt: u64, start: u64, out: &mut Vec<u8>) {
        let mut rest = self.payload.as_slice();
        let mut flags = FIRST;
        loop {
            let mut at = start + out.len() as u64;
            let mut left = (BLOCK - at % BLOCK) as usize;
            if left < LEAST {
                out.resize(out.len() + left, 0);
                at += left as u64;
                left = BLOCK as usize;
            }
            let (piece, after) = rest.split_at(rest.len().min(left - HEAD));
            rest = after;
            if rest.is_empty() {
                flags |= LAST;
            }
            let head = out.len();
            out.extend([0; 4]);
            out.extend((piece.len() as u16).to_le_bytes());
            out.extend([self.kind as u8, flags]);
            out.extend(self.seq.to_le_bytes());
            out.extend(piece);
            let sum = checksum(salt, at, &out[head + 4..]);
            out[head..head + 4].copy_from_slice(&sum.to_le_bytes());
            if flags & LAST != 0 {
                return;
            }
            flags = 0;
        }
    }
}

/// One fragment as it stands in a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fragment<'a> {
    pub(super) kind: Kind,
    pub(super) first: bool,
    pub(super) last: bool,
    pub(super) seq: i64,
    pub(super) payload: &'a [u8],
    /// Where the next one begins in the block.
    pub(super) end: usize,
}

/// What stands at a place of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Fragment(Fragment<'a>),
    /// Nothing more in this block.
    End,
    /// Bytes that are no fragment: torn or damaged. The rest of the block means nothing.
    Bad,
}

/// Read what stands at `position` of `block`, which begins at `start` in the file and may be cut short by its end.
pub(super) fn parse(block: &[u8], position: usize, start: u64, salt: u64) -> Parsed<'_> {
    let rest = block.get(position..).unwrap_or_default();
    if rest.is_empty() || BLOCK as usize - position < LEAST {
        return Parsed::End;
    }
    fragment(rest, position, start, salt).map_or(Parsed::Bad, Parsed::Fragment)
}

fn fragment(rest: &[u8], position: usize, start: u64, salt: u64) -> Option<Fragment<'_>> {
    let (sum, body) = rest.split_first_chunk::<4>()?;
    let length = u16::from_le_bytes(body.get(..2)?.try_into().ok()?) as usize;
    let covered = body.get(..HEAD - 4 + length)?;
    if checksum(salt, start + position as u64, covered) != u32::from_le_bytes(*sum) {
        return None;
    }
    let flags = covered[3];
    Some(Fragment {
        kind: Kind::from_code(covered[2])?,
        first: flags & FIRST != 0,
        last: flags & LAST != 0,
        seq: i64::from_le_bytes(covered[4..12].try_into().ok()?),
        payload: &covered[12..],
        end: position + HEAD + length,
    })
}

fn checksum(salt: u64, at: u64, bytes: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &at.to_le_bytes());
    crc32c::crc32c_append(seed, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_at_any_offset_costs_no_more_than_it_says_and_never_crosses_a_block() {
        for length in [0usize, 1, 15, 16, 17, 100, 4063, 4064, 4079, 4080, 4081, 8160, 8161, 20_000] {
            for start in (4096..8192).step_by(7).chain(8170..8192) {
                let frame = Frame::record(7, vec![b'x'; length]);
                let mut out = Vec::new();
                frame.encode(9, start, &mut out);
                assert!(out.len() as u64 <= frame.cost(), "{length} bytes at {start} took {}", out.len());
                assert_eq!(read(&out, start, 9), Some(frame));
                assert_eq!(read(&out, start, 8), None, "another salt");
                assert_eq!(read(&out, start + BLOCK, 9), None, "another place");
            }
        }
    }

    /// The one frame of `bytes`.
    fn read(bytes: &[u8], start: u64, salt: u64) -> Option<Frame> {
        let mut image = vec![0; (start % BLOCK) as usize];
        image.extend(bytes);
        let mut position = (start % BLOCK) as usize;
        let mut payload = Vec::new();
        for (number, block) in image.chunks(BLOCK as usize).enumerate() {
            let block_start = start - start % BLOCK + number as u64 * BLOCK;
            loop {
                match parse(block, position, block_start, salt) {
                    Parsed::Fragment(fragment) => {
                        payload.extend(fragment.payload);
                        position = fragment.end;
                        if fragment.last {
                            return Some(Frame { kind: fragment.kind, seq: fragment.seq, payload });
                        }
                    }
                    Parsed::End => break,
                    Parsed::Bad => return None,
                }
            }
            position = 0;
        }
        None
    }
}
