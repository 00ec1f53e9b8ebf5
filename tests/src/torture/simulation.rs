//! Simulated runs of both ends of the session, many of them, and one of them again.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use crate::bench::Line;
use crate::simulation::{Plan, run, shrink};

/// Runs that failed, and that are told in full.
const TOLD: usize = 5;

/// The seeds 1 to `seeds`, on all processors.
pub fn measure(seeds: u64) -> Vec<Line> {
    let (next, failed) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    let (delivered, gaps, commands) = (AtomicI64::new(0), AtomicI64::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed > seeds {
                return;
            }
            match run(&Plan::of(seed), false) {
                Ok(done) => {
                    delivered.fetch_add(done.delivered, Relaxed);
                    gaps.fetch_add(done.gaps, Relaxed);
                    commands.fetch_add(done.commands, Relaxed);
                }
                Err(_) => failed.lock().expect("nobody panics with it").push(seed),
            }
            if seed % 1_000 == 0 {
                eprintln!("{seed} seeds in {} s", begun.elapsed().as_secs());
            }
        }
    };
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work)))
    });
    let mut failed = failed.into_inner().expect("nobody panics with it");
    failed.sort_unstable();
    failed.iter().take(TOLD).for_each(|seed| tell(*seed));
    eprintln!(
        "{} records delivered, {} numbers in gaps, {} commands applied, in {} s; failed: {failed:?}",
        delivered.into_inner(),
        gaps.into_inner(),
        commands.into_inner(),
        begun.elapsed().as_secs()
    );
    vec![
        Line::at_least(
            "simulated runs of both ends of a session with everything going wrong",
            seeds as f64,
            seeds as f64,
            "seeds",
        ),
        Line::new(
            "simulated runs in which a record was lost, doubled, altered or out of order, a command was, or a sandbox did not come back",
            0.0,
            failed.len() as f64,
            "violations",
        ),
    ]
}

/// What went wrong, with as few steps as it needs.
fn tell(seed: u64) {
    let plan = Plan::of(seed);
    let keep = shrink(&plan);
    let small = plan.only(&keep);
    let error = run(&small, false).err().unwrap_or_else(|| "not the second time".into());
    let steps: Vec<String> = keep.iter().map(ToString::to_string).collect();
    println!("just torture simulation seed={seed} steps={}\n{small}{error}", steps.join(","));
}

/// One run again, aloud: of `seed`, and where `steps` are given (`1,4,7`) only with those.
pub fn replay(seed: u64, steps: Option<&str>) -> ExitCode {
    let plan = Plan::of(seed);
    let keep = steps.map(|steps| steps.split(',').filter_map(|step| step.parse().ok()).collect::<Vec<_>>());
    let plan = keep.map_or(plan.clone(), |keep| plan.only(&keep));
    print!("{plan}");
    match run(&plan, true) {
        Ok(done) => {
            println!("{done:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
