//! The Pod is deleted: the agent gets its grace, and nobody gets more.

use crate::cluster::{Level, in_namespace};
use crate::pod::message;
use crate::sandbox::Sandbox;

#[test]
fn a_deleted_pods_agent_gets_term_and_ends_as_it_likes() {
    in_namespace(Level::Restricted, async |scene| {
        let pod =
            Sandbox::shell("trap 'echo bye; exit 6' TERM; echo armed; while :; do sleep 0.1; done").start(scene).await;
        pod.says("armed").await;
        let ended = pod.delete(30).await;
        assert_eq!(ended.exit_code, 6, "the agent's own code, not the signal's");
        assert_eq!(message(&ended)["exit"], 6);
        pod.gone().await;
    });
}

#[test]
fn an_agent_that_knows_no_signals_ends_with_143() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("echo armed; exec sleep infinity").start(scene).await;
        pod.says("armed").await;
        let ended = pod.delete(30).await;
        assert_eq!(ended.exit_code, 128 + 15);
        assert_eq!(message(&ended)["signal"], 15);
    });
}

#[test]
fn an_agent_that_ignores_term_is_killed_by_the_supervisor_before_the_kubelet_has_to() {
    // Its own session, deaf to TERM, like its parent.
    let script = "trap '' TERM; setsid bash -c 'trap \"\" TERM; while :; do sleep 1; done' & echo armed; while :; do sleep 1; done";
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(script)
            .env("SUPERVISOR_GRACE", "2s")
            .change(|spec| spec.termination_grace_period_seconds = Some(600))
            .start(scene)
            .await;
        pod.says("armed").await;
        // The kubelet would wait ten minutes, far beyond the test's own limit.
        let ended = pod.delete(600).await;
        assert_eq!(ended.exit_code, 128 + 9);
        assert_eq!(message(&ended)["signal"], 9, "the supervisor was there to tell: it was not the one killed");
        pod.gone().await;
    });
}
