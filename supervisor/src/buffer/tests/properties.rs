//! Any sequence of what can happen, in any order.

use proptest::prelude::*;
use protocol::session::Class;

use super::disk::Faults;
use super::world::World;
use super::{NONE, SMALL, USUAL};
use crate::buffer::{Limits, Reason};

#[derive(Clone, Debug)]
enum Step {
    Append(Class, usize),
    Many(Class, usize),
    Lose(Class, i64),
    Hello,
    Deliver(Class, usize, bool),
    Sync(Class),
    Kill,
    Restart(bool),
    LosePower,
    Break(Faults),
    Fill,
    Room,
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

/// What happens everywhere.
fn ordinary() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (class(), 1..3_000usize).prop_map(|(class, length)| Step::Append(class, length)),
        2 => (class(), 3_000..30_000usize).prop_map(|(class, length)| Step::Append(class, length)),
        2 => (class(), 1..60usize).prop_map(|(class, count)| Step::Many(class, count)),
        2 => (class(), prop_oneof![1..100i64, 60_000..70_000i64]).prop_map(|(class, count)| Step::Lose(class, count)),
        3 => Just(Step::Hello),
        6 => (class(), 1..50_000usize, any::<bool>()).prop_map(|(class, max, commit)| Step::Deliver(class, max, commit)),
        4 => class().prop_map(Step::Sync),
        3 => Just(Step::Kill),
        2 => any::<bool>().prop_map(Step::Restart),
    ]
}

fn powerless() -> impl Strategy<Value = Step> {
    prop_oneof![8 => ordinary(), 1 => Just(Step::LosePower)]
}

fn broken() -> impl Strategy<Value = Step> {
    let few = || prop_oneof![3 => Just(0u32), 1 => 1..4u32];
    let faults = (few(), few(), few(), few(), few());
    prop_oneof![
        16 => powerless(),
        2 => faults.prop_map(|(writes, syncs, names, removals, reads)| Step::Break(Faults { writes, syncs, names, removals, reads })),
        1 => Just(Step::Fill),
        1 => Just(Step::Room),
    ]
}

/// One life on a disk that refuses reads and syncs now and then.
fn unsteady() -> impl Strategy<Value = Step> {
    let few = || prop_oneof![2 => Just(0u32), 1 => 1..4u32];
    prop_oneof![
        8 => (class(), 1..3_000usize).prop_map(|(class, length)| Step::Append(class, length)),
        2 => Just(Step::Hello),
        6 => (class(), 1..50_000usize, any::<bool>()).prop_map(|(class, max, commit)| Step::Deliver(class, max, commit)),
        6 => class().prop_map(Step::Sync),
        4 => (few(), few(), few()).prop_map(|(syncs, names, reads)| Step::Break(Faults { syncs, names, reads, ..Faults::default() })),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Append(class, length) => drop(world.append(class, length)),
        Step::Many(class, count) => (0..count).for_each(|_| drop(world.append(class, 1_000))),
        Step::Lose(class, count) => world.buffer().lose(class, count, 1, Reason::Budget),
        Step::Hello => world.hello(),
        Step::Deliver(class, max, commit) => drop(world.deliver(class, max, commit)),
        Step::Sync(class) => world.sync(class),
        Step::Kill => world.kill(),
        Step::Restart(reboot) => world.restart(reboot),
        Step::LosePower => world.lose_power(),
        Step::Break(faults) => world.disk.break_with(faults),
        Step::Fill => world.disk.limit(Some(world.disk.used() + 4096)),
        Step::Room => world.disk.limit(None),
    }
}

/// Everything heals, and everything is sent.
fn finish(world: &mut World) {
    world.disk.break_with(Faults::default());
    world.disk.limit(None);
    Class::ALL.into_iter().for_each(|class| world.deliver_all(class));
    world.restart(true);
    for class in Class::ALL {
        world.append(class, 10).expect("all is well");
        world.deliver_all(class);
    }
}

/// Each record that was safe has arrived.
fn nothing_is_missing(world: &World) -> Result<(), TestCaseError> {
    for class in Class::ALL {
        prop_assert_eq!(world.missing(class), NONE, "{:?}", class);
    }
    Ok(())
}

/// As many as `PROPTEST_CASES` says, or what takes a second or two.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn ends_of_the_process_lose_nothing(steps in prop::collection::vec(ordinary(), 1..80), seed: u64) {
        let mut world = World::new(seed, USUAL);
        steps.into_iter().for_each(|step| take(&mut world, step));
        world.all_is_safe();
        finish(&mut world);
        for class in Class::ALL {
            prop_assert_eq!(world.missing(class), NONE, "{:?}", class);
            prop_assert_eq!(world.lost(class, Reason::Crash), 0);
        }
    }

    #[test]
    fn refusals_of_the_disk_that_pass_lose_no_record_that_was_taken(
        steps in prop::collection::vec(unsteady(), 1..80),
        seed: u64,
    ) {
        let mut world = World::new(seed, USUAL);
        steps.into_iter().for_each(|step| take(&mut world, step));
        world.all_is_safe();
        finish(&mut world);
        nothing_is_missing(&world)?;
    }

    #[test]
    fn losses_of_power_lose_no_record_that_was_synced(steps in prop::collection::vec(powerless(), 1..80), seed: u64) {
        let mut world = World::new(seed, USUAL);
        steps.into_iter().for_each(|step| take(&mut world, step));
        finish(&mut world);
        nothing_is_missing(&world)?;
    }

    #[test]
    fn a_broken_full_small_disk_never_doubles_or_alters_a_record(
        steps in prop::collection::vec(broken(), 1..120),
        seed: u64,
    ) {
        let mut world = World::new(seed, Limits { ..SMALL });
        for step in steps {
            take(&mut world, step);
            let bytes = world.buffer().bytes();
            prop_assert!(bytes <= SMALL.size, "{bytes} bytes");
        }
        finish(&mut world);
    }
}
