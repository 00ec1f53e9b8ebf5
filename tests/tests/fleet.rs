//! The fleet's own test: what `just fleet` shows of thousands, it shows of a few (001-23, 001-24).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::bench::Line;
use tests::fleet::{self, Plan, recording};
use tests::probes::outsider;
use tests::{binaries, processes};

#[test]
fn a_small_fleet_is_held_outlives_its_gateway_and_loses_nothing() {
    let lines = run(Plan { kill: true, ..small() });
    assert!(lines.iter().any(|line| line.what.contains("delivered")));
}

#[test]
fn the_other_gateways_take_over_whoever_was_at_one_that_is_lost() {
    run(Plan { gateways: 2, lose: true, ..small() });
}

#[test]
fn a_small_fleet_moves_to_the_successor_of_a_gateway_that_is_drained() {
    run(Plan { drain: true, ..small() });
}

#[test]
fn a_gateway_that_joins_gets_its_share_of_a_small_fleet() {
    run(Plan { gateways: 2, add: true, rate: 100, ..small() });
}

#[test]
fn a_small_fleet_catches_up_after_an_outage_in_which_it_worked_on() {
    let lines = run(Plan { backlog: Some(64), ..small() });
    for what in ["backlogs", "its own backlog"] {
        assert!(lines.iter().any(|line| line.what.contains(what)), "{what}");
    }
}

#[test]
fn a_small_fleet_is_held_by_tls() {
    run(Plan { tls: true, ..small() });
}

#[test]
fn a_fleet_that_is_stopped_takes_everything_with_it() {
    // Built before anything is waited for.
    binaries::directory();
    binaries::gateway();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command.args(["--links", "50", "--real", "2", "--hold", "600"]).stdout(Stdio::piped());
    let mut fleet = command.spawn().expect("our own program");
    let pid = Pid::from_raw(fleet.id() as i32);
    // A line of progress, when everything that it starts is there and works.
    let mut lines = BufReader::new(fleet.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(" tasks,") && !line.contains(" 0 tasks,")), "it ended by itself");
    let started = processes::descendants(pid);
    let named = |wanted: &str| started.iter().filter(|&&pid| processes::name(pid) == wanted).count();
    assert_eq!((named("gateway"), named("supervisor"), named("fleet")), (1, 2, 1));
    let files: BTreeSet<PathBuf> = started.iter().flat_map(|pid| open_in_memory(*pid)).collect();
    assert!(!files.is_empty(), "the simulated sandboxes have files");
    kill(pid, Signal::SIGTERM).expect("it runs");
    assert_eq!(fleet.wait().expect("our own child").code(), Some(128 + Signal::SIGTERM as i32));
    let left: Vec<String> = started.into_iter().filter(|&pid| !outsider::dies(pid)).map(processes::name).collect();
    assert!(left.is_empty(), "{left:?}");
    let left: Vec<PathBuf> = files.into_iter().filter(|file| file.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The files of `/dev/shm` that it has open.
fn open_in_memory(pid: Pid) -> Vec<PathBuf> {
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let paths = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    paths.filter(|path| path.starts_with("/dev/shm")).collect()
}

#[test]
fn simulated_sandboxes_tell_of_tasks_what_real_supervisors_tell() {
    if !tests::needs::commands(&["cc", "git", "python3"]) {
        return;
    }
    let shape = |recording: &recording::Recording| (recording.task.clone(), recording.shape());
    let kept: Vec<_> = recording::RECORDINGS.iter().map(shape).collect();
    let now: Vec<_> = recording::record().iter().map(shape).collect();
    assert_eq!(kept, now, "`fleet record > tests/src/fleet/recording.json` records it again");
}

fn small() -> Plan {
    Plan { links: 50, real: 2, hold: Duration::from_secs(3), ..Plan::default() }
}

/// The numbers, of which those that are counts are as they should be.
fn run(plan: Plan) -> Vec<Line> {
    let lines = fleet::run(&plan, Path::new(env!("CARGO_BIN_EXE_fleet")));
    lines.iter().for_each(Line::print);
    // What a time or a size may be is for a release build on a machine that does nothing else.
    let counts = lines.iter().filter(|line| !["KiB", "×", "attempts", "beats", "ms", "s"].contains(&&*line.unit));
    let missed: Vec<&str> = counts.filter(|line| !line.kept()).map(|line| line.what.as_str()).collect();
    assert!(missed.is_empty(), "{missed:?}");
    lines
}
