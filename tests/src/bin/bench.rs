//! `bench [size|memory|start|tasks|link|all] [short]`: the numbers that are promised, of what `just dist` left.

use std::process::ExitCode;

use tests::bench::{Line, link, memory, size, start, tasks};
use tests::{binaries, evidence};

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
    let begun = evidence::begin();
    let chosen = all.iter().filter(|(name, _)| what == *name || what == "all");
    let lines: Vec<Line> = chosen.flat_map(|(_, measure)| measure(short)).inspect(Line::print).collect();
    if begun.end(&lines) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
