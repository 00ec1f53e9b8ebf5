//! The agent ends: who starts it again, and what the Pod's status says.

use crate::cluster::{Level, in_namespace, until};
use crate::pod::{AGENT, SOON, container, message};
use crate::sandbox::Sandbox;

/// Counts its runs in the workspace, which outlives the agent and the container.
const COUNT: &str =
    "n=$(cat /workspace/runs 2>/dev/null || echo 0); n=$((n+1)); echo $n > /workspace/runs; echo run-$n;";

#[test]
fn never_the_pod_ends_with_the_agents_exit_code_and_says_so() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("exit 42").start(scene).await;
        let ended = pod.ended().await;
        assert_eq!(ended.exit_code, 42);
        assert_eq!(message(&ended)["exit"], 42);
        assert_eq!(pod.outcome().await, "Failed");
    });
}

#[test]
fn a_signal_becomes_128_plus_its_number() {
    in_namespace(Level::Restricted, async |scene| {
        // BASHPID, because Kubernetes makes one dollar of two in a command.
        let pod = Sandbox::shell("kill -SEGV $BASHPID; sleep 60").start(scene).await;
        let ended = pod.ended().await;
        assert_eq!(ended.exit_code, 128 + 11);
        assert_eq!(message(&ended)["signal"], 11);
    });
}

#[test]
fn on_failure_the_supervisor_starts_it_again_until_it_succeeds() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(&format!("{COUNT} [ $n -ge 3 ] || exit 5"))
            .env("SUPERVISOR_AGENT_RESTART", "on-failure")
            .env("SUPERVISOR_AGENT_RESTART_MIN", "50ms")
            .start(scene)
            .await;
        let ended = pod.ended().await;
        assert_eq!(ended.exit_code, 0);
        assert_eq!(pod.agent_output().await, ["run-1\n", "run-2\n", "run-3\n"]);
        let restarts = pod.until("its status", |pod| container(pod, AGENT).map(|c| c.restart_count)).await;
        assert_eq!(restarts, 0, "the kubelet had nothing to do");
    });
}

#[test]
fn always_it_is_started_again_after_success_too_and_health_counts() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(&format!("{COUNT} [ $n -lt 3 ] || exec sleep infinity"))
            .env("SUPERVISOR_AGENT_RESTART", "always")
            .env("SUPERVISOR_AGENT_RESTART_MIN", "50ms")
            .start(scene)
            .await;
        pod.says("run-3").await;
        let agent = until("health counts two restarts", SOON, async || {
            let agent = pod.health().await.agent;
            (agent.restarts == 2 && agent.state == "running").then_some(agent)
        })
        .await;
        assert_eq!(agent.last_exit_code, Some(0));
    });
}

#[test]
fn never_leaves_the_restart_to_the_kubelet() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(&format!("{COUNT} [ $n -ge 2 ] || exit 9; exec sleep infinity"))
            .change(|spec| spec.restart_policy = Some("OnFailure".to_owned()))
            .start(scene)
            .await;
        let last = pod.restarted(1).await;
        assert_eq!(last.exit_code, 9);
        assert_eq!(message(&last)["exit"], 9);
        pod.says("run-2").await;
        assert_eq!(pod.health().await.agent.previous, None, "the run before had told how it ended");
    });
}

#[test]
fn mistakes_in_settings_are_told_together_in_the_termination_message() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("true")
            .env("SUPERVISOR_GRACE", "25 parsecs")
            .env("SUPERVISOR_AGENT_RESTART", "sometimes")
            .start(scene)
            .await;
        let ended = pod.ended().await;
        assert_eq!(ended.exit_code, 78);
        let text = ended.message.unwrap_or_default();
        assert!(text.contains("SUPERVISOR_GRACE") && text.contains("SUPERVISOR_AGENT_RESTART"), "{text}");
    });
}
