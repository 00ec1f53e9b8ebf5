//! A buffer that the first version wrote, kept for ever: what it holds must always arrive.

use std::path::PathBuf;

use protocol::session::Class;

use super::USUAL;
use super::disk::Simulated;
use crate::buffer::disk::Directory;
use crate::buffer::{Buffer, Piece, Reason};

const EPOCH_LENGTH: usize = 32;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/buffer-1")
}

#[test]
fn a_buffer_of_the_first_version_loads_for_ever() {
    let disk = Simulated::new(1, 512);
    for entry in folder().read_dir().expect("the fixture").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        disk.write(&name, std::fs::read(entry.path()).expect("a file"));
    }
    let mut buffer = Buffer::open(disk, USUAL, [2; 16]).expect("it loads");
    assert_eq!(buffer.epoch().len(), EPOCH_LENGTH);
    let record = |seq, bytes: &[u8]| Piece::Record { seq, bytes: bytes.to_vec() };
    let lifecycle = buffer.peek(Class::Lifecycle, 1, usize::MAX).expect("it can be read");
    // 1 and 2 are acknowledged; the last life ended without a word, on another kernel.
    let expected = [
        record(3, b"lifecycle 3"),
        record(4, b"lifecycle 4"),
        record(5, b"lifecycle 5"),
        Piece::Gap { from: 6, to: 8, bytes: 42, reason: Reason::Budget },
        record(9, &[b'x'; 9_000]),
        record(10, b"after"),
        Piece::Gap { from: 11, to: 10 + 65_536 - 1, bytes: 0, reason: Reason::Crash },
    ];
    assert_eq!(lifecycle, expected);
    let results = buffer.peek(Class::Results, 1, usize::MAX).expect("it can be read");
    assert_eq!(results, [record(1, b"results 1"), record(2, b"results 2")]);
    assert_eq!(buffer.append(Class::Results, b"next").expect("there is room"), 3);
}

/// Writes the fixture anew. Only for a change of the format that old buffers survive; they must still load.
#[test]
#[ignore = "writes supervisor/fixtures/buffer-1"]
fn write_the_fixture() {
    let _ = std::fs::remove_dir_all(folder());
    let parent = folder().parent().expect("fixtures").to_owned();
    std::fs::create_dir_all(&parent).expect("fixtures");
    let parent = std::os::fd::OwnedFd::from(std::fs::File::open(parent).expect("fixtures"));
    let open = || {
        let directory = Directory::open(&parent, "buffer-1").expect("a folder");
        Buffer::open(directory, USUAL, [1; 16]).expect("it can be opened")
    };
    let mut buffer = open();
    for number in 1..=5 {
        buffer.append(Class::Lifecycle, format!("lifecycle {number}").as_bytes()).expect("there is room");
    }
    buffer.lose(Class::Lifecycle, 3, 42, Reason::Budget);
    buffer.append(Class::Lifecycle, &[b'x'; 9_000]).expect("there is room");
    for number in 1..=2 {
        buffer.append(Class::Results, format!("results {number}").as_bytes()).expect("there is room");
    }
    buffer.acknowledge(Class::Lifecycle, 2).expect("it was sent");
    buffer.close().expect("the disk is well");
    open().append(Class::Lifecycle, b"after").expect("there is room");
}
