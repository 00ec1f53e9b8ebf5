//! When the agent is started again.

use nix::sys::signal::Signal;
use tests::strace::supervisor_with;
use tests::supervisor::{Builder, Supervisor};
use tests::wait::wait_until;

fn quick(policy: &str) -> Builder {
    Supervisor::new().set("agent-restart", policy).set("agent-restart-min", "10ms").set("agent-restart-max", "30ms")
}

#[test]
fn never_is_the_default() {
    let mut supervisor = Supervisor::new().shell("echo up; exit 1").start();
    assert_eq!(supervisor.wait_code(), 1);
    assert_eq!(supervisor.stdout.to_end(), b"up\n");
}

#[test]
fn on_failure_starts_again_until_it_succeeds() {
    let supervisor = quick("on-failure");
    let tries = supervisor.path("workspace/tries");
    let script = format!("echo x >> {0}; test $(wc -l < {0}) -ge 4", tries.display());
    let mut supervisor = supervisor.shell(&script).start();
    assert_eq!(supervisor.wait_code(), 0);
    assert_eq!(std::fs::read_to_string(tries).expect("the agent wrote it"), "x\nx\nx\nx\n");
    assert_eq!(supervisor.termination()["restarts"], 3);
}

#[test]
fn on_failure_counts_a_signal_as_failure() {
    let supervisor = quick("on-failure").shell("echo up; kill -9 $$").start();
    wait_until("a third run", || supervisor.stdout.text().matches("up").count() >= 3);
}

#[test]
fn always_starts_again_after_success_too() {
    let mut supervisor = quick("always").shell("echo up").start();
    wait_until("a third run", || supervisor.stdout.text().matches("up").count() >= 3);
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();
}

#[test]
fn the_back_off_grows_and_is_bounded() {
    let supervisor = Supervisor::new()
        .set("agent-restart", "always")
        .set("agent-restart-min", "2ms")
        .set("agent-restart-max", "40ms")
        .shell("exit 1")
        .start();
    wait_until("twenty restarts", || supervisor.metric("supervisor_agent_restarts_total") >= Some(20.0));
    let delays: Vec<u64> = supervisor.log().iter().filter_map(|line| line["delay_ms"].as_u64()).collect();
    assert!(delays.iter().all(|&d| d <= 40), "{delays:?}");
    let first = delays.iter().take(3).max();
    assert!(delays.iter().skip(8).max() > first, "{delays:?}");
}

/// Found by `torture trees`: it ended the supervisor as a bug of its own.
#[test]
fn a_shim_that_is_killed_before_the_agent_runs_is_an_end_like_any_other() {
    let scratch = tests::binaries::scratch();
    let options = "-e trace=landlock_restrict_self -e inject=landlock_restrict_self:signal=KILL";
    let Some(program) = supervisor_with(scratch.path(), options) else { return };
    let supervisor = quick("always").program(program.clone()).shell("echo up").start();
    wait_until("a third try", || supervisor.metric("supervisor_agent_restarts_total") >= Some(2.0));
    assert_eq!(supervisor.health()["agent"]["last_exit_code"], 128 + 9);
    let mut supervisor = quick("never").program(program).shell("echo up").start();
    assert_eq!(supervisor.wait_code(), 128 + 9);
    assert_eq!(supervisor.stdout.to_end(), b"");
}

#[test]
fn a_fault_of_ours_at_a_later_start_is_reported_as_such() {
    let supervisor = quick("always");
    let program = supervisor.path("workspace/program");
    std::fs::create_dir_all(program.parent().expect("in the workspace")).expect("our own directory");
    tests::binaries::script(&program, &format!("rm {}", program.display()));
    let mut supervisor = supervisor.agent([program.clone()]).start();
    assert_eq!(supervisor.wait_code(), 78);
    let reason = supervisor.termination()["reason"].as_str().unwrap_or_default().to_string();
    assert!(reason.contains(program.to_str().expect("our own path")), "{reason}");
}
