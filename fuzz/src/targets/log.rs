//! The buffer's files: changed anywhere, or with others in their place, and that also with checksums that are right, as they are where
//! somebody knows the format.
//!
//! An input's first byte says what becomes of a log that our own code has written, by the flags below, and the rest is that. Whatever the
//! files are then: numbers are in order, each once, a record or in a gap; the log takes records; and what one life told is told by the
//! next one too, or was acknowledged. Where checksums are those of our own code, what comes out is what went in, damage costs nothing in
//! files that it has not touched, and no number is given out again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::LazyLock;

use protocol::session::Class;
use supervisor::buffer::{Buffer, BufferError, Limits, Piece, Reason};
use tests::memory_disk::MemoryDisk;

use crate::Target;

mod format;

pub(crate) const TARGET: Target = Target { name: "log", longest: 12 * 1024, run, seeds };

/// The rest is which file, and what stands in its place. Else each five bytes change one: which, where (two) and what (two).
const WHOLE: u8 = 1;
/// All checksums are right afterwards, and names are those of the headers. A whole segment is [`format::packed`].
const MENDED: u8 = 2;
/// Another kernel opens it.
const REBOOTED: u8 = 4;
/// The life that opens it comes to its end by itself. Else it is killed.
const CLOSED: u8 = 8;

const LIMITS: Limits = Limits { size: Limits::LEAST, reserve: 256 * 1024 };
const KERNELS: [[u8; 16]; 2] = [[7; 16], [8; 16]];
const EPOCH: [u8; 16] = [5; 16];
/// Read at a time: less than there is.
const READ: usize = 2048;
/// The record of each life after that.
const ADDED: &[u8] = b"\"added\"";
/// No header may have a number beyond this, so nothing is held of a log that was brought there.
const MOST: i64 = i64::MAX / 4;

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;
/// Records by number.
type Records = BTreeMap<i64, Vec<u8>>;

/// A log as our own code writes it, the same in every process, and its records by class.
static GROUND: LazyLock<Ground> = LazyLock::new(Ground::new);

#[derive(Default)]
struct Ground {
    files: Files,
    records: [Records; 4],
}

impl Ground {
    /// Of two lives: two classes have a second file, with a gap before it. The second one was killed, so these do not say where they end.
    fn new() -> Ground {
        let (disk, mut ground) = (MemoryDisk::default(), Ground::default());
        let open = || Buffer::open(disk.clone(), LIMITS, KERNELS[0]).expect("a disk of our own");
        let mut buffer = open();
        ground.write(&mut buffer, Class::Lifecycle, &[40, 300, 900]);
        ground.write(&mut buffer, Class::Results, &[100, 4500, 60]);
        ground.write(&mut buffer, Class::Metrics, &[0, 20, 200]);
        ground.write(&mut buffer, Class::Logs, &[50, 50, 3000, 1200]);
        buffer.lose(Class::Results, 3, 42, Reason::Budget);
        ground.write(&mut buffer, Class::Results, &[70]);
        for (class, seq) in [(Class::Lifecycle, 1), (Class::Logs, 2)] {
            buffer.acknowledge(class, seq).expect("it was given out");
        }
        buffer.close().expect("memory does not refuse");
        let mut buffer = open();
        buffer.lose(Class::Lifecycle, 2, 10, Reason::Disk);
        ground.write(&mut buffer, Class::Lifecycle, &[500]);
        ground.write(&mut buffer, Class::Results, &[200]);
        buffer.acknowledge(Class::Metrics, 1).expect("it was given out");
        ground.files = disk.0.take();
        for ((name, file), salt) in ground.files.iter_mut().zip(1..) {
            let written = file.clone();
            format::mend(name, file);
            assert!(*file == written, "{name}: the supervisor writes other checksums than the format has");
            format::settle(name, file, EPOCH, salt);
        }
        ground
    }

    fn write(&mut self, buffer: &mut Buffer<MemoryDisk>, class: Class, lengths: &[usize]) {
        let records = &mut self.records[class as usize];
        for length in lengths {
            let text = format!("{} {} ", class.name(), records.len());
            let record: Vec<u8> = text.bytes().cycle().take(*length).collect();
            records.insert(buffer.append(class, &record).expect("there is room"), record);
        }
    }
}

fn run(data: &[u8]) {
    let (how, rest) = data.split_first().map_or((0, data), |(how, rest)| (*how, rest));
    let files = changed(how, rest);
    let untouched = Class::ALL.map(|class| of(class, &files).eq(of(class, &GROUND.files)));
    let disk = MemoryDisk(Rc::new(RefCell::new(files)));
    let mut buffer = match Buffer::open(disk.clone(), LIMITS, kernel(how)) {
        Ok(buffer) => buffer,
        Err(BufferError::Newer { .. }) => {
            assert!(*disk.0.borrow() == changed(how, rest), "a log of a later version is left alone");
            return;
        }
        Err(error) => panic!("any bytes can be opened: {error}"),
    };
    let told = Class::ALL.map(|class| tell(&mut buffer, class));
    if how & (WHOLE | MENDED) == 0 {
        for ((told, written), untouched) in told.iter().zip(&GROUND.records).zip(untouched) {
            hold_written(told, written, untouched, how & REBOOTED != 0);
        }
    }
    if told.iter().all(|told| told.added <= MOST) {
        hold_next_life(buffer, &disk, how, &told);
    }
}

fn kernel(how: u8) -> [u8; 16] {
    KERNELS[usize::from(how & REBOOTED != 0)]
}

/// The segments of a class.
fn of(class: Class, files: &Files) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    files.iter().filter(move |(name, _)| name.starts_with(class.name()))
}

/// The ground after what an input does to it.
fn changed(how: u8, rest: &[u8]) -> Files {
    let mut files = GROUND.files.clone();
    if how & WHOLE == 0 {
        for &[which, high, low, what, value] in rest.as_chunks::<5>().0 {
            damage(file(&mut files, which).1, usize::from(u16::from_be_bytes([high, low])), what, value);
        }
    } else if let Some((which, bytes)) = rest.split_first() {
        let (name, file) = file(&mut files, *which);
        let is_packed = how & MENDED != 0 && name != format::CURSOR;
        *file = if is_packed { format::unpacked(bytes) } else { bytes.to_vec() };
    }
    if how & MENDED == 0 { files } else { mended(files) }
}

fn file(files: &mut Files, which: u8) -> (&String, &mut Vec<u8>) {
    let which = usize::from(which) % files.len();
    files.iter_mut().nth(which).expect("there are so many")
}

fn damage(file: &mut Vec<u8>, at: usize, what: u8, value: u8) {
    let at = at % (file.len() + 1);
    match what {
        0 => file.truncate(at),
        1 => file.insert(at, value),
        what => {
            if let Some(byte) = file.get_mut(at) {
                *byte = if what % 2 == 0 { value } else { *byte ^ value };
            }
        }
    }
}

/// With right checksums, under the names that their headers say.
fn mended(files: Files) -> Files {
    let mend = |(name, mut file): (String, Vec<u8>)| {
        format::mend(&name, &mut file);
        let named = if name == format::CURSOR { None } else { format::name(&file) };
        (named.unwrap_or(name), file)
    };
    files.into_iter().map(mend).collect()
}

/// What a life tells of a class.
struct Told {
    /// The first number that is not acknowledged.
    first: i64,
    /// The newest, of a record that this life took.
    added: i64,
    records: Records,
}

/// Let it take one record more, and tell all that it has.
fn tell(buffer: &mut Buffer<MemoryDisk>, class: Class) -> Told {
    let added = buffer.append(class, ADDED).expect("there is room");
    let first = buffer.extents().get(&class).expect("it has one at least").first_unacked;
    let (mut at, mut records) = (first, Records::new());
    while at <= added {
        let pieces = buffer.peek(class, at, READ).expect("memory does not refuse");
        assert!(!pieces.is_empty(), "number {at} of {first} to {added} is neither record nor gap");
        let alone = pieces.len() == 1;
        let mut bytes_read = 0;
        for piece in pieces {
            let (from, to) = match &piece {
                Piece::Record { seq, .. } => (*seq, *seq),
                Piece::Gap { from, to, .. } => (*from, *to),
            };
            assert!(from == at && to >= from, "{from} to {to} came where {at} was expected");
            at = to + 1;
            if let Piece::Record { seq, bytes } = piece {
                bytes_read += bytes.len();
                records.insert(seq, bytes);
            }
        }
        assert!(alone || bytes_read <= READ, "{bytes_read} bytes were read, of {READ} at most");
    }
    assert_eq!(at, added + 1, "numbers were told that were not given out");
    assert_eq!(records.get(&added).map(Vec::as_slice), Some(ADDED), "the record that was added");
    assert!(buffer.bytes() <= LIMITS.size, "{} bytes are more than it may hold", buffer.bytes());
    Told { first, added, records }
}

/// Nobody else has written anything whose checksum is right.
fn hold_written(told: &Told, written: &Records, untouched: bool, rebooted: bool) {
    for (seq, bytes) in told.records.range(..told.added) {
        assert_eq!(written.get(seq), Some(bytes), "record {seq} was altered");
    }
    if untouched {
        let lost = written.range(told.first..).find(|(seq, _)| !told.records.contains_key(seq));
        assert_eq!(lost, None, "its files are whole");
    }
    // A file that is cut at the end of a record while the kernel goes on is not seen.
    if untouched || rebooted {
        assert!(written.keys().all(|seq| *seq < told.added), "{} was given out twice", told.added);
    }
}

/// Acknowledge half of it, and open what it leaves.
fn hold_next_life(mut buffer: Buffer<MemoryDisk>, disk: &MemoryDisk, how: u8, told: &[Told; 4]) {
    let half = |told: &Told| (told.first + (told.added - told.first) / 2).min(told.added - 1);
    for (class, told) in Class::ALL.into_iter().zip(told) {
        buffer.acknowledge(class, half(told)).expect("it was given out");
    }
    if how & CLOSED != 0 {
        buffer.close().expect("memory does not refuse");
    }
    drop(buffer);
    let mut buffer = Buffer::open(disk.clone(), LIMITS, kernel(how)).expect("it could be opened before");
    for (class, told) in Class::ALL.into_iter().zip(told) {
        let again = tell(&mut buffer, class);
        assert!(again.added > told.added, "{} was given out twice", again.added);
        for (seq, bytes) in told.records.range(again.first.max(half(told) + 1)..) {
            assert_eq!(again.records.get(seq), Some(bytes), "record {seq} was told before");
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    // A gap to the last number that there is.
    let ends = (132..140).map(|at| [5, 34, at, 2, if at == 139 { 127 } else { 255 }]);
    let forever: Vec<u8> = std::iter::once(MENDED).chain(ends.flatten()).collect();
    // In the order of their names: 0 is the cursor, then two files of lifecycle, one of logs, one of metrics, two of results.
    let few = [
        vec![],
        vec![REBOOTED],
        vec![CLOSED],
        // In a record, in the second block of one, and a byte too many.
        vec![0, 3, 16, 40, 2, 77, 5, 32, 9, 3, 255, 4, 16, 30, 1, 0],
        // A cut, a header that is lost in both places, the newest slot.
        vec![REBOOTED, 5, 20, 0, 0, 0, 6, 0, 8, 3, 1, 6, 8, 8, 3, 1, 0, 2, 24, 3, 1],
        // A class that says where it ends says so no more.
        vec![CLOSED, 4, 17, 12, 0, 0],
        // Where a file begins, the length of a fragment, its kind, its flags, its number.
        vec![MENDED, 2, 0, 72, 2, 90],
        vec![MENDED, 5, 16, 4, 2, 9],
        vec![MENDED | REBOOTED, 5, 16, 6, 2, 3],
        vec![MENDED | CLOSED, 5, 16, 7, 2, 1],
        vec![MENDED, 5, 16, 8, 2, 200],
        // The end of a gap, behind records that follow it.
        vec![MENDED, 5, 34, 132, 2, 200],
        forever,
        // Acknowledged, and never given out.
        vec![MENDED | CLOSED, 0, 2, 25, 2, 3],
        // Another class, another epoch, a later version in both places.
        vec![MENDED, 4, 0, 12, 2, 1],
        vec![MENDED, 6, 0, 16, 2, 1],
        vec![MENDED, 1, 0, 8, 2, 2, 1, 8, 8, 2, 2],
    ];
    let files = GROUND.files.iter().zip(0_u8..);
    let whole = files.clone().map(|((_, file), which)| [&[WHOLE, which][..], file].concat());
    let mended = files.map(|((name, file), which)| {
        let file = if name == format::CURSOR { file.clone() } else { format::packed(file) };
        [&[WHOLE | MENDED, which][..], &file].concat()
    });
    few.into_iter().chain(whole).chain(mended).collect()
}
