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
/// Records of a run, on average: more than the last words of a sandbox, which are one of each class.
const DELIVERED: u64 = 10;
/// Commands of a run, on average: more than the last one of each sandbox, of which every fourth run has two.
const COMMANDS: u64 = 2;
/// Of the runs, one in so many has a gap at least: in two of three, power goes or more is told than there is room for (`Plan::of`).
const WITH_GAPS: u64 = 3;
/// And a session that was left for a message that was lost or changed: in each run about one message is.
const MISSED: u64 = 10;

/// The seeds 1 to `seeds`, on all processors.
pub fn measure(seeds: u64) -> Vec<Line> {
    let all = Mutex::new((Done::default(), 0_u64));
    let (tried, failed) = on_all_processors(seeds, |seed| {
        let done = run(&Plan::of(seed), false)?;
        let mut all = all.lock().expect("nobody panics with it");
        let (all, with_gaps) = &mut *all;
        all.delivered += done.delivered;
        all.commands += done.commands;
        all.missed += done.missed;
        *with_gaps += u64::from(done.gaps > 0);
        Ok(())
    });
    failed.keys().take(TOLD).for_each(|seed| tell(*seed));
    let (Done { delivered, commands, missed, .. }, with_gaps) = all.into_inner().expect("nobody panics with it");
    let least =
        |what: &str, goal: u64, seen: f64, unit| Line::at_least(format!("in these, {what}"), goal as f64, seen, unit);
    let what = "simulated runs of both ends of a session with everything going wrong";
    let violated = "of these, runs in which a record was lost, doubled, altered or out of order, a command was, or a sandbox did \
                    not come back in time";
    vec![
        Line::at_least(what, seeds as f64, tried as f64, "seeds"),
        Line::new(violated, 0.0, failed.len() as f64, "violations"),
        least("records that were delivered", DELIVERED * seeds, delivered as f64, "records"),
        least("commands that were applied", COMMANDS * seeds, commands as f64, "commands"),
        least("runs with numbers in gaps", seeds / WITH_GAPS, with_gaps as f64, "seeds"),
        least("sessions left for a message that was lost or changed", seeds / MISSED, missed as f64, "sessions"),
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
    let young = format!(
        "records lost by power that were younger than their window, as they may be, of {} in all",
        lost.written
    );
    let cuts = "simulated losses of power, torn at 512 B and 4 KiB, un-synced writes in any order, names lost";
    vec![
        Line::at_least(cuts, losses as f64, (tried * cuts::CUTS) as f64, "losses"),
        Line::new(
            "lifecycle records and results lost by power after they were acknowledged, sync = always",
            0.0,
            lost.acknowledged as f64,
            "records",
        ),
        Line::new(
            "records lost by power that were older than 50 ms (lifecycle) or 200 ms, or had outlived power, sync = group",
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
        // Of each buffer one, on average: power that takes nothing shows nothing.
        Line::at_least(young, (losses / cuts::CUTS) as f64, lost.young as f64, "records"),
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
