//! The buffer on a simulated disk; see `tests/world.rs` for what is checked at every step.

use protocol::session::Class;

use super::disk::{Blocks, Disk};
use super::segment::SPAN;
use super::{Limits, Reason};

mod damage;
mod disk;
mod fixture;
mod part;
mod properties;
mod world;

use disk::Faults;
use world::World;

const SMALL: Limits = Limits { size: 1024 * 1024, reserve: 256 * 1024 };
const USUAL: Limits = Limits { size: 64 * 1024 * 1024, reserve: 4 * 1024 * 1024 };
const NONE: [i64; 0] = [];

#[test]
fn what_is_appended_arrives_once_in_order_and_goes_on_after_a_restart() {
    let mut world = World::new(1, SMALL);
    for length in [1, 100, 4063, 4064, 4080, 9000, 60_000] {
        for class in Class::ALL {
            world.append(class, length).expect("there is room");
        }
    }
    world.hello();
    world.deliver(Class::Lifecycle, 4000, true);
    world.restart(true);
    for class in Class::ALL {
        assert_eq!(world.append(class, 10).expect("there is room"), 8, "numbers go on");
        world.deliver_all(class);
        assert_eq!(world.gateway[class as usize].records.len(), 8);
        assert_eq!(world.gateway[class as usize].gaps.len(), 0);
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote_and_skips_no_number() {
    let mut world = World::new(2, USUAL);
    for round in 0..50 {
        for class in Class::ALL {
            for _ in 0..round % 4 {
                world.append(class, 300).expect("there is room");
            }
        }
        world.hello();
        world.kill();
    }
    world.all_is_safe();
    for class in Class::ALL {
        world.deliver_all(class);
        assert_eq!(world.missing(class), NONE);
        assert_eq!(world.gateway[class as usize].gaps.len(), 0);
    }
}

#[test]
fn after_a_loss_of_power_no_number_that_was_told_is_given_out_again() {
    for seed in 0..200 {
        let mut world = World::new(seed, SMALL);
        for _ in 0..4 {
            for _ in 0..seed % 5 {
                world.append(Class::Logs, 700).expect("there is room");
                world.append(Class::Lifecycle, 100).expect("there is room");
            }
            world.hello();
            world.deliver(Class::Logs, 1000, seed % 3 == 0);
            world.sync(Class::Lifecycle);
            world.lose_power();
        }
        for class in Class::ALL {
            world.deliver_all(class);
        }
        assert_eq!(world.missing(Class::Lifecycle), NONE, "seed {seed}");
    }
}

#[test]
fn after_a_loss_of_power_numbers_leap_over_all_that_a_file_could_have_held_and_the_leap_is_a_gap() {
    let mut world = World::new(7, SMALL);
    for _ in 0..3 {
        world.append(Class::Lifecycle, 100).expect("there is room");
    }
    world.sync(Class::Lifecycle);
    for life in 1..4 {
        world.lose_power();
        assert_eq!(world.append(Class::Lifecycle, 100).expect("there is room"), 1 + life * SPAN, "life {life}");
        assert_eq!(
            world.buffer().counts().gaps.get(&Reason::Crash),
            Some(&(if life == 1 { SPAN - 3 } else { SPAN - 1 } as u64))
        );
        world.sync(Class::Lifecycle);
    }
    world.deliver_all(Class::Lifecycle);
    let received = &world.gateway[Class::Lifecycle as usize];
    assert_eq!(received.records.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 1 + SPAN, 1 + 2 * SPAN, 1 + 3 * SPAN]);
    let gaps: Vec<_> = received.gaps.iter().map(|(from, (to, reason))| (*from, *to, *reason)).collect();
    assert_eq!(gaps, [4, 2 + SPAN, 2 + 2 * SPAN].map(|from| (from, (from / SPAN + 1) * SPAN, Reason::Crash)));
}

#[test]
fn a_failed_sync_is_not_tried_again_on_that_file_and_costs_nothing() {
    for seed in 0..100 {
        let mut world = World::new(seed, SMALL);
        for _ in 0..5 {
            world.append(Class::Lifecycle, 200).expect("there is room");
        }
        world.sync(Class::Lifecycle);
        for _ in 0..5 {
            world.append(Class::Lifecycle, 200).expect("there is room");
        }
        world.disk.break_with(Faults { syncs: 1 + (seed % 3) as u32, ..Faults::default() });
        world.deliver(Class::Lifecycle, 100_000, seed % 2 == 0);
        while world.buffer().sync(Class::Lifecycle).is_err() {}
        world.all_is_safe();
        world.lose_power();
        world.deliver_all(Class::Lifecycle);
        assert_eq!(world.missing(Class::Lifecycle), NONE, "seed {seed}");
    }
}

/// Found by the simulation: whatever lay before the records that a failed sync had left in memory was told as damaged.
#[test]
fn what_cannot_be_read_now_is_no_hole_before_records_whose_sync_failed() {
    for reads in 1..4 {
        let mut world = World::new(reads.into(), SMALL);
        for _ in 0..5 {
            world.append(Class::Lifecycle, 200).expect("there is room");
        }
        world.sync(Class::Lifecycle);
        world.append(Class::Lifecycle, 200).expect("there is room");
        world.all_is_safe();
        world.disk.break_with(Faults { syncs: 10, ..Faults::default() });
        world.buffer().sync(Class::Lifecycle).expect_err("the disk refuses it");
        world.disk.break_with(Faults { syncs: 10, reads, ..Faults::default() });
        for _ in 0..reads {
            assert_eq!(world.deliver(Class::Lifecycle, 100_000, true), 0, "nothing can be read");
        }
        world.deliver_all(Class::Lifecycle);
        assert_eq!(world.missing(Class::Lifecycle), NONE, "{reads} reads fail");
    }
}

#[test]
fn when_the_budget_is_full_logs_go_first_and_lifecycle_last() {
    let mut world = World::new(3, SMALL);
    for class in [Class::Logs, Class::Metrics, Class::Results] {
        for _ in 0..100 {
            let _ = world.append(class, 9_000);
            assert!(world.buffer().bytes() <= SMALL.size);
        }
    }
    for _ in 0..200 {
        world.append(Class::Lifecycle, 1_000).expect("lifecycle has its reserve");
        assert!(world.disk.used() <= SMALL.size + 4096, "{}", world.disk.used());
    }
    world.all_is_safe();
    for class in Class::ALL {
        world.deliver_all(class);
        let received = &world.gateway[class as usize];
        let gaps: i64 = received.gaps.iter().map(|(from, (to, _))| to - from + 1).sum();
        assert_eq!(received.records.len() as i64 + gaps, if class == Class::Lifecycle { 200 } else { 100 });
    }
    assert_eq!(world.missing(Class::Lifecycle), NONE);
    assert!(world.missing(Class::Logs).len() > world.missing(Class::Results).len());
    assert!(world.lost(Class::Logs, Reason::Evicted) > 0);
}

#[test]
fn a_full_disk_makes_gaps_and_records_come_back_with_room() {
    let mut world = World::new(4, SMALL);
    world.append(Class::Lifecycle, 100).expect("there is room");
    world.append(Class::Metrics, 4_000).expect("there is room");
    world.disk.limit(Some(world.disk.used()));
    for _ in 0..20 {
        world.append(Class::Metrics, 3_000).expect_err("the disk is full");
        world.append(Class::Lifecycle, 3_000).expect("its file has room that was taken in advance");
    }
    world.hello();
    world.deliver(Class::Metrics, 10_000, true);
    world.disk.limit(None);
    assert_eq!(world.append(Class::Metrics, 3_000).expect("there is room again"), 22);
    for class in Class::ALL {
        world.deliver_all(class);
    }
    assert_eq!(world.lost(Class::Metrics, Reason::Disk), 20);
    assert_eq!(world.gateway[Class::Lifecycle as usize].records.len(), 21);
}

#[test]
fn nothing_is_synced_when_nothing_happens_nor_what_the_gateway_has() {
    let mut world = World::new(5, SMALL);
    for _ in 0..20 {
        world.append(Class::Logs, 200).expect("there is room");
    }
    world.deliver_all(Class::Logs);
    let before = world.disk.syncs();
    assert_eq!(world.buffer().next_sync(Class::Logs), None);
    world.sync(Class::Logs);
    world.hello();
    for class in Class::ALL {
        assert_eq!(world.buffer().next_sync(class), None);
    }
    assert_eq!(world.disk.syncs(), before);
}

/// Found by the properties: the file stays, its name is not on the disk, and the next life told of it.
#[test]
fn a_file_whose_maker_failed_is_told_of_only_once_its_name_is_safe() {
    for names in [0, 3] {
        let mut world = World::new(6, SMALL);
        world.disk.break_with(Faults { syncs: 1, removals: 1, ..Faults::default() });
        world.append(Class::Logs, 100).expect_err("the new file cannot be synced");
        // The gap is written to another new file, which fails as well and stays.
        world.disk.break_with(Faults { syncs: 1, removals: 1, ..Faults::default() });
        world.hello();
        world.disk.break_with(Faults { names, ..Faults::default() });
        world.kill();
        world.hello();
        world.lose_power();
        world.append(Class::Logs, 100).expect("all is well");
        world.deliver_all(Class::Logs);
    }
}

/// Found by reading: ends of tasks that were on the disk would have been told again, by a life that could not sync the names.
#[test]
fn what_is_found_on_the_disk_is_known_also_while_it_may_not_be_told() {
    let mut world = World::new(7, SMALL);
    let last = world.append(Class::Lifecycle, 100).expect("all is well");
    world.sync(Class::Lifecycle);
    world.disk.break_with(Faults { names: 1, ..Faults::default() });
    world.kill();
    assert_eq!(world.buffer().told(Class::Lifecycle), 1, "its name is not safe");
    assert_eq!(world.buffer().next(Class::Lifecycle).0, last + 1);
}

/// Found by the properties: power took the newer file's name, and the older file was gone.
#[test]
fn no_file_is_removed_for_one_whose_name_is_not_safe() {
    for seed in 0..50 {
        let mut world = World::new(seed, SMALL);
        world.append(Class::Logs, 100).expect("all is well");
        world.lose_power();
        world.disk.break_with(Faults { syncs: 1, removals: 1, ..Faults::default() });
        world.hello();
        world.deliver(Class::Logs, 1_000, true);
        world.disk.break_with(Faults { names: 1, ..Faults::default() });
        world.kill();
        world.lose_power();
        world.append(Class::Logs, 100).expect("all is well");
        world.deliver_all(Class::Logs);
    }
}

/// Found by reading: the new file said that the one before it was at its end, and what came into that one was none.
#[test]
fn nothing_comes_into_a_file_behind_which_another_may_stand() {
    let mut world = World::new(1, SMALL);
    world.append(Class::Logs, 60_000).expect("there is room");
    world.disk.break_with(Faults { names: 1, removals: 1, ..Faults::default() });
    world.append(Class::Logs, 10_000).expect_err("the new file has no name");
    // The gap of it is told, and has to be somewhere.
    world.hello();
    world.kill();
    let _ = world.append(Class::Logs, 10);
    world.deliver_all(Class::Logs);
    assert!(world.missing(Class::Logs).is_empty());
}
