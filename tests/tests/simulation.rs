//! Both ends of the session in virtual time, with everything going wrong (`just torture simulation` runs 100,000 of these).

use tests::simulation::{Plan, cuts, run};

#[test]
fn whatever_goes_wrong_each_record_arrives_once_or_is_in_a_gap() {
    for seed in 1..=40 {
        run(&Plan::of(seed), false).unwrap_or_else(|error| panic!("just torture simulation seed={seed}: {error}"));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1001..=1010 {
        let once = run(&Plan::of(seed), false).expect("nothing is violated");
        assert!(once.notes > 20, "{once:?}");
        assert_eq!(once, run(&Plan::of(seed), false).expect("nothing is violated"), "seed {seed}");
    }
}

#[test]
fn power_takes_nothing_that_was_synced_and_nothing_that_is_older_than_its_window() {
    let mut written = 0;
    for seed in 1..=60 {
        let lost = cuts::run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!((lost.acknowledged, lost.old), (0, 0), "seed {seed}: {lost:?}");
        written += lost.written;
    }
    assert!(written > 1_000, "{written}");
}
