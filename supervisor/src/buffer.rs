//! The offline buffer: every record that the gateway does not have for good, on disk, numbered, within bounds.
//!
//! What it promises:
//!
//! - **Numbers.** Each class counts from 1, on and on across restarts. What was told of a number stays true: it is never
//!   given out again, whatever became of power, process or disk. Losing all files begins a new [`epoch`](Buffer::epoch).
//! - **Loss is data.** Each number is either a record or in a gap that says why: produced = delivered + gaps.
//! - **Durable.** A record is written when [`append`](Buffer::append) returns, which survives the end of every process,
//!   and synced within [`window`], which survives the loss of power.
//!   What the gateway has by then is not synced. When nothing happens, nothing is synced.
//! - **Damage stays small.** Any bytes can be opened. Bytes that are wrong cost the records that touch their block of
//!   4 KiB; they are never delivered, and never fatal.
//! - **Bounded.** All files together stay within [`Limits::size`]; see `room.rs` for what is sacrificed.
//!
//! The core has no clock, no thread and no randomness that matters; its disk is an argument. Its owner says when to
//! sync. The format is in `record.rs`, `header.rs` and `cursor.rs`; `docs/features/buffer.md` tells it as a whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::session::{Class, Extent};

mod config;
mod cursor;
pub mod disk;
mod ground;
mod handle;
mod header;
mod lane;
mod part;
mod read;
mod record;
mod recovery;
mod room;
mod scan;
mod segment;
mod write;

pub use config::Config;
pub use ground::Counts;
pub use handle::Handle;
pub use part::{Part, new};

use cursor::Cursor;
use disk::{Directory, Disk};
use ground::Ground;
use lane::Lane;
use record::{BLOCK, Frame};
use recovery::Aside;

use crate::state::{StateDir, boot_id};

/// The largest record; its frame of the session must fit into one message.
pub const MAX_RECORD: usize = 192 * 1024;
/// So many bytes that the disk may not have are enough.
const MOST_UNSYNCED: u64 = 256 * 1024;
/// Numbers beyond this are a mistake of the other side.
const MOST: i64 = i64::MAX / 4;

/// Why a number is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Sacrificed for what is worth more, or for newer ones of its class.
    Evicted,
    /// It did not fit in when it came.
    Budget,
    /// Its bytes are not what was written.
    Damaged,
    /// The disk refused it.
    Disk,
    /// It may have been lost with power or with a process, or never have been a record.
    Crash,
}

impl Reason {
    /// All.
    pub const ALL: [Reason; 5] = [Reason::Evicted, Reason::Budget, Reason::Damaged, Reason::Disk, Reason::Crash];

    /// The word in frames and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Evicted => "evicted",
            Reason::Budget => "budget",
            Reason::Damaged => "damaged",
            Reason::Disk => "disk",
            Reason::Crash => "crash",
        }
    }

    /// The number in files.
    const fn code(self) -> u8 {
        self as u8 + 1
    }

    fn from_code(code: u8) -> Option<Reason> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// What stands at a number, or at several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A record as it was appended.
    Record {
        /// Its number.
        seq: i64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Numbers that will never come.
    Gap {
        /// First.
        from: i64,
        /// Last.
        to: i64,
        /// Bytes of the records, where that is still known.
        bytes: u64,
        /// Why.
        reason: Reason,
    },
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BufferError {
    #[error("the buffer's files cannot be listed")]
    List { source: io::Error },
    #[error("the kernel's boot id cannot be read")]
    Boot { source: io::Error },
    #[error("the buffer's file {file} cannot be {action}")]
    File { file: String, action: &'static str, source: io::Error },
    #[error(
        "the buffer's file {file} has format {version}, and this program knows 1: run the later one, or move the buffer away"
    )]
    Newer { file: String, version: u32 },
    #[error("a record of {bytes} bytes is larger than {MAX_RECORD}")]
    TooLarge { bytes: usize },
    #[error("the buffer has no room for {}, and nothing that may be sacrificed for it", class.name())]
    Full { class: Class },
    #[error("{seq} of {} was acknowledged, which cannot have been sent", class.name())]
    Ahead { class: Class, seq: i64 },
    #[error("the record {seq} is written, and the disk will not confirm it")]
    Unsynced { seq: i64 },
    #[error("the buffer is closed")]
    Closed,
}

impl BufferError {
    /// The disk has no room.
    fn is_full_disk(&self) -> bool {
        matches!(self, BufferError::File { source, .. } if crate::state::is_full(source))
    }
}

/// How much it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All files together.
    pub size: u64,
    /// Of that, for lifecycle alone.
    pub reserve: u64,
}

impl Limits {
    /// The smallest size that makes sense.
    pub const LEAST: u64 = 1024 * 1024;

    /// How large one file becomes: small enough that sacrificing one is not much.
    fn segment(&self, class: Class) -> u64 {
        let (share, most) = match class {
            Class::Lifecycle => (self.reserve / 4, 1024 * 1024),
            _ => (self.size / 32, 4 * 1024 * 1024),
        };
        share.clamp(64 * 1024, most).next_multiple_of(BLOCK)
    }
}

/// How long a written record may wait for the disk.
pub const fn window(class: Class) -> Duration {
    match class {
        Class::Lifecycle => Duration::from_millis(50),
        _ => Duration::from_millis(200),
    }
}

/// Open the buffer of a state directory. Blocks.
pub fn open(state: &StateDir, config: &Config) -> Result<Buffer<Directory>, BufferError> {
    let directory = Directory::open(state.descriptor(), "buffer").map_err(|source| BufferError::List { source })?;
    let boot = boot_id(Path::new("/proc")).map_err(|source| BufferError::Boot { source })?;
    Buffer::open(directory, config.limits, boot_bytes(&boot))
}

/// The kernel's id is a UUID; zeros where it tells none.
fn boot_bytes(id: &str) -> [u8; 16] {
    u128::from_str_radix(&id.replace('-', ""), 16).unwrap_or_default().to_be_bytes()
}

/// The open buffer. One process at a time; the state directory's lock sees to that.
pub struct Buffer<D: Disk> {
    ground: Ground<D>,
    /// In the order of [`Class::ALL`].
    lanes: [Lane<D::File>; 4],
    cursor: Cursor<D::File>,
    aside: Vec<Aside>,
    closed: bool,
}

impl<D: Disk> Buffer<D> {
    /// Write a record and give it its number. Where that fails its number becomes a gap, but for a record that is too large.
    pub fn append(&mut self, class: Class, bytes: &[u8]) -> Result<i64, BufferError> {
        if self.closed {
            return Err(BufferError::Closed);
        }
        if bytes.len() > MAX_RECORD {
            return Err(BufferError::TooLarge { bytes: bytes.len() });
        }
        let seq = self.lanes[class as usize].next;
        let frame = Frame::record(seq, bytes.to_vec());
        match self.write(class, &frame) {
            Ok(()) => {
                self.lanes[class as usize].next = seq + 1;
                Ok(seq)
            }
            Err(error) => {
                let reason = if matches!(error, BufferError::Full { .. }) { Reason::Budget } else { Reason::Disk };
                self.lose(class, 1, bytes.len() as u64, reason);
                Err(error)
            }
        }
    }

    fn write(&mut self, class: Class, frame: &Frame) -> Result<(), BufferError> {
        self.make_room(class, frame.cost())?;
        while let Err(error) = self.lanes[class as usize].put(&mut self.ground, frame) {
            // Our own files are the room that we can make on a disk that others filled.
            if !error.is_full_disk() || !self.sacrifice(class) {
                return Err(error);
            }
        }
        let lane = &mut self.lanes[class as usize];
        if lane.active.as_ref().is_some_and(|active| active.waiting > MOST_UNSYNCED) {
            // The record is written; a disk that does not sync shows in the counts and at the next sync.
            let _ = lane.sync(&mut self.ground);
        }
        Ok(())
    }

    /// Give out numbers for `count` records that were dropped before they came here.
    pub fn lose(&mut self, class: Class, count: i64, bytes: u64, reason: Reason) {
        if count > 0 && !self.closed {
            self.ground.count(reason, count);
            self.lanes[class as usize].lose(count, bytes, reason);
        }
    }

    /// What stands at `from` and after it, in order and without a hole: at least one piece where there is one, then up to
    /// `max` bytes of records. What is acknowledged is left out.
    pub fn peek(&mut self, class: Class, from: i64, max: usize) -> Result<Vec<Piece>, BufferError> {
        self.settle(class);
        self.lanes[class as usize].peek(&mut self.ground, from, max)
    }

    /// The gateway has everything of `class` up to `seq` for good.
    pub fn acknowledge(&mut self, class: Class, seq: i64) -> Result<(), BufferError> {
        if seq > MOST {
            return Err(BufferError::Ahead { class, seq });
        }
        if seq <= self.lanes[class as usize].acked {
            return Ok(());
        }
        self.lanes[class as usize].acknowledge(&mut self.ground, seq);
        let acked = [0, 1, 2, 3].map(|lane: usize| self.lanes[lane].acked);
        self.cursor.note(&self.ground.epoch, acked);
        Ok(())
    }

    /// What there is of each class that has, or had, anything.
    pub fn extents(&mut self) -> BTreeMap<Class, Extent> {
        Class::ALL.into_iter().for_each(|class| self.settle(class));
        let lanes = self.lanes.iter().filter(|lane| lane.told() > 1);
        lanes.map(|lane| (lane.class, lane.extent())).collect()
    }

    /// The number behind the last of `class` that was found on the disk, or is written, and the one that the next record gets: after a crash
    /// that may be further, over numbers that nobody may have been given. What may not be told yet is among them.
    pub fn next(&self, class: Class) -> (i64, i64) {
        let lane = &self.lanes[class as usize];
        (lane.behind(), lane.next)
    }

    /// The first number of `class` that may not be told yet.
    pub fn told(&self, class: Class) -> i64 {
        self.lanes[class as usize].told()
    }

    /// Names this log: another one begins its numbers anew.
    pub fn epoch(&self) -> String {
        self.ground.epoch.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How long [`sync`](Buffer::sync) of that class may wait from now, if it is due at all.
    pub fn next_sync(&self, class: Class) -> Option<Duration> {
        let lane = &self.lanes[class as usize];
        (lane.is_dirty() || lane.pending.is_some() || lane.unnamed).then_some(window(class))
    }

    /// Make durable what is written of that class. After an error it is due again.
    pub fn sync(&mut self, class: Class) -> Result<(), BufferError> {
        let lane = &mut self.lanes[class as usize];
        // First what is written: a gap that cannot be keeps no record from the disk.
        lane.sync_active(&mut self.ground);
        lane.settle(&mut self.ground)?;
        lane.sync(&mut self.ground)
    }

    /// Make everything durable and note that nothing is missing. Nothing can be appended after it.
    pub fn close(&mut self) -> Result<(), BufferError> {
        self.closed = true;
        let mut first = Ok(());
        for lane in &mut self.lanes {
            // Each of them is tried.
            let ended = lane.end(&mut self.ground);
            first = first.and(ended);
        }
        first
    }

    /// What was counted since it was opened.
    pub fn counts(&self) -> &Counts {
        &self.ground.counts
    }

    /// The disk refuses something that was, or is still to be, written to it.
    pub fn is_degraded(&self) -> bool {
        let refused = |lost: record::Lost| lost.reason == Reason::Disk;
        self.lanes.iter().any(|lane| lane.unnamed || !lane.doubtful.is_empty() || lane.pending.is_some_and(refused))
    }

    /// Bytes on disk, files that were put aside included.
    pub fn bytes(&self) -> u64 {
        let segments = self.lanes.iter().flat_map(|lane| &lane.segments);
        segments.map(segment::Segment::charge).sum::<u64>() + self.aside.iter().map(|aside| aside.bytes).sum::<u64>()
    }

    /// A gap that no file tells of yet is told by none: try again to write it down.
    fn settle(&mut self, class: Class) {
        let lane = &self.lanes[class as usize];
        if (lane.pending.is_some() || lane.unnamed) && !self.closed {
            // Where it cannot be written it stays pending, and is tried again at the next sync.
            let _ = self.lanes[class as usize].settle(&mut self.ground);
        }
    }
}

#[cfg(test)]
mod tests;
