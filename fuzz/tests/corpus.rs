//! What fuzzing found, once more: each kept input and each seed, as it is, cut, and with its bytes changed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fuzz::{TARGETS, corpus};

fn hold(target: &fuzz::Target, input: &[u8]) {
    let kept = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    assert!(kept.is_ok(), "{} breaks its promise with {}", target.name, input.escape_ascii());
}

#[test]
fn every_kept_input_keeps_the_promises_of_its_parser() {
    for target in TARGETS {
        let inputs = corpus::read(target);
        assert!(!inputs.is_empty(), "{} has no input at all", target.name);
        inputs.iter().for_each(|input| hold(target, input));
    }
}

#[test]
fn a_seed_that_is_cut_or_changed_anywhere_keeps_them_too() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            // A few hundred of each, however long it is.
            for at in (0..seed.len()).step_by((seed.len() / 200).max(1)) {
                hold(target, &seed[..at]);
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                hold(target, &changed);
            }
        }
    }
}
