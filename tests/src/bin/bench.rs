//! `bench [size|memory|start|tasks|link|all]`: the numbers that are promised, of what `just dist` left.

use std::process::ExitCode;

use tests::bench::{Line, buffer, memory, report, size, start, tasks};
use tests::binaries;

type Measure = fn() -> Vec<Line>;

fn main() -> ExitCode {
    binaries::prefer_dist();
    let what = std::env::args().nth(1).unwrap_or_else(|| "all".into());
    let all: [(&str, Measure); 5] = [
        ("size", size::measure),
        ("memory", memory::measure),
        ("start", start::measure),
        ("tasks", tasks::measure),
        ("link", buffer::measure),
    ];
    if what != "all" && !all.iter().any(|(name, _)| *name == what) {
        eprintln!("bench: size, memory, start, tasks, link or all; the long ones are `torture`");
        return ExitCode::from(64);
    }
    let mut kept = true;
    for (_, measure) in all.iter().filter(|(name, _)| what == *name || what == "all") {
        kept &= report(&measure());
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
