//! The fleet's own test: what `just fleet` shows of thousands, it shows of a few.

use std::path::Path;
use std::time::Duration;

use tests::fleet::{self, Plan};

#[test]
fn a_small_fleet_is_held_outlives_its_gateway_and_loses_nothing() {
    let plan = Plan { links: 50, rate: 500, tasks: 20.0, hold: Duration::from_secs(3), kill: true };
    let lines = fleet::run(&plan, Path::new(env!("CARGO_BIN_EXE_fleet")));
    lines.iter().for_each(tests::bench::Line::print);
    // What a time or a size may be is for a release build on a machine that does nothing else.
    let counts: Vec<_> = lines.iter().filter(|line| !["KiB", "ms", "s"].contains(&line.unit)).collect();
    let missed: Vec<&str> = counts.iter().filter(|line| !line.kept()).map(|line| line.what.as_str()).collect();
    assert!(missed.is_empty(), "{missed:?}");
    assert!(lines.iter().any(|line| line.what.contains("delivered")));
}
