//! The record that the kubelet shows: one whole JSON value at every moment.

use std::fs;

use nix::sys::signal::Signal;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::Supervisor;
use tests::wait::wait_until;

#[test]
fn a_provisional_record_is_there_while_the_agent_runs() {
    let supervisor = Supervisor::new().set("agent-id", "a-1").shell("echo up; sleep 1000").start();
    supervisor.stdout.wait_text("up");
    wait_until("the running record", || supervisor.termination()["state"] == "running");
    let record = supervisor.termination();
    assert_eq!(record["v"], 1);
    assert_eq!(record["agent_id"], "a-1");
    assert!(record["exit"].is_null());
}

#[test]
fn a_record_is_there_before_the_agents_first_word() {
    tests::table::each("first words", 0..20, |number| {
        let supervisor = Supervisor::new().shell("echo up; sleep 1000").start();
        supervisor.stdout.wait_text("up");
        supervisor.termination().is_null().then(|| format!("run {number}: the termination log is empty"))
    });
}

#[test]
fn after_a_kill_of_everybody_at_once_the_next_supervisor_says_so() {
    // what the kernel does to a whole container when memory runs out
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let mut first = Supervisor::new().first().shell("echo up; sleep 1000").start();
    first.stdout.wait_text("up");
    wait_until("the running record", || first.termination()["state"] == "running");
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    assert_eq!(first.termination()["state"], "running", "the provisional record is all that is left");
    let second = Supervisor::new().set("state-dir", first.paths().state.clone()).shell("sleep 1000").start();
    second.wait_ready();
    let previous = second.health()["agent"]["previous"].as_str().unwrap_or_default().to_string();
    assert!(previous.contains("lost"), "{previous:?}");
    second.wait_log("the run before this supervisor left no last word");
}

#[test]
fn after_an_orderly_end_the_next_supervisor_finds_nothing_lost() {
    let mut first = Supervisor::new().shell("exit 3").start();
    assert_eq!(first.wait_code(), 3);
    let second = Supervisor::new().set("state-dir", first.paths().state.clone()).shell("sleep 1000").start();
    second.wait_ready();
    assert!(second.health()["agent"]["previous"].is_null());
}

#[test]
fn a_kill_at_any_moment_leaves_one_whole_record() {
    // the kubelet reads when nobody writes any more; a torn record would be what a kill left in the middle
    tests::table::each("kills", 0..40u64, |number| {
        let mut supervisor = Supervisor::new()
            .set("agent-restart", "always")
            .set("agent-restart-min", "1ms")
            .set("agent-restart-max", "1ms")
            .shell("exit 1")
            .start();
        supervisor.address();
        wait_until("the first record", || !fs::read(&supervisor.paths().termination).unwrap_or_default().is_empty());
        // not a wait for anything: another moment each time
        std::thread::sleep(std::time::Duration::from_micros(number * 997 % 40_000));
        supervisor.signal(Signal::SIGKILL);
        supervisor.wait_exit();
        let text = fs::read_to_string(&supervisor.paths().termination).unwrap_or_default();
        let whole = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|v| v["v"] == 1);
        (!whole || text.len() > 4096).then(|| format!("{text:?}"))
    });
}

#[test]
fn a_link_in_place_of_the_termination_log_is_not_followed() {
    let builder = Supervisor::new();
    let victim = builder.path("victim");
    fs::write(&victim, "precious").expect("our own file");
    std::os::unix::fs::symlink(&victim, builder.path("termination-log")).expect("our own link");
    let mut supervisor = builder.shell("exit 0").start();
    supervisor.wait_exit();
    assert_eq!(fs::read_to_string(&victim).expect("our own file"), "precious");
}
