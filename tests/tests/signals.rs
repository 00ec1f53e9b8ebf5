//! Which signals reach whom.

use nix::sys::signal::Signal;
use tests::stage::{Pids, Profile, available};
use tests::supervisor::Supervisor;
use tests::table;

/// A shell that says which of these it got; `$1` … are names as `trap` knows them.
fn listener(names: &[&str]) -> String {
    let traps: Vec<String> = names.iter().map(|n| format!("trap 'echo got {n}' {n};")).collect();
    format!("{} echo listening; while :; do sleep 0.05; done", traps.join(" "))
}

#[test]
fn signals_that_are_no_stop_are_forwarded_to_the_agent() {
    let names = ["HUP", "USR1", "USR2", "WINCH"];
    let mut supervisor = Supervisor::new().shell(&listener(&names)).start();
    supervisor.stdout.wait_text("listening");
    for (name, signal) in names.iter().zip([Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH]) {
        supervisor.signal(signal);
        supervisor.stdout.wait_text(&format!("got {name}"));
    }
    assert!(!supervisor.has_ended());
}

#[test]
fn each_stop_signal_reaches_the_agent_as_itself() {
    let signals = [("TERM", Signal::SIGTERM), ("INT", Signal::SIGINT), ("QUIT", Signal::SIGQUIT)];
    table::each("stop signals", signals, |(name, signal)| {
        let script = format!("trap 'echo got {name}; exit 3' {name}; echo listening; while :; do sleep 0.05; done");
        let mut supervisor = Supervisor::new().shell(&script).start();
        supervisor.stdout.wait_text("listening");
        supervisor.signal(signal);
        let code = supervisor.wait_code();
        let said = String::from_utf8_lossy(&supervisor.stdout.to_end()).contains(&format!("got {name}"));
        (code != 3 || !said).then(|| format!("{name}: exit {code}, said {said}"))
    });
}

#[test]
fn as_pid_1_a_stop_signal_from_inside_is_ignored_and_counted() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let supervisor = Supervisor::new().first().shell("echo up; sleep 1000").start();
    supervisor.stdout.wait_text("up");
    assert!(supervisor.enter(&["kill", "-TERM", "1"]).status.success());
    supervisor.wait_log("ignored a stop signal from inside the Pod; SUPERVISOR_SIGNALS_FROM_INSIDE=true obeys it");
    assert_eq!(supervisor.metric("supervisor_signals_ignored_total"), Some(1.0));
    assert_eq!(supervisor.agent_state(), "running");
}

#[test]
fn as_pid_1_a_stop_signal_from_inside_is_obeyed_where_the_operator_wants_it() {
    if !available(Pids::First, Profile::Plain) {
        return;
    }
    let mut supervisor =
        Supervisor::new().first().set("signals-from-inside", "true").shell("echo up; exec sleep 1000").start();
    supervisor.stdout.wait_text("up");
    // PID 1 may end this command with everybody else before it can say that it sent the signal
    supervisor.enter(&["kill", "-TERM", "1"]);
    assert_eq!(supervisor.wait_code(), 128 + 15);
}

#[test]
fn the_agent_starts_with_no_signal_blocked_or_ignored() {
    let mut supervisor = Supervisor::new().shell("grep -E '^Sig(Blk|Ign)' /proc/self/status").start();
    assert_eq!(supervisor.wait_code(), 0);
    let text = String::from_utf8_lossy(&supervisor.stdout.to_end()).into_owned();
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}
