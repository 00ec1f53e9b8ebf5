//! The end of a crowd: a tree, session leaders and a fork bomb, all of which ignore TERM.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Line;
use crate::stage::{Pids, Profile, available};
use crate::supervisor::Supervisor;
use crate::wait::wait_until;
use crate::{binaries, processes};

const GRACE: Duration = Duration::from_secs(1);

/// Stop a tree of this many processes in every place that a supervisor can have.
pub fn measure(count: usize, times: usize) -> Vec<Line> {
    let places = [
        (Pids::First, Profile::Baseline),
        (Pids::Child, Profile::Baseline),
        (Pids::First, Profile::Restricted),
        (Pids::Child, Profile::Restricted),
    ];
    let had = places.into_iter().filter(|&(pids, profile)| available(pids, profile));
    had.flat_map(|(pids, profile)| run(pids, profile, count, times)).collect()
}

fn run(pids: Pids, profile: Profile, count: usize, times: usize) -> Vec<Line> {
    let mut survivors = 0;
    let mut slowest = 0.0f64;
    for _ in 0..times {
        let (left, took) = once(pids, profile, count);
        survivors += left;
        slowest = slowest.max(took);
    }
    let place = format!("{} {}", profile.name(), if pids == Pids::First { "as PID 1" } else { "not PID 1" });
    vec![
        Line::new(
            format!("alive after the stop of {count} processes and a fork bomb, {place}"),
            0.0,
            survivors as f64,
            "processes",
        ),
        Line::new(format!("the same stop beyond its grace, slowest of {times}, {place}"), 250.0, slowest, "ms"),
    ]
}

fn once(pids: Pids, profile: Profile, count: usize) -> (usize, f64) {
    let builder = Supervisor::new().profile(profile);
    let builder = if pids == Pids::First { builder.first() } else { builder.child() };
    let agent = binaries::helper("agent");
    let mut supervisor = builder
        .set("grace", format!("{}ms", GRACE.as_millis()))
        // the bomb gets a third of the tree on top
        .set("agent-limits", format!("nproc={}", count + count / 3))
        .agent([agent.as_os_str(), "crowd".as_ref(), count.to_string().as_ref()])
        .start();
    wait_until("the crowd", || {
        let now = supervisor.processes().len();
        now > count + count / 4 || supervisor.has_ended()
    });
    let crowd = supervisor.processes();
    let start = Instant::now();
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();
    let took = start.elapsed().saturating_sub(GRACE).as_secs_f64() * 1e3;
    (crowd.into_iter().filter(|&p| processes::alive(p)).count(), took)
}
