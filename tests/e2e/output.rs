//! `kubectl logs` shows what the agent wrote, unchanged.

use crate::cluster::{Level, in_namespace};
use crate::sandbox::Sandbox;

#[test]
fn kubectl_logs_shows_the_agents_output_unchanged() {
    let lines = [
        "plain",
        "  indented\tand tabbed ",
        "",
        "{\"level\":\"info\",\"msg\":\"json\"}",
        "ünïcödé ✓",
        "%s \\n \\x41",
        "last",
    ];
    let script = lines.iter().map(|line| format!("printf '%s\\n' '{line}'\n")).collect::<String>();
    in_namespace(Level::Restricted, async |scene| {
        let pod = Sandbox::shell(&script).start(scene).await;
        assert_eq!(pod.ended().await.exit_code, 0);
        let expected: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(pod.agent_output().await, expected);
    });
}

#[test]
fn both_streams_arrive_whole_when_the_agent_ends_at_once() {
    in_namespace(Level::Restricted, async |scene| {
        let pod =
            Sandbox::shell("for i in $(seq 2000); do echo out-$i; echo err-$i >&2; done; exit 3").start(scene).await;
        assert_eq!(pod.ended().await.exit_code, 3);
        let output = pod.agent_output().await;
        for stream in ["out", "err"] {
            let prefix = format!("{stream}-");
            let seen: Vec<&str> = output.iter().filter_map(|l| l.trim_end().strip_prefix(&prefix)).collect();
            let expected: Vec<String> = (1..=2000).map(|i| i.to_string()).collect();
            assert_eq!(seen, expected, "{stream}");
        }
    });
}
