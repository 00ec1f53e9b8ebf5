//! `kubectl exec` brings processes that no shim has started; PID 1 inherits what they leave behind.

use crate::cluster::{Level, in_namespace, until};
use crate::pod::SOON;
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
