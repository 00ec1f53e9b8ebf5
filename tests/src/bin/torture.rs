//! `torture [orphans|stop|all] [short]`: reaping and ending under load, of what `just dist` left.

use std::process::ExitCode;

use tests::bench::{orphans, report, stop};
use tests::binaries;

fn main() -> ExitCode {
    binaries::prefer_dist();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let short = arguments.iter().any(|a| a == "short");
    let what = arguments.iter().find(|a| *a != "short").map_or("all", String::as_str);
    if !["orphans", "stop", "all"].contains(&what) {
        eprintln!("torture: orphans, stop or all, and short for a tenth of it");
        return ExitCode::from(64);
    }
    let mut kept = true;
    if what != "stop" {
        let (count, exits) = if short { (2_000, 100) } else { (20_000, 1_000) };
        kept &= report(&orphans::measure(count, exits));
    }
    if what != "orphans" {
        let (count, times) = if short { (300, 1) } else { (2_000, 3) };
        kept &= report(&stop::measure(count, times));
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
