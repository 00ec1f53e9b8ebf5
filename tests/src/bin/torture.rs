//! `torture [WHAT|all] [short]`; without a WHAT that it knows it names them: reaping, ending and truth under load, of what `just dist` left.

use std::process::ExitCode;

use tests::bench::{Line, endings, kills, orphans, row, stop};
use tests::{binaries, evidence, torture};

/// What is measured: in full, or short.
type Measure = fn(short: bool) -> Vec<Line>;

const ALL: &[(&str, Measure)] = &[
    ("orphans", |short| if short { orphans::measure(2_000, 100) } else { orphans::measure(20_000, 1_000) }),
    ("stop", |short| if short { stop::measure(300, 1) } else { stop::measure(2_000, 3) }),
    ("row", |short| row::measure(if short { 10_000 } else { 100_000 })),
    ("endings", |short| endings::measure(if short { 40 } else { 200 })),
    ("kills", |short| kills::measure(if short { 20 } else { 500 })),
    ("link", |short| torture::kills::measure(if short { 20 } else { 1_000 })),
    ("trees", |short| torture::trees::measure(if short { 100 } else { 2_000 })),
    ("power", |short| torture::power::measure(if short { 40 } else { 2_000 })),
    ("disk", |short| torture::disk::measure(if short { 24 } else { 300 })),
    ("faults", |short| torture::faults::measure(if short { 9 } else { 63 }, !short)),
    ("calls", |short| torture::calls::measure(if short { 8 } else { usize::MAX })),
    ("rotation", |short| torture::rotation::measure(if short { 8 } else { 200 })),
    ("rolling", |short| torture::rolling::measure(if short { 4 } else { 40 })),
    ("gateways", |short| torture::gateways::measure(if short { 10 } else { 60 })),
    ("twins", |short| torture::twins::measure(if short { 8 } else { 120 })),
    ("hostile", torture::hostile::measure),
    ("mutations", torture::mutations::measure),
    ("probes", |_| torture::probes::measure()),
    ("sweep", |_| torture::sweep::measure()),
    ("cuts", |short| torture::simulation::measure_cuts(if short { 10_000 } else { 200_000 })),
    ("simulation", |short| torture::simulation::measure(if short { 2_000 } else { 100_000 })),
];

fn main() -> ExitCode {
    binaries::prefer_dist();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(seed) = number(&arguments, "seed=") {
        return torture::simulation::replay(seed, arguments.iter().find_map(|a| a.strip_prefix("steps=")));
    }
    let short = arguments.iter().any(|a| a == "short");
    let what = arguments.iter().find(|a| *a != "short").map_or("all", String::as_str);
    if what != "all" && !ALL.iter().any(|(name, _)| *name == what) {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("torture: {} or all, and short for a tenth of it", names.join(", "));
        return ExitCode::from(64);
    }
    let begun = evidence::begin();
    let (mut all, mut shown) = (Vec::new(), true);
    for (name, measure) in ALL.iter().filter(|(name, _)| what == *name || what == "all") {
        let lines = measure(short);
        lines.iter().for_each(Line::print);
        shown &= evidence::shown(name, &lines);
        all.extend(lines);
    }
    if begun.end(&all) && shown { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn number(arguments: &[String], name: &str) -> Option<u64> {
    arguments.iter().find_map(|argument| argument.strip_prefix(name)?.parse().ok())
}
