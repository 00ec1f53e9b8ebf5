//! The two profiles, each in a namespace that enforces its Pod Security level (001-34).

use std::collections::HashMap;

use crate::cluster::{Level, in_namespace};
use crate::pod::Running;
use crate::sandbox::{Sandbox, USER};

/// Prints who the agent is, as the kernel has it, then stays.
const WHO: &str = "cat /proc/self/status; echo status-ends; exec sleep infinity";

/// The agent's `/proc/self/status`, by field.
async fn agent_status(pod: &Running) -> HashMap<String, String> {
    pod.says("status-ends").await;
    let lines = pod.agent_output().await;
    let fields = lines.iter().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

fn assert_no_capability(status: &HashMap<String, String>) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Seccomp"], "2", "2 is a filter");
}

#[test]
fn restricted_the_agent_has_the_supervisors_uid_and_no_capability() {
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(WHO).start(scene).await;
        let status = agent_status(&pod).await;
        let id = format!("{USER} {USER} {USER} {USER}");
        assert_eq!((&status["Uid"], &status["Gid"]), (&id, &id));
        assert_no_capability(&status);
        // The runtime's own filter is one; the shim's comes on top.
        let filters: u32 = status["Seccomp_filters"].parse().expect("a number");
        assert!(filters >= 2, "only {filters} seccomp filters");
    });
}

#[test]
fn baseline_a_root_supervisor_gives_the_agent_its_own_uid_and_no_capability() {
    in_namespace(Level::Baseline, async |scene| {
        let pod = Sandbox::shell(WHO).env("SUPERVISOR_AGENT_USER", "10001:10001").start(scene).await;
        let status = agent_status(&pod).await;
        let id = format!("{USER} {USER} {USER} {USER}");
        assert_eq!((&status["Uid"], &status["Gid"]), (&id, &id));
        assert_eq!(status["Groups"], "", "supplementary groups are dropped");
        assert_no_capability(&status);
        let supervisor = pod.shell("grep Uid /proc/1/status").await;
        assert_eq!(supervisor.split_whitespace().collect::<Vec<_>>(), ["Uid:", "0", "0", "0", "0"]);
    });
}

#[test]
fn the_agent_cannot_touch_the_supervisors_state_or_signal_it() {
    // Each line prints only what must not happen.
    const ATTEMPTS: &str = "
        ls /var/lib/supervisor >/dev/null 2>&1 && echo 'listed the state';
        (echo x > /var/lib/supervisor/planted) 2>/dev/null && echo 'wrote the state';
        (cat /proc/1/environ >/dev/null) 2>/dev/null && echo 'read the environment';
        kill -TERM 1 2>/dev/null && echo 'signalled PID 1';
        (echo x > /chaperone/supervisor) 2>/dev/null && echo 'changed the binary';
        (echo x > /etc/planted) 2>/dev/null && echo 'wrote the root file system';
        (echo x > /dev/termination-log) 2>/dev/null && echo 'wrote the termination message';
        echo attempts-end; exec sleep infinity";
    for level in [Level::Restricted, Level::Baseline] {
        in_namespace(level, async |scene| {
            let user = if level == Level::Baseline { "10001:10001" } else { "" };
            let pod = Sandbox::shell(ATTEMPTS).env("SUPERVISOR_AGENT_USER", user).start(scene).await;
            pod.says("attempts-end").await;
            assert_eq!(pod.agent_output().await, ["attempts-end\n"], "{level:?}");
            assert_eq!(pod.health().await.agent.state, "running");
        });
    }
}
