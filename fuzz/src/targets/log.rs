//! The buffer's files, changed anywhere.
//!
//! An input damages a log that our own code has written: for each five bytes, where (three) and what (two). Whatever comes out then is
//! what went in, or a gap; numbers are in order, each once; and the log takes records again. An input that begins with 255 is a whole
//! file instead.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use protocol::session::Class;
use supervisor::buffer::{Buffer, Limits, Piece};
use tests::memory_disk::MemoryDisk;

use crate::Target;

pub(crate) const TARGET: Target = Target { name: "log", longest: 20 * 1024, run, seeds };

const LIMITS: Limits = Limits { size: Limits::LEAST, reserve: 256 * 1024 };
const BOOT: [u8; 16] = [7; 16];

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// A log as our own code writes it, and its records.
static WRITTEN: LazyLock<(Files, BTreeMap<i64, Vec<u8>>)> = LazyLock::new(|| {
    let memory = MemoryDisk::default();
    let mut buffer = Buffer::open(memory.clone(), LIMITS, BOOT).expect("an empty disk");
    let mut records = BTreeMap::new();
    for number in 0..24_usize {
        let record = format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat(number * 37 % 900)).into_bytes();
        records.insert(buffer.append(Class::Lifecycle, &record).expect("there is room"), record);
    }
    buffer.close().expect("memory does not refuse");
    (memory.0.borrow().clone(), records)
});

fn run(data: &[u8]) {
    let (files, records) = &*WRITTEN;
    let memory = MemoryDisk::default();
    *memory.0.borrow_mut() = files.clone();
    let whole = data.strip_prefix(&[255]);
    for file in memory.0.borrow_mut().values_mut() {
        match whole {
            Some(bytes) => *file = bytes.to_vec(),
            None => data.chunks_exact(5).for_each(|change| damage(file, change)),
        }
    }
    // A log of a later version is refused, and left alone.
    let Ok(mut buffer) = Buffer::open(memory, LIMITS, BOOT) else { return };
    let added = buffer.append(Class::Lifecycle, b"\"added\"").expect("there is room");
    let first = buffer.extents().get(&Class::Lifecycle).map_or(1, |extent| extent.first_unacked);
    let mut at = first;
    while at <= added {
        let pieces = buffer.peek(Class::Lifecycle, at, 64 * 1024).expect("memory does not refuse");
        assert!(!pieces.is_empty(), "number {at} of {first} to {added} is neither record nor gap");
        for piece in pieces {
            let (from, to) = match &piece {
                Piece::Record { seq, .. } => (*seq, *seq),
                Piece::Gap { from, to, .. } => (*from, *to),
            };
            assert!(from == at && to >= from, "{from} to {to} came where {at} was expected");
            at = to + 1;
            if let Piece::Record { seq, bytes } = piece
                && whole.is_none()
                && seq != added
            {
                assert_eq!(Some(&bytes), records.get(&seq), "record {seq} was altered");
            }
        }
    }
}

fn damage(file: &mut Vec<u8>, change: &[u8]) {
    let at = usize::from(change[0]) << 16 | usize::from(change[1]) << 8 | usize::from(change[2]);
    let at = at % (file.len() + 1);
    match change[3] {
        0 => file.truncate(at),
        1 => drop(file.splice(at..at, [change[4]])),
        how => {
            if let Some(byte) = file.get_mut(at) {
                *byte = if how % 2 == 0 { change[4] } else { *byte ^ change[4] };
            }
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let whole = WRITTEN.0.values().next().map(|bytes| [&[255][..], bytes].concat());
    [vec![], vec![0, 16, 9, 2, 77], vec![0, 20, 0, 0, 0], vec![0, 0, 8, 1, 1, 0, 17, 0, 3, 255]]
        .into_iter()
        .chain(whole)
        .collect()
}
