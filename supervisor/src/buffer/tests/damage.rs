//! Any bytes: flipped, cut, foreign, newer.

use std::collections::BTreeMap;

use protocol::session::Class;

use super::world::World;
use super::{SMALL, USUAL};
use crate::buffer::disk::Disk;
use crate::buffer::{Buffer, BufferError, Piece, Reason};

/// A log of that many bytes, and what is in it.
fn log(bytes: usize) -> (World, BTreeMap<i64, Vec<u8>>) {
    let mut world = World::new(9, USUAL);
    let mut length = 0;
    while world.buffer().bytes() < bytes as u64 {
        length = (length * 7 + 131) % 6_000;
        world.append(Class::Logs, length).expect("there is room");
    }
    world.buffer().close().expect("the disk is well");
    let pieces = world.buffer().peek(Class::Logs, 1, usize::MAX).expect("it can be read");
    let records = pieces.into_iter().filter_map(|piece| match piece {
        Piece::Record { seq, bytes } => Some((seq, bytes)),
        Piece::Gap { .. } => None,
    });
    let records = records.collect();
    (world, records)
}

/// Open a damaged disk and read all of it: nothing is altered, all numbers are accounted for, and the next one is new. Answers
/// how many records were lost.
fn survives(world: &World, name: &str, bytes: Vec<u8>, records: &BTreeMap<i64, Vec<u8>>) -> usize {
    let disk = world.disk.copy();
    disk.write(name, bytes);
    let mut buffer = Buffer::open(disk, USUAL, [0; 16]).expect("any bytes can be opened");
    let next = buffer.append(Class::Logs, b"next").expect("there is room");
    assert!(buffer.epoch() != world_epoch(world) || next > *records.keys().last().expect("there are some"));
    let mut at = 1;
    let mut lost = records.len();
    while at <= next {
        let pieces = buffer.peek(Class::Logs, at, usize::MAX).expect("it can be read");
        assert!(!pieces.is_empty(), "{at} is missing");
        for piece in pieces {
            match piece {
                Piece::Record { seq, bytes } => {
                    assert_eq!(seq, at);
                    match seq == next {
                        true => assert_eq!(bytes, b"next"),
                        false => assert_eq!(Some(&bytes), records.get(&seq), "record {seq} was altered"),
                    }
                    lost -= usize::from(seq != next);
                    at = seq + 1;
                }
                Piece::Gap { from, to, .. } => {
                    assert_eq!(from, at);
                    at = to + 1;
                }
            }
        }
    }
    lost
}

fn world_epoch(world: &World) -> String {
    world.buffer.as_ref().expect("it is open").epoch()
}

/// Name and bytes of the one segment.
fn file(world: &World) -> (String, Vec<u8>) {
    world.disk.files().into_iter().find(|(name, _)| name.starts_with("logs")).expect("there is one")
}

/// Every byte of 256 KiB is `just bench link`; here a small log, and each byte of it.
#[test]
fn any_flipped_byte_costs_at_most_the_records_of_its_block() {
    let (world, records) = log(24 * 1024);
    let (name, whole) = file(&world);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let lost = survives(&world, &name, bytes, &records);
        assert!(lost <= 40, "byte {at} cost {lost} records");
        assert!(at >= 4096 || lost == 0, "byte {at} of the header cost {lost} records");
    }
}

#[test]
fn any_length_can_be_read_up_to_there() {
    let (world, records) = log(16 * 1024);
    let (name, whole) = file(&world);
    for length in 0..whole.len() {
        survives(&world, &name, whole[..length].to_vec(), &records);
    }
}

#[test]
fn a_file_that_is_no_segment_is_put_aside_and_its_numbers_are_a_gap() {
    let mut world = World::new(1, SMALL);
    for _ in 0..10 {
        world.append(Class::Lifecycle, 100).expect("there is room");
    }
    world.hello();
    let (name, _) = world.disk.files().into_iter().find(|(name, _)| name.starts_with("lifecycle")).expect("one");
    world.append(Class::Logs, 100).expect("there is room");
    world.disk.write(&name, vec![b'?'; 9000]);
    world.kill();
    assert_eq!(world.buffer().counts().quarantined, 1);
    world.append(Class::Lifecycle, 100).expect("there is room");
    world.kill();
    world.append(Class::Lifecycle, 100).expect("there is room");
    world.deliver_all(Class::Lifecycle);
    assert!(world.lost(Class::Lifecycle, Reason::Damaged) >= 10);
    assert_eq!(world.gateway[Class::Lifecycle as usize].records.len(), 2);
    assert_eq!(world.disk.files().keys().filter(|name| name.ends_with(".bad")).count(), 1);
}

#[test]
fn a_buffer_of_a_later_version_is_refused_and_left_alone() {
    let (world, _) = log(16 * 1024);
    let (name, mut bytes) = file(&world);
    for copy in [0, 2048] {
        bytes[copy + 8] = 2;
        let sum = crc32c::crc32c(&bytes[copy..copy + 88]);
        bytes[copy + 88..copy + 92].copy_from_slice(&sum.to_le_bytes());
    }
    world.disk.write(&name, bytes);
    let before = world.disk.files();
    let refused = Buffer::open(world.disk.clone(), USUAL, [0; 16]).err();
    assert!(matches!(refused, Some(BufferError::Newer { version: 2, .. })), "{refused:?}");
    assert_eq!(world.disk.files(), before);
}

#[test]
fn bytes_that_rot_while_it_runs_are_a_gap_and_what_follows_arrives() {
    let mut world = World::new(6, SMALL);
    for _ in 0..40 {
        world.append(Class::Results, 1_000).expect("there is room");
    }
    world.kill();
    let (name, mut bytes) = world.disk.files().into_iter().find(|(name, _)| name.starts_with("results")).expect("one");
    bytes[8192 + 100] ^= 1;
    world.disk.write(&name, bytes);
    world.append(Class::Results, 1_000).expect("there is room");
    world.deliver_all(Class::Results);
    let lost = world.lost(Class::Results, Reason::Damaged);
    assert!((1..=5).contains(&lost), "{lost}");
    assert_eq!(world.buffer().counts().gaps[&Reason::Damaged], lost as u64);
    assert_eq!(world.gateway[Class::Results as usize].records.len() as i64, 41 - lost);
}

#[test]
fn a_lost_cursor_costs_only_records_that_are_sent_again() {
    let mut world = World::new(7, SMALL);
    for _ in 0..10 {
        world.append(Class::Lifecycle, 100).expect("there is room");
    }
    world.deliver(Class::Lifecycle, 500, true);
    world.disk.remove("cursor").expect("it is there");
    world.kill();
    let first = world.buffer().peek(Class::Lifecycle, 1, 1).expect("it can be read");
    assert!(matches!(first[..], [Piece::Record { seq: 1, .. }]), "{first:?}");
    world.deliver_all(Class::Lifecycle);
    assert_eq!(world.gateway[Class::Lifecycle as usize].records.len(), 10);
}
