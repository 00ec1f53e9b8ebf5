//! Reopening: what an earlier life left, whatever became of it.
//!
//! No file is changed but those that are put aside. The first number of this life is found from the newest file of each
//! class alone:
//!
//! 1. It ends with an end: the number that this says.
//! 2. The same kernel still runs, every fragment is whole to the file's last byte, and a sync of it succeeds: everything that was
//!    written is there, so the number after its last. (While a kernel runs no file becomes shorter by itself; where a
//!    block could not be written, something else than a frame stands in its place.)
//! 3. Anything else: behind all numbers that the file could have held ([`SPAN`]). Some of them may have been told. They
//!    become a gap, `crash`.
//!
//! The names that are found are synced before anything is told: a process may have been killed before it had done that.
//!
//! A file without a whole header is put aside; its name still says which numbers it could have held.

use std::collections::VecDeque;
use std::io;

use protocol::session::Class;

use super::cursor::Cursor;
use super::disk::{Blocks, Disk};
use super::ground::{Counts, Ground};
use super::header::{Header, Name, NotAHeader, aside};
use super::lane::Lane;
use super::record::{BLOCK, Kind, Lost};
use super::scan::{Scan, is_gone};
use super::segment::{SPAN, Segment};
use super::{Buffer, BufferError, Limits, Reason};
use peer::random;

/// Damaged files that are kept for whoever wants to look at them.
const ASIDE: usize = 4;

/// A file that was put aside.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    pub(super) name: String,
    pub(super) class: Class,
    pub(super) ordinal: u64,
    pub(super) bytes: u64,
    base: i64,
}

struct Found<F> {
    name: String,
    parsed: Name,
    file: Option<F>,
    length: u64,
    header: Option<Header>,
}

/// Where the newest file of a class ends.
struct Tail {
    /// The first number that no file tells of.
    after: i64,
    next: i64,
    reason: Reason,
    /// It says so itself.
    ended: bool,
}

impl<D: Disk> Buffer<D> {
    /// Open what is in `disk`. `boot` is the kernel's boot id, zeros where it is not known. Fails only where the disk cannot be
    /// read at all, or where a later program wrote to it; then nothing was changed.
    pub fn open(disk: D, limits: Limits, boot: [u8; 16]) -> Result<Buffer<D>, BufferError> {
        let mut found = look(&disk)?;
        found.sort_by_key(|found| found.parsed.ordinal);
        let ordinal = found.last().map_or(1, |last| last.parsed.ordinal + 1);
        let epoch = found.iter().rev().find_map(|found| found.header.as_ref()).map(|header| header.epoch);
        let epoch = epoch.unwrap_or_else(random_epoch);
        let (cursor, acked) = Cursor::open(&disk, &epoch);
        let mut ground = Ground { disk, limits, epoch, boot, ordinal, counts: Counts::default() };
        let mut files: [Vec<Found<D::File>>; 4] = Default::default();
        let mut put_aside = Vec::new();
        for one in found {
            let lane = &mut files[one.parsed.class as usize];
            match one.parsed.bad || !belongs(&one, &epoch, lane.last().and_then(|last| last.header.as_ref())) {
                true => put_aside.push(lay_aside(&mut ground, one)),
                false => lane.push(one),
            }
        }
        let mut lanes = Vec::with_capacity(Class::ALL.len());
        for (class, files) in Class::ALL.into_iter().zip(files) {
            lanes.push(lane(&mut ground, class, files, acked[class as usize], &put_aside)?);
        }
        if lanes.iter().any(|lane| !lane.segments.is_empty()) {
            let named = ground.disk.sync();
            ground.synced(&named);
            lanes.iter_mut().for_each(|lane| lane.unnamed = named.is_err() && !lane.segments.is_empty());
        }
        for lane in &mut lanes {
            // What an earlier life could not remove.
            lane.acknowledge(&mut ground, lane.acked);
        }
        let lanes = lanes.try_into().map_err(|_| BufferError::Closed)?;
        let mut buffer = Buffer { ground, lanes, cursor, aside: put_aside, closed: false };
        while buffer.aside.len() > ASIDE && buffer.drop_aside() {}
        Ok(buffer)
    }
}

/// All segments, with the headers that can be read.
fn look<D: Disk>(disk: &D) -> Result<Vec<Found<D::File>>, BufferError> {
    let names = disk.list().map_err(|source| BufferError::List { source })?;
    let mut found = Vec::new();
    for name in names {
        let Some(parsed) = Name::parse(&name) else { continue };
        let read = (|| {
            let file = disk.open(&name)?;
            let mut block = vec![0; BLOCK as usize];
            let read = if parsed.bad { 0 } else { file.read_at(&mut block, 0)? };
            block.truncate(read);
            let length = file.length()?;
            Ok((file, block, length))
        })();
        let (file, block, length) = match read {
            Ok((file, block, length)) => (Some(file), block, length),
            Err(error) if is_gone(&error) || is_no_file(&error) => (None, Vec::new(), 0),
            Err(source) => return Err(BufferError::File { file: name, action: "read", source }),
        };
        let header = match Header::decode(&block) {
            Ok(header) => Some(header),
            Err(NotAHeader::Newer(version)) => return Err(BufferError::Newer { file: name, version }),
            Err(NotAHeader::Damaged) => None,
        };
        found.push(Found { name, parsed, file, length, header });
    }
    Ok(found)
}

/// A link, a folder or a pipe has a segment's name.
fn is_no_file(error: &io::Error) -> bool {
    let code = matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO));
    code || error.kind() == io::ErrorKind::InvalidInput
}

/// Whether a file is one of this log, where its name says it is, after `previous`.
fn belongs<F>(found: &Found<F>, epoch: &[u8; 16], previous: Option<&Header>) -> bool {
    found.header.as_ref().is_some_and(|header| {
        let named = header.class == found.parsed.class && header.name() == found.name;
        let later = previous.is_none_or(|previous| previous.from <= header.from && previous.base <= header.base);
        named && header.epoch == *epoch && later
    })
}

fn lay_aside<D: Disk>(ground: &mut Ground<D>, found: Found<D::File>) -> Aside {
    let Name { class, ordinal, base, bad } = found.parsed;
    let mut name = found.name;
    if !bad {
        ground.counts.quarantined += 1;
        let kept = aside(&name);
        // Where that fails the next start tries again; its numbers are safe either way.
        if ground.disk.rename(&name, &kept).is_ok() {
            name = kept;
        }
    }
    Aside { name, class, ordinal, bytes: found.length.next_multiple_of(BLOCK), base }
}

fn lane<D: Disk>(
    ground: &mut Ground<D>,
    class: Class,
    mut files: Vec<Found<D::File>>,
    acked: i64,
    put_aside: &[Aside],
) -> Result<Lane<D::File>, BufferError> {
    let newest = files.pop();
    let mut segments: VecDeque<Segment> = files.into_iter().filter_map(|found| segment(&found)).collect();
    let mut tail = Tail { after: acked + 1, next: acked + 1, reason: Reason::Crash, ended: true };
    let mut ordinal = 0;
    if let Some((last, file)) = newest.and_then(|mut found| Some((segment(&found)?, found.file.take()?))) {
        tail = read_tail(ground, &last, file)?;
        ordinal = last.header.ordinal;
        segments.push_back(last);
    }
    for bad in put_aside.iter().filter(|bad| bad.class == class && bad.ordinal > ordinal) {
        if bad.base + SPAN > tail.next {
            tail = Tail { next: bad.base + SPAN, reason: Reason::Damaged, ..tail };
        }
    }
    let next = tail.next.max(acked + 1);
    let pending = (tail.after < next).then_some(Lost { from: tail.after, to: next - 1, bytes: 0, reason: tail.reason });
    if let Some(lost) = &pending {
        ground.count(lost.reason, lost.to - lost.from + 1);
    }
    Ok(Lane {
        class,
        next,
        pending,
        acked,
        segments,
        active: None,
        ended: tail.ended,
        unnamed: false,
        doubtful: Vec::new(),
        evicted: 0,
        place: None,
        damaged: 0,
    })
}

fn segment<F>(found: &Found<F>) -> Option<Segment> {
    let header = found.header.clone()?;
    Some(Segment { header, name: found.name.clone(), length: found.length, reserved: 0, payload: 0 })
}

fn read_tail<D: Disk>(ground: &mut Ground<D>, last: &Segment, mut file: D::File) -> Result<Tail, BufferError> {
    let mut scan = Scan::new(last.header.salt, BLOCK, last.length);
    let mut after = last.header.base;
    let mut end = None;
    while let Some(frame) = scan.next(&file).map_err(|source| last.failed("read", source))? {
        end = (frame.kind == Kind::End).then_some(frame.seq);
        if frame.kind != Kind::End && frame.last() < last.limit() {
            after = after.max(frame.last() + 1);
        }
    }
    // Best effort: room that it took in advance, and no longer needs.
    let _ = file.trim();
    // A process that was killed while it wrote leaves whole fragments of a last frame without its end. That one was never
    // told, since its write never returned.
    let whole = scan.damaged() == 0 && last.length >= BLOCK;
    if let Some(next) = end.filter(|next| scan.boundary() == last.length && (after..=last.limit()).contains(next)) {
        return Ok(Tail { after, next, reason: Reason::Damaged, ended: true });
    }
    // Also what the last life wrote and had no time to sync.
    let result = file.sync();
    ground.synced(&result);
    let known = ground.boot != [0; 16] && ground.boot == last.header.boot && whole && result.is_ok();
    Ok(Tail { after, next: if known { after } else { last.limit() }, reason: Reason::Crash, ended: false })
}

fn random_epoch() -> [u8; 16] {
    (u128::from(random::bits()) << 64 | u128::from(random::bits())).to_le_bytes()
}
