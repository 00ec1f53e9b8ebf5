//! `kubectl exec` brings processes that no shim has started; PID 1 inherits what they leave behind.
//!
//! Where the containers of a Pod share one process namespace, PID 1 is the pause container, and the supervisor is the
//! subreaper of its own tree only.

use crate::cluster::{Level, in_namespace, until};
use crate::pod::{SOON, message};
use crate::sandbox::Sandbox;

/// Prints the pids of zombies; reading one's own status makes none.
const ZOMBIES: &str = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || true";

#[test]
fn processes_of_kubectl_exec_leave_no_zombies() {
    // Twenty double forks, half of them in a session of their own, that outlive the exec.
    let orphans = "for i in $(seq 10); do (sleep 0.2 & ); (setsid sleep 0.2 & ); done";
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("exec sleep infinity").start(scene).await;
        pod.started().await;
        for _ in 0..5 {
            pod.shell(orphans).await;
        }
        until("no zombie is left", SOON, async || pod.shell(ZOMBIES).await.is_empty().then_some(())).await;
        until("every sleeper is gone", SOON, async || {
            let sleepers = pod.shell("grep -lx sleep /proc/[0-9]*/comm 2>/dev/null | wc -l").await;
            (sleepers.trim() == "1").then_some(())
        })
        .await;
        assert_eq!(pod.shell(ZOMBIES).await, "");
        let reaped = pod.metric("supervisor_orphans_reaped_total").await.expect("the metric is there");
        assert!(reaped >= 100.0, "only {reaped} of 100 orphans were reaped by us");
        let health = pod.health().await;
        assert_eq!((health.agent.state.as_str(), health.agent.restarts), ("running", 0));
    });
}

#[test]
fn in_a_shared_process_namespace_the_supervisor_is_not_pid_1_and_does_its_work() {
    // Leaves orphans, then ends; what it started in another session must not outlive it.
    let script = "for i in $(seq 10); do (sleep 0.1 & ); done; setsid sleep infinity & echo started; \
                  until test -e /workspace/go-on; do sleep 0.1; done; exit 3";
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(script).change(|spec| spec.share_process_namespace = Some(true)).start(scene).await;
        pod.says("started").await;
        assert_ne!(pod.shell("cat /proc/1/comm").await.trim(), "supervisor");
        until("no zombie is left", SOON, async || pod.shell(ZOMBIES).await.is_empty().then_some(())).await;
        assert_eq!(pod.health().await.agent.state, "running");
        pod.shell("touch /workspace/go-on").await;
        let ended = pod.ended().await;
        assert_eq!(ended.exit_code, 3);
        assert_eq!(message(&ended)["exit"], 3);
    });
}
