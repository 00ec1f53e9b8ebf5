//! The end under one deadline.

use nix::sys::signal::Signal;
use tests::binaries;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};
use tests::wait::wait_until;

const STUBBORN: &str = "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn sigterm_gives_the_agent_its_grace_and_passes_its_code_on() {
    let mut supervisor =
        Supervisor::new().shell("trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done").start();
    supervisor.stdout.wait_text("up");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 4);
    assert!(supervisor.stdout.text().ends_with("bye\n"));
}

#[test]
fn an_agent_that_overruns_its_grace_is_killed_and_the_record_says_so() {
    let mut supervisor = Supervisor::new().set("grace", "300ms").shell(STUBBORN).start();
    supervisor.stdout.wait_text("up");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 128 + 9);
    let record = supervisor.termination();
    assert_eq!(record["signal"], 9);
    assert!(record["reason"].as_str().is_some_and(|r| r.contains("grace")), "{record}");
}

#[test]
fn a_second_sigterm_ends_the_grace_period() {
    let mut supervisor = Supervisor::new().set("grace", "1h").shell(STUBBORN).start();
    supervisor.stdout.wait_text("up");
    supervisor.signal(Signal::SIGTERM);
    supervisor.stdout.wait_text("told");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 128 + 9);
}

#[test]
fn while_it_stops_it_is_alive_and_not_ready() {
    let mut supervisor = Supervisor::new().set("grace", "1h").shell(STUBBORN).start();
    supervisor.stdout.wait_text("up");
    supervisor.wait_ready();
    supervisor.signal(Signal::SIGTERM);
    supervisor.stdout.wait_text("told");
    assert_eq!(supervisor.get("/readyz").status, 503);
    assert_eq!(supervisor.get("/livez").status, 200);
    assert_eq!(supervisor.health()["status"], "draining");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();
}

fn whole_tree(builder: Builder) {
    let agent = binaries::helper("agent");
    let mut supervisor =
        builder.set("grace", "500ms").agent([agent.as_os_str(), "tree".as_ref(), "200".as_ref()]).start();
    supervisor.stdout.wait_text("200 processes");
    let before: Vec<_> = supervisor.processes().into_iter().filter(|&p| tests::processes::name(p) == "agent").collect();
    assert!(before.len() >= 150, "{} processes", before.len());
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 128 + 9);
    let left: Vec<_> = before.into_iter().filter(|&p| tests::processes::alive(p)).collect();
    assert!(left.is_empty(), "{left:?} live on");
}

#[test]
fn a_stop_leaves_nobody_of_the_tree_session_leaders_included() {
    whole_tree(Supervisor::new());
}

#[test]
fn a_stop_leaves_nobody_of_the_tree_as_pid_1() {
    if available(Pids::First, Profile::Plain) {
        whole_tree(Supervisor::new().first());
    }
}

#[test]
fn a_stop_leaves_nobody_of_the_tree_without_any_capability() {
    if available(Pids::Child, Profile::Restricted) {
        whole_tree(Supervisor::new().child().profile(Profile::Restricted));
    }
}

#[test]
fn a_stop_leaves_nobody_of_another_uids_tree() {
    if available(Pids::Child, Profile::Baseline) {
        whole_tree(Supervisor::new().child().profile(Profile::Baseline));
    }
}

#[test]
fn a_fork_bomb_is_stopped() {
    if !available(Pids::Child, Profile::Baseline) {
        return;
    }
    let agent = binaries::helper("agent");
    let mut supervisor = Supervisor::new()
        .child()
        .profile(Profile::Baseline)
        .set("grace", "300ms")
        .set("agent-limits", "nproc=200")
        .agent([agent.as_os_str(), "bomb".as_ref()])
        .start();
    tests::wait::wait_until("a crowd", || supervisor.processes().len() > 100);
    let before = supervisor.processes();
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 128 + 9);
    assert!(before.into_iter().all(|p| !tests::processes::alive(p)));
}

#[test]
fn a_stop_during_the_wait_for_a_restart_ends_at_once_with_the_last_code() {
    let mut supervisor = Supervisor::new()
        .set("agent-restart", "always")
        .set("agent-restart-min", "1h")
        .set("agent-restart-max", "1h")
        .shell("exit 6")
        .start();
    supervisor.wait_state("waiting");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 6);
}

#[test]
fn when_the_supervisor_is_killed_the_shim_ends_the_tree() {
    if !available(Pids::Child, Profile::Plain) {
        return;
    }
    let supervisor = Supervisor::new().set("grace", "200ms").shell("setsid sleep 1000 & echo up; sleep 1000").start();
    supervisor.stdout.wait_text("up");
    let tree = supervisor.processes();
    assert!(tree.len() >= 3, "{tree:?}");
    supervisor.signal(Signal::SIGKILL);
    tests::wait::wait_until("the end of the tree", || !tree.iter().any(|&p| tests::processes::alive(p)));
}

#[test]
fn a_stop_signal_is_heard_in_a_storm_of_others() {
    // Everything that is forwarded and that a shell can be told to ignore.
    let storm = [1, 10, 12, 16, 18, 23, 24, 25, 28];
    let script = "trap '' 1 10 12 16 24 25; trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done";
    let mut supervisor = Supervisor::new().shell(script).start();
    supervisor.stdout.wait_text("up");
    let pid = supervisor.pid().as_raw() as u64;
    for _ in 0..300 {
        for signal in storm {
            tests::kernel::call(libc::SYS_kill, &[pid, signal]).expect("our own child");
        }
    }
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 5);
}

#[test]
fn an_agent_that_is_told_to_stop_may_fail_its_hung_check() {
    let builder = Supervisor::new();
    let alive = builder.path("workspace").join("alive");
    let file = alive.display();
    let script = format!("touch {file}; trap 'rm {file}; sleep 1; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    let mut supervisor = builder
        .set("agent-hung", format!("exec:/bin/test -e {file}"))
        .set("agent-hung-interval", "50ms")
        .set("agent-hung-failures", "2")
        .shell(&script)
        .start();
    supervisor.stdout.wait_text("up");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 0);
}

#[test]
fn a_sigterm_ends_the_wait_for_a_reader_who_has_stopped() {
    // More than the reader's pipe holds, less than that and our own: the agent ends, its output is still here.
    let mut supervisor =
        Supervisor::new().set("grace", "1h").hold_stdout().shell("head -c 100000 /dev/zero; exit 3").start();
    // From here on the end of the agent and its tree is known; the signal is not about them any more.
    wait_until("it drains", || supervisor.health()["readiness_reason"] == "the supervisor stops");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 3);
}
