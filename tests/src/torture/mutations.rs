//! How many rules of the confinement are proven: each taken away alone must turn a probe red.

use std::sync::Mutex;

use crate::bench::Line;
use crate::mutations::{self, Fate, Mutation, Run, rules, steps};
use crate::probes::MARKED;
use crate::{probes, table};

/// Of the short run: what these see, every ninth rule with nothing behind it, and every fifth step beside the filter.
const SAMPLE: [&str; 18] = [
    "bpf-map",
    "clone-user-namespace",
    "fast-open-sendto",
    "i386-entry",
    "keyctl",
    "kill-0-shim",
    "local-tcp",
    "personality-read-implies-exec",
    "prlimit-supervisor",
    "readonly-fchmod",
    "sched-setaffinity-supervisor",
    "setpriority-user-zero",
    "sigio-outsider",
    "socket-mptcp",
    "tiocsti-high-bits",
    "truncate-outside",
    "unshare-user",
    "userfaultfd",
];

/// Try every mutation, or a sample; the score, how many that were, and the survivors on standard error.
///
/// A few of them, as by `CHAPERONE_MUTATION`, are not all: then the second line is missed, whatever the first one says.
pub fn measure(short: bool) -> Vec<Line> {
    if !crate::stage::container_available() {
        return Vec::new();
    }
    let filter = std::env::var("CHAPERONE_MUTATION").unwrap_or_default();
    let mut all = if short { sample() } else { [rules(&probes::all().collect::<Vec<_>>()), steps()].concat() };
    all.retain(|mutation| mutation.what.contains(&filter));
    let (run, fates) = (Run::default(), Mutex::new(Vec::new()));
    table::each("mutations", &all, |mutation| {
        let fate = run.fate(mutation);
        println!("{}: {fate:?}", mutation.what);
        fates.lock().expect("no panic holds it").push((mutation, fate));
        None
    });
    let fates = fates.into_inner().expect("no panic held it");
    let survivors: Vec<_> = fates.iter().filter(|(_, fate)| matches!(fate, Fate::Survived(_))).collect();
    for (mutation, fate) in &survivors {
        eprintln!("survivor: {}: {fate:?}", mutation.what);
    }
    let caught = fates.len() - survivors.len();
    let marked = fates.iter().filter(|(_, fate)| *fate == Fate::Caught(MARKED.name)).count();
    let score = 100.0 * caught as f64 / fates.len() as f64;
    let what = format!(
        "rules of the confinement whose absence is caught, of {}: {} by a probe that turns red, {marked} by a marked call that is let \
         through, since behind them this kernel has nothing",
        fates.len(),
        caught - marked
    );
    // Each probe of the sample sees one at least.
    let (goal, of) =
        if short { (SAMPLE.len(), "a sample") } else { (mutations::number(), "all that the lists and steps have") };
    let number = format!(
        "rules that were taken away, of {of}; of older kernels {} more are tried by no probe yet, and {} capabilities that this machine \
         does not have are untried",
        mutations::untried(),
        mutations::not_held()
    );
    vec![Line::at_least(what, 100.0, score, "%"), Line::at_least(number, goal as f64, fates.len() as f64, "rules")]
}

fn sample() -> Vec<Mutation> {
    let watched: Vec<_> = SAMPLE.iter().filter_map(|name| probes::find(name)).collect();
    let seen = rules(&watched).into_iter().filter(|mutation| !mutation.sees.is_empty());
    let (nothing_behind, seen): (Vec<_>, Vec<_>) = seen.partition(Mutation::has_nothing_behind);
    let some = nothing_behind.into_iter().step_by(9).chain(steps().into_iter().step_by(5));
    seen.into_iter().chain(some).collect()
}
