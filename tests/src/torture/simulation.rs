//! Simulated runs of both ends of the session, many of them, and one of them again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use crate::bench::Line;
use crate::simulation::cuts::{self, Lost};
use crate::simulation::{Done, Plan, run, shrink};

/// Runs that failed, and that are made small.
const TOLD: usize = 5;

/// The seeds 1 to `seeds`, on all processors.
pub fn measure(seeds: u64) -> Vec<Line> {
    let all = Mutex::new(Done::default());
    let (tried, failed) = on_all_processors(seeds, |seed| {
        let done = run(&Plan::of(seed), false)?;
        let mut all = all.lock().expect("nobody panics with it");
        all.delivered += done.delivered;
        all.gaps += done.gaps;
        all.commands += done.commands;
        Ok(())
    });
    failed.keys().take(TOLD).for_each(|seed| tell(*seed));
    let Done { delivered, gaps, commands, .. } = all.into_inner().expect("nobody panics with it");
    eprintln!("{delivered} records delivered, {gaps} numbers in gaps, {commands} commands applied");
    let what = "simulated runs of both ends of a session with everything going wrong";
    let violated = "of these, runs in which a record was lost, doubled, altered or out of order, a command was, or a sandbox did \
                    not come back in time";
    vec![
        Line::at_least(what, seeds as f64, tried as f64, "seeds"),
        Line::new(violated, 0.0, failed.len() as f64, "violations"),
    ]
}

/// So many losses of power, ten in the life of each buffer.
pub fn measure_cuts(losses: u64) -> Vec<Line> {
    let all = Mutex::new(Lost::default());
    let (tried, failed) = on_all_processors(losses / cuts::CUTS, |seed| {
        let lost = cuts::run(seed)?;
        let mut all = all.lock().expect("nobody panics with it");
        all.written += lost.written;
        all.acknowledged += lost.acknowledged;
        all.old += lost.old;
        all.young += lost.young;
        match lost.acknowledged + lost.old {
            0 => Ok(()),
            count => Err(format!("{count} records lost")),
        }
    });
    let lost = all.into_inner().expect("nobody panics with it");
    eprintln!("{} records written; {} lost that were younger than their window", lost.written, lost.young);
    let cuts = "simulated losses of power, torn at 512 B and 4 KiB, un-synced writes in any order, names lost";
    vec![
        Line::at_least(cuts, losses as f64, (tried * cuts::CUTS) as f64, "losses"),
        Line::new(
            "lifecycle records lost by power after they were acknowledged, sync = always",
            0.0,
            lost.acknowledged as f64,
            "records",
        ),
        Line::new(
            "records lost by power that were older than 50 ms (lifecycle) or 200 ms, sync = group",
            0.0,
            lost.old as f64,
            "records",
        ),
        Line::new(
            "buffers with a number doubled, missing or altered after losses of power",
            0.0,
            failed.len() as f64,
            "buffers",
        ),
    ]
}

/// How many came to their end, and what did not hold, by its seed.
fn on_all_processors(seeds: u64, work: impl Fn(u64) -> Result<(), String> + Sync) -> (u64, BTreeMap<u64, String>) {
    let (next, tried) = (AtomicU64::new(1), AtomicU64::new(0));
    let (failed, begun) = (Mutex::new(BTreeMap::new()), Instant::now());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed > seeds {
                return;
            }
            let done = catch_unwind(AssertUnwindSafe(|| work(seed)));
            if let Err(error) = done.unwrap_or_else(|_| Err("it panicked".into())) {
                // At once: the run may last for an hour.
                eprintln!("seed {seed}: {error}");
                failed.lock().expect("nobody panics with it").insert(seed, error);
            }
            tried.fetch_add(1, Relaxed);
            if seed % 1_000 == 0 {
                eprintln!("{seed} seeds in {} s", begun.elapsed().as_secs());
            }
        }
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..processors).for_each(|_| drop(scope.spawn(work))));
    (tried.into_inner(), failed.into_inner().expect("nobody panics with it"))
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
