//! Every escape, tried in six places: where nothing confines it, it must work; under the supervisor it must not, as the agent and as a
//! task in a `restricted` Pod and in a `baseline` one, and as the agent where the supervisor is not PID 1.
//!
//! `CHAPERONE_PROBE=state-` tries only those whose names contain that.

use std::collections::BTreeSet;
use std::process::Command;

use tests::probes::trial::{self, Confined, verdict};
use tests::probes::{self, Outcome};
use tests::stage::{Pids, Profile, available, container_available};
use tests::supervisor::Supervisor;
use tests::tasks::Api;
use tests::torture::probes::{not_denied, number, without_control};
use tests::{binaries, table};

fn nothing_works(profile: Profile, pids: Pids, confined: Confined) {
    if container_available() && available(pids, profile) {
        table::none(&format!("escapes under {profile:?}, {pids:?}"), &not_denied(profile, pids, confined));
    }
}

#[test]
fn every_escape_works_where_nothing_confines_it() {
    if container_available() {
        table::none("controls", &without_control());
    }
}

#[test]
fn no_escape_works_in_a_restricted_pod() {
    nothing_works(Profile::Restricted, Pids::First, trial::agent);
}

#[test]
fn no_escape_works_in_a_baseline_pod() {
    nothing_works(Profile::Baseline, Pids::First, trial::agent);
}

#[test]
fn no_escape_works_where_the_supervisor_is_not_pid_1() {
    nothing_works(Profile::Restricted, Pids::Child, trial::agent);
}

#[test]
fn no_escape_works_for_a_task_in_a_restricted_pod() {
    nothing_works(Profile::Restricted, Pids::First, trial::task);
}

#[test]
fn no_escape_works_for_a_task_in_a_baseline_pod() {
    nothing_works(Profile::Baseline, Pids::First, trial::task);
}

/// A guard taken away must turn probes red, or they prove nothing about it.
fn weakened(call: i64, must_escape: &[&str]) {
    if !container_available() {
        return;
    }
    table::each("probes that must turn red", must_escape, |name| {
        let probe = probes::find(name).unwrap_or_else(|| panic!("no probe {name}"));
        let builder = Supervisor::new().profile(Profile::Restricted).without(call).set("enforcement", "best-effort");
        match trial::agent(probe, builder, Pids::First) {
            Outcome::Escaped(_) => None,
            other => Some(format!("{name}: {other}")),
        }
    });
}

#[test]
fn without_landlock_the_escapes_that_it_stops_work() {
    let guarded = [
        "token-read",
        "service-account-token",
        "state-read",
        "state-delete",
        "state-rename-over",
        "termination-log-write",
        "write-outside",
        "abstract-socket-of-outsider",
        "oom-score-adj-outsider",
        "readonly-create",
    ];
    weakened(libc::SYS_landlock_create_ruleset, &guarded);
}

#[test]
fn without_seccomp_the_escapes_that_it_stops_work() {
    let guarded = [
        "unshare-user",
        "clone-user-namespace",
        "io-uring-setup",
        "keyctl",
        "i386-entry",
        "tiocsti-high-bits",
        "prlimit-supervisor",
        "prlimit-thread-of-supervisor",
        "setpriority-user-zero",
        "socket-vsock",
        "socket-mptcp",
        "fast-open-sendto",
        "local-tcp",
        "readonly-chmod",
        "userfaultfd",
    ];
    weakened(libc::SYS_seccomp, &guarded);
}

/// Terminals are the one thing of a task that has a name which every other may guess.
#[test]
fn no_task_opens_the_terminal_of_another_which_nothing_else_would_keep_from_it() {
    let probe = binaries::helper("probe");
    let (master, name) = probes::terminal::make().expect("a terminal");
    let control = Command::new(&probe).args(["open-terminal", &name]).output().expect("it starts");
    assert!(matches!(verdict(&String::from_utf8_lossy(&control.stdout)), Outcome::Escaped(_)));
    drop(master);
    for profile in [Profile::Plain, Profile::Restricted, Profile::Baseline] {
        if !available(Pids::First, profile) {
            continue;
        }
        let supervisor = Supervisor::new().first().profile(profile).token().start();
        supervisor.wait_ready();
        let api = Api::of(&supervisor);
        let size = serde_json::json!({"rows": 24, "cols": 80});
        let other = api.start(serde_json::json!({"script": "tty; exec sleep 1000", "terminal": size}));
        api.wait_output(&other, "/dev/pts/");
        let name = String::from_utf8(api.output(&other, "stdout")).expect("a path");
        let task = api.run(serde_json::json!({"argv": [probe.clone(), "open-terminal", name.trim()]}));
        let said = api.output(task["task_id"].as_str().expect("an id"), "stdout");
        let verdict = verdict(&String::from_utf8_lossy(&said));
        // With a uid of its own it is kept out by the terminal's owner before that.
        let why = if profile == Profile::Baseline { "denied" } else { "busy" };
        assert!(matches!(&verdict, Outcome::Denied(said) if said.matches(why).count() == 3), "{profile:?}: {verdict}");
    }
}

#[test]
fn there_are_at_least_150_escapes_with_a_control_and_every_guarantee_has_one() {
    let number = number(probes::all());
    number.print();
    assert!(number.kept());
    let proven = probes::all().filter(|probe| probe.has_control());
    let guards: BTreeSet<_> = proven.map(|probe| probe.guards.name()).collect();
    let names: BTreeSet<_> = probes::all().map(|p| p.name).collect();
    assert_eq!(names.len(), probes::all().count(), "two probes have one name");
    for guarantee in protocol::guarantee::Guarantee::ALL {
        assert!(guards.contains(guarantee.name()), "no probe of {}", guarantee.name());
    }
}
