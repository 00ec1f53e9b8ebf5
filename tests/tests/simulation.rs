//! Both ends of the session in virtual time, with everything going wrong (`just torture simulation` runs 100,000 of these).

use tests::simulation::{Plan, run};

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
