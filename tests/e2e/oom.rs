//! Out of memory: the kernel kills the agent, or the whole container.
//!
//! With cgroup v1 the kernel picks one process, and `oom_score_adj` makes that the agent. With cgroup v2 the kubelet
//! sets `memory.oom.group`, so all die at once, the supervisor too; that is played here by SIGKILL of every process.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cluster::{Level, Scene, in_namespace};
use crate::pod::{AGENT, Running, container, message};
use crate::sandbox::{Sandbox, container_security};

fn memory_limit(pod: Sandbox, limit: &str) -> Sandbox {
    let limits = BTreeMap::from([("memory".to_owned(), Quantity(limit.to_owned()))]);
    pod.container(move |c| c.resources.get_or_insert_default().limits = Some(limits))
}

/// SIGKILL to every process of the Pod's agent container, by a privileged Pod that sees the node's processes.
async fn kill_whole_container(pod: &Running) {
    let id = pod
        .until("the container has an id", |pod| {
            Some(container(pod, AGENT)?.container_id.as_deref()?.rsplit_once("//")?.1.to_owned())
        })
        .await;
    // The id is what tells this container's processes from all others of the node.
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "not a container id: {id:?}");
    let scene = Scene::create(Level::Privileged).await;
    let script = format!(
        "pids=$(grep -l {id} /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3); echo killing $pids; kill -9 $pids"
    );
    let killer = Sandbox::shell("")
        .name("killer")
        .change(|spec| spec.host_pid = Some(true))
        .container(move |c| {
            // Nobody supervises the killer.
            c.command = Some(["bash", "-c", &script].map(str::to_owned).into());
            let mut security = container_security(Level::Privileged);
            security.allow_privilege_escalation = None;
            security.capabilities = None;
            security.privileged = Some(true);
            c.security_context = Some(security);
        })
        .start(&scene)
        .await;
    let ended = killer.ended().await;
    let log = killer.logs_of(AGENT).await;
    scene.remove().await;
    assert_eq!(ended.exit_code, 0, "{log}");
}

#[test]
fn the_kernel_kills_the_agent_and_the_supervisor_reports_signal_9() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = memory_limit(Sandbox::shell("exec tail /dev/zero"), "48Mi").start(scene).await;
        let ended = pod.ended().await;
        assert_eq!(ended.exit_code, 128 + 9);
        assert_eq!(message(&ended)["signal"], 9, "PID 1 survived and told");
    });
}

#[test]
fn a_kill_of_the_whole_container_is_told_after_it_was_restarted() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell("echo alive; exec sleep infinity")
            .change(|spec| spec.restart_policy = Some("Always".to_owned()))
            .start(scene)
            .await;
        pod.says("alive").await;
        assert_eq!(pod.health().await.agent.state, "running");
        kill_whole_container(&pod).await;

        let last = pod.restarted(1).await;
        assert_eq!(last.exit_code, 128 + 9);
        let provisional = message(&last);
        assert_eq!(provisional["state"], "running", "what was last known: {provisional}");
        pod.says("alive").await;
        let previous = pod.health().await.agent.previous.unwrap_or_default();
        assert!(previous.starts_with("lost"), "{previous:?}");
    });
}

#[test]
fn an_agent_that_ran_out_of_memory_is_started_again_and_health_says_what_happened() {
    let script =
        "test -e /workspace/once && { echo again; exec sleep infinity; }; touch /workspace/once; exec tail /dev/zero";
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(script)
            .env("SUPERVISOR_AGENT_RESTART", "on-failure")
            .env("SUPERVISOR_AGENT_RESTART_MIN", "50ms");
        let pod = memory_limit(pod, "48Mi").start(scene).await;
        pod.says("again").await;
        let agent = pod.health().await.agent;
        assert_eq!((agent.last_signal, agent.last_exit_code, agent.restarts), (Some(9), Some(137), 1));
        let restarts = pod.until("its status", |pod| container(pod, AGENT).map(|c| c.restart_count)).await;
        assert_eq!(restarts, 0, "only the agent died");
    });
}
