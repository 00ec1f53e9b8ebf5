//! `sd_notify` as systemd defines it, from the agent's own tree only.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::{Builder, Supervisor};
use tests::wait::wait_until;
use tests::{binaries, processes};

fn notifier(words: &[&str]) -> Builder {
    let agent = [binaries::helper("agent").into_os_string(), "notify".into()];
    Supervisor::new().set("agent-ready", "notify").agent(agent.into_iter().chain(words.iter().map(Into::into)))
}

#[test]
fn ready_and_status_are_heard() {
    let mut supervisor = notifier(&["STATUS=warming up", "wait", "READY=1\nSTATUS=at work", "stay"])
        .stdin(std::process::Stdio::piped())
        .start();
    wait_until("the first words", || supervisor.health()["agent"]["status_text"] == "warming up");
    assert_eq!(supervisor.get("/readyz").status, 503);
    let input = supervisor.stdin();
    drop(input);
    supervisor.wait_ready();
    wait_until("the next words", || supervisor.health()["agent"]["status_text"] == "at work");
}

#[test]
fn stopping_makes_it_unready() {
    let mut supervisor =
        notifier(&["READY=1", "wait", "STOPPING=1", "stay"]).stdin(std::process::Stdio::piped()).start();
    supervisor.wait_ready();
    drop(supervisor.stdin());
    wait_until("not ready", || supervisor.get("/readyz").status == 503);
}

#[test]
fn a_child_that_waits_for_the_barrier_is_heard_however_soon_it_leaves() {
    tests::table::each("short speakers", 0..20, |number| {
        let script = format!("{} notify READY=1 barrier > /dev/null; sleep 1000", binaries::helper("agent").display());
        let supervisor = Supervisor::new().set("agent-ready", "notify").shell(&script).start();
        let heard = tests::wait::within(std::time::Duration::from_secs(5), || {
            (supervisor.get("/readyz").status == 200).then_some(())
        });
        heard.is_none().then(|| {
            format!("run {number} was not heard; refused: {:?}", supervisor.metric("supervisor_notify_refused_total"))
        })
    });
}

#[test]
fn a_watchdog_that_falls_silent_ends_the_agent() {
    let agent = binaries::helper("agent");
    let mut supervisor = Supervisor::new()
        .set("agent-ready", "notify")
        .set("agent-hung", "notify")
        .set("agent-hung-interval", "200ms")
        .agent([agent.as_os_str(), "notify".as_ref(), "READY=1".as_ref(), "WATCHDOG=1".as_ref(), "stay".as_ref()])
        .start();
    assert_eq!(supervisor.wait_code(), 128 + 6);
    let reason = supervisor.termination()["reason"].as_str().unwrap_or_default().to_string();
    assert!(reason.contains("hung"), "{reason}");
}

#[test]
fn nobody_outside_the_tree_is_heard() {
    let supervisor =
        Supervisor::new().set("agent-ready", "notify").shell("echo \"at $NOTIFY_SOCKET\"; sleep 1000").start();
    let path = supervisor
        .stdout
        .wait_for("the socket", |text| text.lines().find_map(|line| line.strip_prefix("at ").map(str::to_string)));
    let socket = UnixDatagram::unbound().expect("a socket");
    for lie in ["READY=1", "STATUS=lies", "STOPPING=1", "MAINPID=1"] {
        socket.send_to(lie.as_bytes(), &path).expect("the socket takes it");
    }
    wait_until("four refusals", || supervisor.metric("supervisor_notify_refused_total") == Some(4.0));
    assert_eq!(supervisor.get("/readyz").status, 503);
    assert!(supervisor.health()["agent"]["status_text"].is_null());
    assert!(!std::path::Path::new(&path).starts_with(&supervisor.paths().state));
}

#[test]
fn a_kubectl_exec_is_not_heard() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let supervisor =
        Supervisor::new().first().set("agent-ready", "notify").shell("echo \"at $NOTIFY_SOCKET\"; sleep 1000").start();
    let path = supervisor
        .stdout
        .wait_for("the socket", |text| text.lines().find_map(|line| line.strip_prefix("at ").map(str::to_string)));
    let agent = binaries::helper("agent");
    let variable = format!("NOTIFY_SOCKET={path}");
    let exec = supervisor.enter(&["env", &variable, agent.to_str().expect("UTF-8"), "notify", "READY=1"]);
    assert!(exec.status.success(), "{exec:?}");
    wait_until("a refusal", || supervisor.metric("supervisor_notify_refused_total") == Some(1.0));
    assert_eq!(supervisor.get("/readyz").status, 503);
}

#[test]
fn a_main_pid_that_the_agent_claims_changes_nothing() {
    let mut supervisor = notifier(&["READY=1\nMAINPID=1", "stay"]).start();
    supervisor.wait_ready();
    let health = supervisor.health();
    assert_eq!(health["agent"]["state"], "running");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait_code(), 128 + 15);
}

#[test]
fn descriptors_and_floods_do_no_harm() {
    let words: Vec<String> =
        (0..300).map(|n| if n % 2 == 0 { "x".repeat(8000) } else { format!("STATUS={n}") }).collect();
    let mut all: Vec<&str> = words.iter().map(String::as_str).collect();
    all.extend(["READY=1", "stay"]);
    let supervisor = notifier(&all).start();
    supervisor.wait_ready();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", supervisor.pid())).map(Iterator::count);
    // only root may look into a process that cannot be dumped
    assert!(descriptors.map_or(true, |count| count < 64));
    assert!(processes::alive(supervisor.pid()));
}
