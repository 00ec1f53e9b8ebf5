//! Many tasks in a row: what they leave in the supervisor is nothing.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tasks::Client;
use super::{Line, median};
use crate::processes;
use crate::supervisor::Supervisor;
use crate::tasks::Api;
use crate::wait::wait_until;

const CLIENTS: usize = 4;
/// Several times what is remembered: every task that comes makes one be forgotten, and the allocator has seen it all.
const WARM: usize = 4_000;
/// The memory between two tasks goes up and down by some pages; the middle of many looks does not.
const LOOKS: usize = 10;
/// So many looks that say the same, 50 ms apart, are rest.
const SETTLED: usize = 20;
/// Of what is remembered, the journal holds each once, and history up to four times as much (`tasks/journal.rs`).
const JOURNAL_BOUND: u64 = 4 * 1_100 * 1024;

/// So many tasks, `CLIENTS` at a time, in one supervisor.
pub fn measure(count: usize) -> Vec<Line> {
    let supervisor = Supervisor::new().token().start();
    supervisor.wait_ready();
    let api = Api::of(&supervisor);
    run(&api, WARM);
    let part = (count / 10).max(LOOKS);
    let (descriptors, early) = (at_rest(&supervisor), resident(&supervisor, &api, part));
    run(&api, count.saturating_sub(WARM + 2 * part));
    let late = resident(&supervisor, &api, part);
    let more = at_rest(&supervisor).saturating_sub(descriptors);
    let zombies = processes::descendants(supervisor.pid()).into_iter().filter(|&p| processes::is_zombie(p)).count();
    let journal = fs::metadata(supervisor.paths().state.join("tasks/journal")).map_or(0, |file| file.len());
    let left = folders(&supervisor.paths().state.join("tasks"));
    vec![
        Line::new(format!("growth of the resident set over {count} tasks"), 0.0, (late - early).max(0.0), "KiB"),
        Line::new("more descriptors after them", 0.0, more as f64, "descriptors"),
        Line::new("zombies after them", 0.0, zombies as f64, "zombies"),
        Line::new("the journal after them", JOURNAL_BOUND as f64, journal as f64, "bytes"),
        Line::new("tasks' folders after them", 1_100.0, left as f64, "folders"),
    ]
}

fn run(api: &Api, count: usize) {
    let left = AtomicUsize::new(count);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::new(api).expect("it listens");
                while take() {
                    client.run().expect("an answer");
                }
            });
        }
    });
}

/// The middle of the looks at its memory, in KiB, while it runs so many tasks.
fn resident(supervisor: &Supervisor, api: &Api, tasks: usize) -> f64 {
    let look = |_| {
        run(api, tasks / LOOKS);
        processes::resident_kib(supervisor.pid())
    };
    let seen: Vec<f64> = (0..LOOKS).map(look).collect();
    println!("resident KiB: {seen:?}");
    median(seen)
}

/// Descriptors once connections are closed and the last shims have gone.
fn at_rest(supervisor: &Supervisor) -> usize {
    let pid = supervisor.pid();
    wait_until("the last shims to go", || processes::trees(pid).is_empty());
    let count = || fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let (mut least, mut same) = (count(), 0);
    // Closed connections are taken note of one after the other, and on a busy machine late.
    let settled = || {
        let now = count();
        same = if now == std::mem::replace(&mut least, now) { same + 1 } else { 0 };
        std::thread::sleep(std::time::Duration::from_millis(50));
        same == SETTLED
    };
    wait_until("descriptors to settle", settled);
    least
}

fn folders(path: &Path) -> usize {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    // Those that are made ahead belong to no task.
    let belongs = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    entries.filter(belongs).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count()
}
