//! `bench [size|memory|start|tasks|link|all] [short]`: the numbers that are promised, of what `just dist` left.

use std::process::ExitCode;

use tests::bench::{Line, link, memory, report, size, start, tasks};
use tests::binaries;

type Measure = fn(short: bool) -> Vec<Line>;

fn main() -> ExitCode {
    binaries::prefer_dist();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let short = arguments.iter().any(|a| a == "short");
    let what = arguments.iter().find(|a| *a != "short").map_or("all", String::as_str);
    let all: [(&str, Measure); 5] = [
        ("size", |_| size::measure()),
        ("memory", |_| memory::measure()),
        ("start", |_| start::measure()),
        ("tasks", |_| tasks::measure()),
        ("link", link::measure),
    ];
    if what != "all" && !all.iter().any(|(name, _)| *name == what) {
        eprintln!(
            "bench: size, memory, start, tasks, link or all, and short for less of it; the long ones are `torture`"
        );
        return ExitCode::from(64);
    }
    let mut kept = true;
    for (_, measure) in all.iter().filter(|(name, _)| what == *name || what == "all") {
        kept &= report(&measure(short));
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
