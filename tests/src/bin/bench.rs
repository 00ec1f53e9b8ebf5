//! `bench [size|memory|start|all]`: the numbers that are promised, of what `just dist` left.

use std::process::ExitCode;

use tests::bench::{memory, report, size, start};
use tests::binaries;

fn main() -> ExitCode {
    binaries::prefer_dist();
    let what = std::env::args().nth(1).unwrap_or_else(|| "all".into());
    let wanted = |name: &str| what == name || what == "all";
    let mut kept = true;
    for (name, measure) in
        [("size", size::measure as fn() -> _), ("memory", memory::measure), ("start", start::measure)]
    {
        if wanted(name) {
            kept &= report(&measure());
        }
    }
    if what != "all" && !["size", "memory", "start"].contains(&what.as_str()) {
        eprintln!("bench: size, memory, start or all; the long ones are `torture`");
        return ExitCode::from(64);
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
