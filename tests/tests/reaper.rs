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

#[test]
fn an_end_is_told_truthfully_while_pid_1_reaps_a_storm_of_orphans() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    // whoever learns of the shim's end from the reaper before it has read the shim's last words loses them
    let supervisor = Supervisor::new()
        .first()
        .set("agent-restart", "always")
        .set("agent-restart-min", "1ms")
        .set("agent-restart-max", "1ms")
        .shell("exit 7")
        .start();
    supervisor.address();
    let agent = binaries::helper("agent");
    let storm = supervisor.enter(&[&*agent.to_string_lossy(), "orphans", "3000"]);
    assert!(storm.status.success(), "{storm:?}");
    let lines = supervisor.log();
    let lost: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(lost.is_empty(), "{} of {} ends were lost: {}", lost.len(), lines.len() / 4, lost[0]);
    let wrong: Vec<_> = lines.iter().filter_map(|line| line["exit_code"].as_i64()).filter(|&code| code != 7).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
