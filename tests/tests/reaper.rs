//! Nobody stays a zombie, whoever made it.

use tests::binaries;
use tests::processes;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};
use tests::wait::wait_until;

const ORPHANS: usize = 600;

fn orphans(builder: Builder) {
    let script = format!("{} orphans {ORPHANS}; echo made; sleep 1000", binaries::helper("agent").display());
    let supervisor = builder.shell(&script).start();
    supervisor.stdout.wait_text("made");
    wait_until("no zombie", || !supervisor.processes().into_iter().any(processes::is_zombie));
    wait_until("the count of orphans", || supervisor.metric("supervisor_orphans_reaped_total") == Some(ORPHANS as f64));
}

#[test]
fn orphans_of_the_agent_are_reaped_and_counted() {
    orphans(Supervisor::new());
}

#[test]
fn orphans_of_the_agent_are_reaped_by_pid_1() {
    if available(Pids::First, Profile::Plain) {
        orphans(Supervisor::new().first());
    }
}

#[test]
fn orphans_of_the_agent_are_reaped_without_any_capability() {
    if available(Pids::Child, Profile::Restricted) {
        orphans(Supervisor::new().child().profile(Profile::Restricted));
    }
}

#[test]
fn orphans_of_a_kubectl_exec_are_reaped_by_pid_1() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let supervisor = Supervisor::new().first().shell("echo up; sleep 1000").start();
    supervisor.stdout.wait_text("up");
    for _ in 0..10 {
        // a background job outlives the shell that started it
        let script = "(sleep 0.2 & sleep 0.1 &) > /dev/null 2>&1";
        assert!(supervisor.enter(&["sh", "-c", script]).status.success());
    }
    wait_until("twenty orphans", || supervisor.metric("supervisor_orphans_reaped_total") >= Some(20.0));
    assert!(!supervisor.processes().into_iter().any(processes::is_zombie));
    assert_eq!(supervisor.agent_state(), "running");
}

#[test]
fn the_agents_own_children_keep_their_exit_codes() {
    // whoever reaps by -1 would steal these from the agent
    let script = "i=0; bad=0; while [ $i -lt 200 ]; do sh -c \"exit $((i % 256))\"; [ $? = $((i % 256)) ] || bad=1; \
                  i=$((i+1)); done; exit $bad";
    let mut supervisor = Supervisor::new().shell(script).start();
    assert_eq!(supervisor.wait_code(), 0);
}
